"""Writes the reference pages that are made from the code: settings.md and command-line.md.

Run it after a change of a settings model or of a command: python docs/make_reference.py
tests/docs/test_reference.py fails while a page differs from the code.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from acquisition.physics.optics import OpticsModel
from calibration.training.settings import TrainingSettings
from liveptv.cli.main import app
from liveptv.config import Experiment

HERE = Path(__file__).parent
MADE_BY = "<!-- made by docs/make_reference.py; do not edit -->\n"
UNITS = {
    "ul_s_per_um_s": "uL/s per um/s",
    "_um_s": "um/s",
    "_ul_s": "uL/s",
    "_um2_s": "um²/s",
    "_per_s": "1/s",
    "_um": "um",
    "_ms": "ms",
    "_s": "s",
    "_hz": "Hz",
    "_px": "px",
    "_mb": "MB",
    "_deg": "degrees",
    "_frames": "frames",
    "minutes": "min",
    "seconds": "s",
}
TAKEN = {Path: "PATH", float: "NUMBER", int: "NUMBER", str: "TEXT"}
PLAIN = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
LISTS = {"steps": "[[protocol.steps]]"}


def settings_page() -> str:
    """The page of all settings."""
    parts = [
        MADE_BY,
        "# Settings\n",
        "Every key of the experiment file, by section. [Running an experiment](running.md) shows such a file. All "
        "keys are optional unless the default says *required*. `--set section.key=value` overrides a key on the "
        "command line. An unknown key is an error.\n",
        "Lengths are in um in object space. Heights are absolute: focus position + z.\n",
    ]
    for name, field in Experiment.model_fields.items():
        model = next(models_in(field.annotation))
        parts += [f"## [{name}]\n", f"{sentence(model.__doc__)}\n", table_of(model)]
        parts += nested(name, model)
    parts += [
        "## The optics file\n",
        "`liveptv train --optics optics.toml` trains on images computed from the optics alone. Such a file has "
        "these keys, without a section.\n",
        table_of(OpticsModel),
        "## Training in Python\n",
        "What `calibration.training` takes. `liveptv train` has options for most of it "
        "([command line](command-line.md#liveptv-train)).\n",
        table_of(TrainingSettings),
    ]
    return "\n".join(parts)


def nested(place: str, model: type[BaseModel]) -> list[str]:
    """Headings and tables of the models within a model."""
    parts = []
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            if inner.__name__ == "Foci":
                continue
            here = f"{place}.{name}"
            title = LISTS.get(name, f"[{here}]")
            parts += [f"### {title}\n", f"{sentence(inner.__doc__)}\n", table_of(inner), *nested(here, inner)]
    return parts


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from models_in(part)


def table_of(model: type[BaseModel]) -> str:
    """A row for each field that is a value and no section of its own."""
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if any(inner.__name__ != "Foci" for inner in models_in(field.annotation)):
            continue
        if not field.description:
            raise SystemExit(f"{model.__name__}.{name} has no description")
        rows.append(
            f"| `{name}` | {value_of(name, field)} | {default_of(field)} | {escaped(field.description)} |"
        )
    return "\n".join(rows) + "\n" if len(rows) > 2 else ""


def value_of(name: str, field: FieldInfo) -> str:
    """Type, unit and limits of a field."""
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return escaped(
        " ".join(part for part in (kind_of(field.annotation), f"({unit})" if unit else "") if part)
    ) + limits_of(field)


def kind_of(annotation: Any) -> str:
    """A type in a reader's words."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin in (typing.Union, types.UnionType):
        kinds = dict.fromkeys(kind_of(part) for part in inner if part is not types.NoneType)
        return "text, number or true/false" if set(inner) == {str, int, float, bool} else " or ".join(kinds)
    if origin is dict:
        return "table"
    if origin in (list, tuple):
        kinds = dict.fromkeys(kind_of(part) for part in inner if part is not Ellipsis)
        return f"list of {' or '.join(kinds)}"
    if isinstance(annotation, type) and issubclass(annotation, str) and hasattr(annotation, "__members__"):
        return ", ".join(f"`{choice.value}`" for choice in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "`{ first_um, last_um, count }`"
    return PLAIN[annotation]


def limits_of(field: FieldInfo) -> str:
    """The least and the greatest value, as in ", at least 1"."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}
    found = [
        f"{text} {getattr(limit, name):g}".replace("e+0", "e")
        for limit in field.metadata
        for name, text in words.items()
        if getattr(limit, name, None) is not None
    ]
    return f", {', '.join(found)}" if found else ""


def default_of(field: FieldInfo) -> str:
    """The default as it is written in the file."""
    if field.is_required():
        return "*required*"
    default = field.get_default(call_default_factory=True)
    if default is None or default in ((), {}, ""):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    if isinstance(default, tuple):
        return escaped(f"`[{', '.join(repr(part) for part in default)}]`".replace("'", '"'))
    return f"`{getattr(default, 'value', default)}`"


def sentence(text: str | None) -> str:
    """The first paragraph of a text, as a sentence."""
    words = " ".join((text or "").strip().split("\n\n")[0].split()).rstrip(".")
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def escaped(text: str) -> str:
    """A text that may stand in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def command_line_page() -> str:
    """The page of all commands."""
    group = typer.main.get_command(app)
    parts = [
        MADE_BY,
        "# Command line\n",
        "What `liveptv COMMAND --help` prints, on one page. The exit status is 0 if all went well, 1 if the "
        "command failed (one line says why), and 2 for a wrong option or setting.\n",
        "With `LIVEPTV_TRACEBACK=1` in the environment an unexpected error shows its traceback.\n",
    ]
    parts += commands_of(group, "liveptv")
    return "\n".join(parts)


def commands_of(group: Any, path: str) -> list[str]:
    """The parts of all commands below a group."""
    parts = []
    for name, command in group.commands.items():
        here = f"{path} {name}"
        if hasattr(command, "commands"):
            parts += [f"## {here}\n", f"{help_of(command)}\n"] if path == "liveptv" else []
            parts += commands_of(command, here)
            continue
        hints = typing.get_type_hints(inspect.unwrap(command.callback))
        level = "##" if path == "liveptv" else "###"
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option"]
        usage = [
            here,
            *(usage_of(one) for one in arguments),
            *(usage_of(one) for one in options if one.required),
        ]
        parts += [f"{level} {here}\n", f"{help_of(command)}\n", f"    {' '.join(usage)} [OPTIONS]\n"]
        rows = [f"| `{one.name.upper()}` | {escaped(one.help or '')} |" for one in arguments]
        rows += [
            f"| {option_of(one, hints)} | {escaped(one.help or '')}{standard_of(one)} |" for one in options
        ]
        parts.append("\n".join(["| | |", "|---|---|", *rows]) + "\n")
    return parts


def help_of(command: Any) -> str:
    """A command's help, a paragraph a paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))


def usage_of(one: Any) -> str:
    """A parameter in the line of the usage."""
    if one.param_type_name == "option":
        return f"{min(one.opts, key=len)} {(one.metavar or one.name).upper()}"
    text = one.name.upper() + ("..." if one.nargs == -1 else "")
    return text if one.required else f"[{text}]"


def option_of(one: Any, hints: dict[str, Any]) -> str:
    """The names of an option and what it takes."""
    names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
    if one.is_flag:
        return names
    kinds = {*typing.get_args(hints[one.name]), hints[one.name]}
    taken = next((text for kind, text in TAKEN.items() if kind in kinds or list[kind] in kinds), "TEXT")
    return f"{names} {escaped(one.metavar or taken)}"


def standard_of(one: Any) -> str:
    """The default of an option, where it has one to tell."""
    if one.required:
        return " (required)"
    if one.is_flag or one.default is None or callable(one.default) or one.default in ((), [], ""):
        return ""
    if "UNSET" in repr(one.default).upper():
        return ""
    return f" (default: {one.default})"


PAGES = {"settings.md": settings_page, "command-line.md": command_line_page}

if __name__ == "__main__":
    for page, make in PAGES.items():
        HERE.joinpath(page).write_text(make(), encoding="utf-8", newline="\n")
