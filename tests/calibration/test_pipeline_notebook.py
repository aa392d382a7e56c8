"""The pipeline of a notebook: only what it needs is run."""

import json

import pytest

pytest.importorskip("deeptrack", reason="needs the extra deeptrack")

from calibration.deeptrack.errors import PipelineError
from calibration.deeptrack.loading import load_pipeline
from calibration.deeptrack.notebook import load_notebook
from calibration.deeptrack.recording import Recorder

CELLS = (
    "%matplotlib inline\n!pip install deeptrack",
    "import deeptrack as dt\nimport a_package_that_nobody_has as dl\nimport numpy as np",
    "%%bash\ngit clone somewhere",
    "raise SystemExit('a download')",
    "SIDE = 1\nSIDE = 48",
    "bead = dt.Sphere(position=lambda: np.random.uniform(8, size, 2), radius=4e-7)",
    "wavelengths = []\nfor w in (4e-7, 6e-7):\n    wavelengths.append(w)",
    "settings = {}\nsettings['NA'] = 0.8",
    "sample = bead ^ 2\nseen = sum([dt.Fluorescence(wavelength=w, output_region=(0, 0, SIDE, SIDE), "
    "resolution=1e-6, magnification=5, **settings)(sample) for w in wavelengths])",
    "image = seen >> dt.Add(1.0)\npixel_size_um = 0.25",
    "model = dl.UNet2d()\nmodel.fit(image)",
    "size = 40\nSIDE = 'of something else'",
)


def written(folder, cells=CELLS):
    path = folder / "tutorial.ipynb"
    text = [{"cell_type": "markdown", "source": ["# A tutorial"]}]
    text += [{"cell_type": "code", "source": cell.splitlines(keepends=True), "outputs": []} for cell in cells]
    path.write_text(json.dumps({"nbformat": 4, "cells": text}), encoding="utf-8")
    return path


def test_a_pipeline_is_read_from_a_notebook_that_does_much_else(tmp_path):
    loaded = load_pipeline(written(tmp_path), "image")
    assert loaded.pixel_size_um == 0.25
    recorder = Recorder(loaded)
    assert [recorder.name_of(each) for each in recorder.scatterers] == ["bead"]
    assert len(recorder.microscopes) == 2
    drawn = recorder.draw(1)
    assert drawn.image.shape == (48, 48)
    assert len(drawn.seen) == 2


def test_what_is_run_is_what_the_variable_needs(tmp_path):
    path = written(
        tmp_path, ("a = 1\nb = a + 1\nunrelated = 1 / 0", "b += 1\nc = 2 * b\nd = c", "b = 'later'")
    )
    module = load_notebook(path, "c")
    assert (module.c, module.b) == (6, 3)
    assert not hasattr(module, "d")


def test_a_notebook_needs_the_name_of_a_variable_that_it_has(tmp_path):
    path = written(tmp_path)
    with pytest.raises(PipelineError, match="name the variable"):
        load_pipeline(path)
    with pytest.raises(PipelineError, match=r"no statement of .* gives 'images' a value"):
        load_pipeline(path, "images")


def test_an_error_names_the_cell_and_its_line(tmp_path):
    path = written(tmp_path, ("a = 1", "\n\nb = a / 0"))
    with pytest.raises(PipelineError, match=r"tutorial\.ipynb, cell 3, line 3: ZeroDivisionError"):
        load_pipeline(path, "b")


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "no json", '{"cells": [{"cell_type": "code"}]}', '{"cells": 3}']
)
def test_another_file_with_this_ending_is_refused(tmp_path, text):
    path = tmp_path / "other.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError, match="not a notebook"):
        load_pipeline(path, "pipeline")
