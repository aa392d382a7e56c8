"""The form in which the page sets each controller, made from the fields of the controller's settings."""

from __future__ import annotations

import typing
from types import NoneType, UnionType
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tracking.control.protocol_settings import Foci
from tracking.control.settings import KINDS, ControllerSettings

# Endings of names and the units that they stand for; the page's scripts get this table with the forms.
UNITS = (
    ("_ul_s", "µL/s"),
    ("_um_s", "µm/s"),
    ("_um", "µm"),
    ("_pa", "Pa"),
    ("_percent", "%"),
    ("_frames", "frames"),
    ("_s", "s"),
)
TYPES = {float: "number", int: "whole", str: "text", bool: "flag"}
SPECIAL = {"ul_s_per_um_s": ("flow per velocity", "µL/s per µm/s"), "slices": ("slices", "µm")}
FILE = "file"


def controller_forms(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    """One form per controller: `kind`, `title`, `about` (its purpose) and its `fields`, required ones first.

    A field's value is the one in the experiment's `[controller]`, else, if it is required, the experiment's limit
    of the same name; other fields show their default. A controller file is offered only if the experiment names it.
    """
    own = configuration.get("controller") or {}
    limits = configuration.get("limits") or {}
    forms = []
    for kind in KINDS:
        if kind == FILE:
            continue
        settings = typing.get_args(ControllerSettings.model_fields[kind].annotation)[0]
        given = {key: value for key, value in (own.get(kind) or {}).items() if value is not None}
        fields = [_field(name, field, given, limits) for name, field in settings.model_fields.items()]
        fields.sort(key=lambda field: (not field["required"], not field["name"].startswith("target")))
        about = (settings.__doc__ or "").strip().splitlines()[0]
        forms.append({"kind": kind, "title": kind.replace("_", " "), "about": about, "fields": fields})
    if own.get(FILE):
        forms.append(_file_form(own))
    return forms


def _file_form(own: dict[str, Any]) -> dict[str, Any]:
    fields = [
        {"name": name, "label": name, "type": TYPES[type(value)], "required": False, "value": value}
        for name, value in (own.get("options") or {}).items()
    ]
    about = f"The controller file {own[FILE]}."
    return {"kind": FILE, "title": "from a file", "about": about, "fields": fields, "file": own[FILE]}


def _field(name: str, field: FieldInfo, given: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
    kind, choices = _type(field.annotation)
    suffix, unit = next(((suffix, unit) for suffix, unit in UNITS if name.endswith(suffix)), ("", ""))
    label, unit = SPECIAL.get(name, (name.removesuffix(suffix).replace("_", " "), unit))
    found: dict[str, Any] = {
        "name": name,
        "label": label,
        "unit": unit,
        "type": kind,
        "about": field.description or "",
        "required": field.is_required(),
    }
    if choices:
        found["choices"] = choices
    if name in given:
        value = given[name]
        found["value"] = Foci.model_validate(value).positions_um() if isinstance(value, dict) else value
    elif field.is_required() and limits.get(name) is not None:
        found["value"] = limits[name]
    if not field.is_required() and field.default is not None:
        found["default"] = field.default
    return found


def _type(annotation: Any) -> tuple[str, list[str]]:
    """How a field is filled in, and its choices."""
    parts = [annotation]
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not NoneType]
    if any(isinstance(part, type) and issubclass(part, BaseModel) for part in parts):
        return "list", []  # positions, one by one or as first, last and count
    part = parts[0]
    if typing.get_origin(part) is Literal:
        return "choice", list(typing.get_args(part))
    return TYPES[part], []
