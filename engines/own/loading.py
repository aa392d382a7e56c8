"""Loads a user's detector: a Python file with one class that has a `find` method, or with a function `find`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from stream.errors import ConfigurationError
from stream.own_code import classes_with, load_module, where_it_failed

FIND = "find"
MOST_THREADS = 64  # as many as `detector.workers` may be


class OwnDetector(NamedTuple):
    """A user's detector: its `name`, how many frames it takes at the same time, and `make` for an instance.

    An instance has the method `find(image, info)`. `place` is the file with the line in which `find` begins.
    """

    name: str
    threads: int
    make: Callable[[], Any]
    place: str


class _Function:
    """A function `find` in the place of an instance."""

    def __init__(self, find: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self.find = partial(find, **options)


def load_detector(path: Path, options: Mapping[str, Any]) -> OwnDetector:
    """Load the file's one class that has a `find` method, or its function `find`; `options` are their arguments.

    Raises `ConfigurationError` that names the file, and the line where there is one.
    """
    module = load_module(path, "detector")
    classes = classes_with(module, FIND)
    function = getattr(module, FIND, None)
    holder: Any = module
    make: Callable[[], Any]
    if len(classes) == 1:
        name, holder = classes[0].__name__, classes[0]
        make, find = partial(_made, classes[0], path, options), getattr(classes[0], FIND)
    elif not classes and callable(function):
        name, make, find = path.stem, partial(_Function, function, options), function
        _check_call(path, function, options)
    else:
        found = ", ".join(c.__name__ for c in classes) or "none"
        raise ConfigurationError(
            f"detector {path} must have one class with a {FIND} method, or a function {FIND} (found: {found})"
        )
    threads = getattr(holder, "threads", 1)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise ConfigurationError(
            f"detector {path}: threads is {threads!r}; it says how many frames may be searched at the same time, 1 "
            f"to {MOST_THREADS}"
        )
    return OwnDetector(name, threads, make, f"{path}, line {_first_line(find)}")


def _made(made: type, path: Path, options: Mapping[str, Any]) -> Any:
    """An instance of the class."""
    try:
        instance = made(**options)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's class may raise anything, or call sys.exit
        raise ConfigurationError(
            f"detector {path} cannot be made with options {dict(options)}: {where_it_failed(error, path)}"
        ) from error
    _check_call(path, instance.find, {})
    return instance


def _check_call(path: Path, find: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` if it cannot be called with an image and its frame's information."""
    try:
        signature = inspect.signature(find)
    except (TypeError, ValueError):
        return  # a compiled function does not tell; its first call will
    try:
        signature.bind(None, None, **options)
    except TypeError as error:
        raise ConfigurationError(
            f"detector {path}: {FIND} is called with an image and its frame's information"
            f"{f' and options {dict(options)}' if options else ''}, but does not fit: {error}"
        ) from error


def _first_line(find: Any) -> int:
    """The line in which a function begins, 1 where it does not tell."""
    code = getattr(inspect.unwrap(find), "__code__", None)
    return 1 if code is None else int(code.co_firstlineno)
