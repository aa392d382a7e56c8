"""Loads a user's controller: a Python file with one class that has an `update` method."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from stream.errors import ConfigurationError
from stream.safe_text import in_words, one_line
from tracking.control.controllers.controller_interface import Controller


def controller_from_file(path: Path, options: Mapping[str, Any]) -> Controller:
    """Load the file's one class that has an `update` method and call it with `options`.

    A controller without a `name` gets the name of its class. Raises `ConfigurationError` that names file and line.
    """
    module_name = f"liveptv_controller_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigurationError(f"there is no controller file {path}; controller.file must name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's file may raise anything, or call sys.exit
        raise ConfigurationError(f"controller {path} cannot be loaded: {where_it_failed(error)}") from error
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module_name
        and callable(getattr(value, "update", None))
    ]
    if len(classes) != 1:
        found = ", ".join(c.__name__ for c in classes) or "none"
        raise ConfigurationError(
            f"controller {path} must have one class with an update method (found: {found})"
        )
    try:
        controller: Any = classes[0](**options)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ConfigurationError(
            f"controller {path} cannot be made with options {dict(options)}: {where_it_failed(error)}"
        ) from error
    if not isinstance(getattr(controller, "name", None), str):
        controller.name = classes[0].__name__
    return cast(Controller, controller)


def where_it_failed(error: BaseException) -> str:
    """One line that says what was raised, in which file and line (the innermost)."""
    what = in_words(error)
    if type(error) is SyntaxError:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {one_line(str(error.msg))}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return what
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {what}"
