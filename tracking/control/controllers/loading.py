"""Loads a user's controller: a Python file with one class that has an `update` method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from stream.errors import ConfigurationError
from stream.own_code import classes_with, load_module, where_it_failed
from tracking.control.controllers.controller_interface import Controller


def controller_from_file(path: Path, options: Mapping[str, Any]) -> Controller:
    """Load the file's one class that has an `update` method and call it with `options`.

    A controller without a `name` gets the name of its class. Raises `ConfigurationError` that names file and line.
    """
    classes = classes_with(load_module(path, "controller"), "update")
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
