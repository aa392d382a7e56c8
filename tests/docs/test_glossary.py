"""The names of the code that the glossary gives are names of this code."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("acquisition", "stream", "engines", "tracking", "calibration", "liveptv")
TEXT = ROOT.joinpath("docs", "glossary.md").read_text("utf-8")
CODE = [row.split("|")[3] for row in re.findall(r"^\|.*\|.*\|.*\|$", TEXT, re.MULTILINE)]
PATHS = sorted({name for cell in CODE for name in re.findall(r"`(\w+/[\w/.]*)`", cell)})
NAMES = sorted({name for cell in CODE for name in re.findall(r"`(\w+\.[\w.]+)`", cell)})


def found(dotted):
    """What a dotted name means: a module, or something in one; None where there is no such thing."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            thing = getattr(thing, part, None)
        return thing
    return None


@pytest.mark.parametrize("path", PATHS)
def test_the_path_is_there(path):
    assert ROOT.joinpath(path).exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name.split(".")[0] in PACKAGES])
def test_the_name_is_there(name):
    assert found(name) is not None


def test_no_term_stands_twice():
    terms = re.findall(r"^\| ([^|]+) \| ", TEXT, re.MULTILINE)
    assert len(terms) > 50
    assert [term for term in set(terms) if terms.count(term) > 1 and term not in ("term", "---")] == []
