"""Reads an experiment from TOML, with overrides `section.key=value`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from liveptv.config.experiment import Experiment
from stream.errors import ConfigurationError
from stream.settings import describe


def load_experiment(
    path: Path | None, overrides: Iterable[str] = (), base: dict[str, Any] | None = None
) -> Experiment:
    """Read an experiment file and apply `section.key=value` overrides (values in TOML syntax or bare text).

    Without a file, `base` holds the settings that the overrides are applied to.

    Raises `ConfigurationError` with the file, the key and what is wrong with it, all in one line.
    """
    data: dict[str, Any] = base or {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError as error:
            raise ConfigurationError(f"no experiment file {path}") from error
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path} is not a UTF-8 text file") from error
        except (ValueError, RecursionError) as error:  # a number of too many digits, lists in lists in lists
            raise ConfigurationError(f"{path} is not valid TOML: {' '.join(str(error).split())}") from error
    for override in overrides:
        apply_override(data, override)
    experiment = build_experiment(data, str(path) if path is not None else "the settings given")
    if experiment.microscope is None and experiment.recording is None and experiment.source is None:
        raise ConfigurationError(
            f"{path or 'the experiment'} has no source: add a [microscope], a [recording] or a [source] section"
        )
    return experiment


def revised(experiment: Experiment, **sections: dict[str, Any]) -> Experiment:
    """The experiment with other values in some sections; values that are None are left as they are.

    Raises `ConfigurationError` like a file with these values would.
    """
    data = experiment.model_dump(exclude_unset=True)
    for name, values in sections.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            data[name] = {**(data.get(name) or {}), **given}
    return build_experiment(data, "the command line")


def settings_only(overrides: Iterable[str]) -> Experiment:
    """Apply overrides to the defaults, for commands that work on files and need no source."""
    data: dict[str, Any] = {}
    for override in overrides:
        apply_override(data, override)
    return build_experiment(data, "--set")


def build_experiment(data: dict[str, Any], origin: str) -> Experiment:
    """Validate nested settings; `origin` names them in errors."""
    if place := _place_of_nul(data):
        raise ConfigurationError(f"{origin}: {place} contains a NUL character; remove it")
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(f"{origin}: {describe(error)}") from error


def _place_of_nul(data: object, place: str = "") -> str:
    """Where in nested settings a text or a key has a NUL, which no path and no device takes; "" for nowhere."""
    if isinstance(data, str):
        return place if "\0" in data else ""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        name = f"{place}.{key}".lstrip(".")
        found = name if "\0" in str(key) else _place_of_nul(value, name)
        if found:
            return found.replace("\0", "?")
    return ""


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in nested `data`.

    The value is read as TOML; what is not valid TOML is taken as text. Quote a part of the key that has
    dots in it: `microscope.properties."Camera.Seed"=3`.
    """
    key, separator, value = override.partition("=")
    if not separator or not key.strip():
        raise ConfigurationError(f"--set {override!r}: write it as section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value
    try:
        parts = _key_parts(key.strip())
    except ValueError as error:
        raise ConfigurationError(f"--set {override!r}: {key!r} is not a valid key: {error}") from error
    for part in parts[:-1]:
        inner = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"--set {override!r}: {part!r} is a value, not a section")
        data = inner
    data[parts[-1]] = parsed


def _key_parts(key: str) -> list[str]:
    parts = []
    node: Any = tomllib.loads(f"{key} = 0")
    while isinstance(node, dict):
        if len(node) != 1:
            raise ValueError("it is not one key")
        part, node = next(iter(node.items()))
        parts.append(part)
    return parts
