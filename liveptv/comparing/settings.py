"""What differs in how two trajectory files were made: settings, model, versions, and what they were made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

OF_THE_OUTPUT = {"run.output", "run.overwrite", "run.notes", "recording.path", "record.output"}
"""Settings that name files; they do not change a result."""
SOURCE = (
    "source",
    "image_shape",
    "image_dtype",
    "pixel_size_um",
    "frame_rate_hz",
    "link_policy",
    "age_limit_ms",
)
ABSENT = "left out"


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values that differ in two attributes or sets of settings, by their names with dots: [in A, in B].

    A section that only one of them has is one value.
    """
    whole = {name for name in {*a, *b} if _is_section(a.get(name)) != _is_section(b.get(name))}
    before, after = (_flat(given, whole=whole) for given in (a, b))
    names = sorted(set(before) | set(after))
    found = {name: [before.get(name, ABSENT), after.get(name, ABSENT)] for name in names}
    return {name: pair for name, pair in found.items() if not _is_same(*pair)}


def made_differently(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """What differs in the attributes of two trajectory files, by kind, from `settings` to `source`."""

    def of(name: str) -> dict[str, list[Any]]:
        pair = [value if isinstance(value := attributes.get(name), Mapping) else {} for attributes in (a, b)]
        return changes(*pair)

    settings = {name: pair for name, pair in of("configuration").items() if name not in OF_THE_OUTPUT}
    source = changes(*({name: given.get(name) for name in SOURCE} for given in (a, b)))
    return {
        "settings": settings,
        "model": of("model") | of("inputs"),
        "engine": of("engine"),
        "versions": of("versions"),
        "source": source,
    }


def _is_same(before: Any, after: Any) -> bool:
    """Whether two values are equal; what is not known (NaN) in either is."""
    return bool(before == after) or (before != before and after != after)  # noqa: PLR0124 - NaN alone is not itself


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _flat(given: Mapping[str, Any], prefix: str = "", whole: Collection[str] = ()) -> dict[str, Any]:
    """Values by their names with dots, those of `whole` as they are; one that is None is left out."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping) and name not in whole:
            found |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value
    return found
