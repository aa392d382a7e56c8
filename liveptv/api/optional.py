"""Libraries that are not part of the default installation."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from stream.errors import ConfigurationError


def needs(library: str) -> Any:
    """Import an optional library. Raises `ConfigurationError` with what to install."""
    try:
        return import_module(library)
    except ImportError as error:
        raise ConfigurationError(
            f"this needs {library}, which is not installed: pip install {library}"
        ) from error
