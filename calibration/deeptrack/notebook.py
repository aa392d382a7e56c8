"""The pipeline of a Jupyter notebook: of its code, the statements that one variable needs.

A notebook of DeepTrack's also downloads data, draws plots and trains a network of its own. None of this is run:
statements are taken that give the variable its value, those that give a value to what they use, and so on.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from calibration.deeptrack.errors import PipelineError
from stream.own_code import IN_CELL, where_it_failed

SUFFIX = ".ipynb"
NOT_PYTHON = re.compile(r"^(\s*)[%!?].*$", re.MULTILINE)
"""Lines for the notebook's own machinery: `%matplotlib inline`, `!pip install ...`."""
CHANGING = {"append", "extend", "insert", "setdefault"}
"""Methods that give a list or dict more of its value."""


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A statement, the cell that it is in (from 1), the names that it gives values to, and those that it uses."""

    node: ast.stmt
    cell: int
    given: frozenset[str]
    used: frozenset[str]


def load_notebook(path: Path, name: str, also: Iterable[str] = ()) -> ModuleType:
    """Run what the variable `name` and those of `also` that are there need; returns it as a module.

    Raises `PipelineError` for what is no notebook, where no statement gives the variable a value, and that names
    cell and line where one fails.
    """
    if not name:
        raise PipelineError(
            f"name the variable of {path} that holds the pipeline, such as --images {path.name}:pipeline"
        )
    statements = needed(list(_statements(path)), {name, *also}, name)
    if not statements:
        raise PipelineError(f"no statement of {path} gives {name!r} a value")
    module = ModuleType(f"liveptv_images_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        for each in statements:
            only = ast.Module([each.node], [])
            exec(compile(only, f"{path}{IN_CELL}{each.cell}", "exec"), vars(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's code may raise anything, or call sys.exit
        raise PipelineError(f"images {path} cannot be loaded: {where_it_failed(error, path)}") from error
    return module


def needed(statements: list[Statement], names: set[str], last: str) -> list[Statement]:
    """The statements that give these names their values, in their order; none where nothing gives `last` one.

    What comes after `last` has its value is only taken for names that have none before, as functions may use them.
    """
    ends = [number for number, each in enumerate(statements) if last in each.given]
    if not ends:
        return []
    before, after = statements[: ends[-1] + 1], statements[ends[-1] + 1 :]
    early = {name for each in before for name in each.given}
    wanted, size = set(names), -1
    while size != len(wanted):
        size = len(wanted)
        taken = [each for each in before if each.given & wanted]
        taken += [each for each in after if each.given & (wanted - early)]
        wanted |= {name for each in taken for name in each.used}
    return taken


def _statements(path: Path) -> Iterator[Statement]:
    """All statements of the code cells that are Python."""
    for number, source in enumerate(_sources(path), start=1):
        try:
            tree = ast.parse(NOT_PYTHON.sub(r"\1pass", source))
        except (SyntaxError, ValueError, RecursionError):
            continue  # another language's (%%bash), or text; what is missed is told by its name
        for node in tree.body:
            yield Statement(node, number, frozenset(_given(node)), frozenset(_used(node)))


def _sources(path: Path) -> list[str]:
    """The text of each cell, "" for those without code."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [_text(cell["source"]) if cell["cell_type"] == "code" else "" for cell in cells]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PipelineError(f"{path} is not a notebook of Jupyter, version 4: {error}") from error


def _text(source: Any) -> str:
    text = source if isinstance(source, str) else "".join(source)
    return "" if text.startswith("%%") else text


def _given(node: ast.AST) -> Iterator[str]:
    """Names that a statement gives a value, or changes."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
            return
        case ast.Lambda() | ast.GeneratorExp() | ast.ListComp() | ast.SetComp() | ast.DictComp():
            return
        case ast.Import() | ast.ImportFrom():
            yield from ((each.asname or each.name).split(".")[0] for each in node.names)
        case ast.Name(ctx=ast.Store()):
            yield node.id
        case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
            yield from _owner(node.value)
        case ast.Call(func=ast.Attribute(attr=method)) if method in CHANGING:
            yield from _owner(node.func)
    for child in ast.iter_child_nodes(node):
        yield from _given(child)


def _owner(node: ast.AST) -> Iterator[str]:
    """The variable at the beginning of `name.part[0].part`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _used(node: ast.AST) -> Iterator[str]:
    return (each.id for each in ast.walk(node) if isinstance(each, ast.Name))
