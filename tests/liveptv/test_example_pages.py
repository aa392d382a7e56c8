"""The example pages run from top to bottom in their quick form, and are stored as they ran in full.

A page checks itself: its last code cell has `assert` statements on what it measured.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

import liveptv

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "pages"
PAGES = sorted(FOLDER.glob("*.ipynb"))
QUICK = 'QUICK = "LIVEPTV_QUICK" in os.environ'
LARGEST_BYTES = 1_500_000
NEEDED = {"torch": r"\btorch\b|liveptv\.train\b|liveptv train\b", "deeptrack": r"\bdeeptrack\b"}


def code_of(page):
    return [cell for cell in json.loads(page.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def needs(page):
    """The optional packages that a page uses: it, or the files beside it that begin with its name."""
    beside = [file.read_text("utf-8") for file in FOLDER.glob(f"{page.stem}*.py")]
    text = "\n".join([*beside, *map(source, code_of(page))])
    return [package for package, pattern in NEEDED.items() if re.search(pattern, text)]


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def page(request):
    return request.param


def test_it_is_stored_as_it_ran(page):
    assert page.stat().st_size < LARGEST_BYTES
    code = code_of(page)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs}.isdisjoint({"error"})
    assert not [output for output in outputs if output.get("name") == "stderr"], "warnings or progress bars"
    assert any("image/png" in output.get("data", {}) for output in outputs)
    shown = json.dumps(
        [{**output, "data": {**output.get("data", {}), "image/png": ""}} for output in outputs]
    )
    assert not re.search(r"[\"'\s](/[a-z]\w*/|[A-Z]:\\)", shown), "paths of the computer that made it"


def test_it_has_a_quick_form_and_checks_itself(page):
    code = code_of(page)
    assert QUICK in source(code[0])
    assert "assert " in source(code[-1])
    assert "from liveptv" not in "".join(map(source, code))  # nothing private


def test_it_is_in_the_list_with_its_picture(page):
    listed = (ROOT / "docs" / "examples.md").read_text("utf-8")
    assert f"../examples/pages/{page.name}" in listed
    assert f"images/example-{page.stem.replace('_', '-')}.png" in listed


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_it_runs_in_its_quick_form_and_measures_what_it_says(page, monkeypatch, tmp_path):
    for package in needs(page):
        pytest.importorskip(package)
    folder = shutil.copytree(FOLDER, tmp_path / "pages")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)  # as a notebook has its own folder
    monkeypatch.setenv("LIVEPTV_QUICK", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    matplotlib.use("Agg")
    drawn = []

    def show():
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
            drawn.append(number)
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    names = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(code_of(page), 1):
            exec(compile(source(cell), f"{page.name}, code cell {number}", "exec"), names)
            show()
    finally:
        plt.close("all")
        matplotlib.rcdefaults()
    assert drawn


def test_the_first_look_uses_the_public_interface():
    text = "\n".join(map(source, code_of(FOLDER / "first_look.ipynb")))
    for name in ("simulate", "read_recording", "detect", "track", "calibrate", "run", "SHIPPED_MODEL"):
        assert f"liveptv.{name}" in text
    assert "trajectories().to_pandas" in text


def test_the_page_on_python_names_everything_that_is_public():
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    missing = [name for name in liveptv.__all__ if name != "__version__" and f"`{name}" not in page]
    assert missing == []
