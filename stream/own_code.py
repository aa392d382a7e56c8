"""Python files of a user's own (controllers, detectors): loaded, and one line on what went wrong and where."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType

from stream.errors import ConfigurationError
from stream.safe_text import in_words, one_line

IN_CELL = ", cell "
"""Between a notebook's path and the number of a cell, in the names of what is run of it."""


def load_module(path: Path, what: str) -> ModuleType:
    """Run the file of a user's `what`, such as a controller, and return it as a module.

    Raises `ConfigurationError` that names file and line, and the setting (`what`.file) if there is no such file.
    """
    module_name = f"liveptv_{what}_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise _missing(path, what)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's file may raise anything, or call sys.exit
        raise ConfigurationError(f"{what} {path} cannot be loaded: {where_it_failed(error)}") from error
    return module


def check_source(path: Path, what: str) -> None:
    """Raise `ConfigurationError` if there is no such file, or if it is no Python; nothing of it is run."""
    if not path.is_file() or path.suffix != ".py":
        raise _missing(path, what)
    try:
        compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError, OSError, RecursionError) as error:
        raise ConfigurationError(f"{what} {path} cannot be loaded: {where_it_failed(error)}") from error


def _missing(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(f"there is no {what} file {path}; {what}.file must name a .py file")


def classes_with(module: ModuleType, method: str) -> list[type]:
    """The classes that the module defines itself and that have this method."""
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and callable(getattr(value, method, None))
    ]


def where_it_failed(error: BaseException, file: Path | None = None) -> str:
    """One line that says what was raised, in which file and line.

    That is the innermost line, or, with a `file`, the innermost one of that file (of a notebook: one of its cells),
    if the error passed through it.
    """
    what = in_words(error)
    if type(error) is SyntaxError:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {one_line(str(error.msg))}"
    frames = traceback.extract_tb(error.__traceback__)
    names = set() if file is None else {str(file), str(file.absolute())}
    own = [frame for frame in frames if frame.filename.rsplit(IN_CELL, 1)[0] in names]
    if not frames:
        return what
    frame = (own or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}: {what}"
