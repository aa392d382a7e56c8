"""What the Python of the pages imports is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("acquisition", "calibration", "engines", "liveptv", "stream", "tracking")
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def imported(text: str) -> set[tuple[str, str]]:
    """Modules of this project and the names that are imported from them, in the Python of a page."""
    found: set[tuple[str, str]] = set()
    for block in BLOCK.findall(text):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
                found |= {(node.module, each.name) for each in node.names}
            elif isinstance(node, ast.Import):
                found |= {(each.name, "") for each in node.names if each.name.split(".")[0] in OURS}
    return found


IMPORTS = sorted(
    (page.name, module, name) for page in PAGES for module, name in imported(page.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize(("page", "module", "name"), IMPORTS)
def test_what_a_page_imports_is_there(page, module, name):
    found = importlib.import_module(module)
    assert not name or hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), page


def test_the_pages_import_from_this_project():
    assert len(IMPORTS) > 20


NO_MODULES = {"png", "html", "h5", "py", "end"}
"""Endings of files, which look like names in a module."""
NAME = re.compile(rf"`((?:{'|'.join(OURS)})(?:\.\w+)+)(?:\([^`]*\))?`")
NAMES = sorted(
    {
        (page.relative_to(ROOT).as_posix(), name)
        for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        for name in NAME.findall(page.read_text(encoding="utf-8"))
        if name.split(".")[-1] not in NO_MODULES
    }
)


def is_there(name: str) -> bool:
    """Whether a dotted name leads to a module, or to what is in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as missing:
            if missing.name is not None and missing.name.split(".")[0] not in OURS:
                return True  # needs an optional package
            continue
        for part in parts[end:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_what_a_page_names_is_there(page, name):
    assert is_there(name)
