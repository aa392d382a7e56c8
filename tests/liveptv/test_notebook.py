"""The example notebook runs from top to bottom, is stored with its output, and measures what it says."""

import json
import tempfile
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import liveptv

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_look.ipynb"


@pytest.fixture(scope="module")
def code():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_it_is_stored_as_it_ran(code):
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert "error" not in kinds
    figures = [output for cell in code for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(figures) == 3


def test_it_uses_the_whole_public_interface(code):
    text = "\n".join("".join(cell["source"]) for cell in code)
    for name in ("simulate", "read_recording", "detect", "track", "calibrate", "run", "SHIPPED_MODEL"):
        assert f"liveptv.{name}" in text
    assert "trajectories().to_pandas" in text
    assert "from liveptv" not in text  # nothing private


def test_it_runs_and_measures_what_it_says(code, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    matplotlib.use("Agg")
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf().axes[0].get_xlabel()))
    names = {}
    try:
        for cell in code:
            exec("".join(cell["source"]), names)
    finally:
        plt.close("all")
        matplotlib.rcdefaults()
    assert drawn == ["x (um)", "x (um)", "depth z (um)"]
    assert names["velocity"]["x_um"].median() == pytest.approx(15.0, rel=0.02)
    assert np.all(names["typical"] < [0.1, 0.1, 1.5])
    assert names["calibration"].particles.used.sum() == 6
    assert (names["ended"].ok, names["ended"].frames, names["ended"].frames_lost) == (True, 20, 0)


def test_the_page_names_everything_that_is_public():
    page = (NOTEBOOK.parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    missing = [name for name in liveptv.__all__ if name != "__version__" and f"`{name}" not in page]
    assert missing == []
