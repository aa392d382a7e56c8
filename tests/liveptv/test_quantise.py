"""8-bit forms of a model: kept beside it, refused when stale, damaged or worse."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer
from calibration.training.scoring import Scores
from engines.backends.quantised import quantised_path, read_quantised, why_not_quantised, write_quantised
from engines.blocks import BLOCK_PX
from engines.engine import BackEndError
from engines.factory import open_engine
from engines.network.model import OnnxModel
from engines.settings import DetectorSettings
from liveptv.cli.main import run_command_line
from liveptv.models import SHIPPED_MODEL
from liveptv.workflows import quantise as quantising
from stream.errors import ConfigurationError, SourceError

GOOD = Scores(1000, 0.02, 0.01, 0.3, 0.3, 3.0, 0.1, None)


@pytest.fixture
def model(tmp_path):
    return shutil.copy(SHIPPED_MODEL, tmp_path / "model.onnx")


def recording(path, shape=(200, 312), count=6):
    rng = np.random.default_rng(1)
    renderer = Renderer(load_bank(OpticsModel()), shape, np.uint8, snr=6.0, seed=1)
    images = np.empty((count, *shape), np.uint8)
    for image in images:
        x, y = (rng.uniform(0, 0.8 * size, 20) for size in shape[::-1])
        renderer.render(x, y, rng.uniform(-180, 180, 20), image)
    tifffile.imwrite(path, images, photometric="minisblack")
    return path


@settings(max_examples=50)
@given(st.sampled_from(quantising.FIGURES), st.floats(0, 0.099))
def test_up_to_a_tenth_worse_is_as_good(name, part):
    assert not quantising.shortcomings(GOOD, replace(GOOD, **{name: (1 + part) * getattr(GOOD, name)}))


@pytest.mark.parametrize("name", quantising.FIGURES)
@pytest.mark.parametrize("times", [1.3, np.nan])
def test_more_than_a_tenth_is_worse_and_so_is_what_could_not_be_measured(name, times):
    worse = quantising.shortcomings(GOOD, replace(GOOD, **{name: times * getattr(GOOD, name)}))
    assert len(worse) == 1
    assert worse[0].startswith(name)


def test_an_8_bit_form_is_of_one_state_of_a_model_and_no_other(model):
    assert why_not_quantised(model) == "no 8-bit form of model.onnx; run `liveptv engine quantise model.onnx`"
    path = write_quantised(model, b"<net/>", b"\x01\x02", {"parts": 3})
    assert path == quantised_path(model)
    assert why_not_quantised(model) == ""
    stored = read_quantised(model)
    assert (stored.graph, stored.weights.tolist(), stored.facts["parts"]) == ("<net/>", [1, 2], 3)
    model.write_bytes(model.read_bytes() + b"\0")
    assert "another version of model.onnx" in why_not_quantised(model)
    with pytest.raises(BackEndError, match="another version"):
        read_quantised(model)
    path.write_bytes(path.read_bytes()[:40])
    assert "damaged" in why_not_quantised(model)


def test_inputs_are_parts_of_the_images_in_units_of_the_noise(tmp_path):
    inputs = quantising.typical_inputs(
        OnnxModel(SHIPPED_MODEL).card, recording(tmp_path / "r.tif"), None, None
    )
    assert len(inputs) == 6
    for one in inputs:
        assert one.shape[2] % BLOCK_PX == one.shape[3] % BLOCK_PX == 0
        assert abs(np.median(one)) < 0.2
        assert one.max() > 3


def test_images_that_show_nothing_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "dark.tif", np.zeros((3, 100, 100), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "tiny.tif", np.zeros((3, 30, 30), np.uint8), photometric="minisblack")
    card = OnnxModel(SHIPPED_MODEL).card
    for name, says in (("dark", "are dark"), ("tiny", "30 x 30")):
        with pytest.raises(SourceError, match=says):
            quantising.typical_inputs(card, tmp_path / f"{name}.tif", None, None)


def test_reduced_precision_without_its_file_is_refused(model):
    pytest.importorskip("openvino")
    with pytest.raises(ConfigurationError, match="engine quantise"):
        open_engine(DetectorSettings(backend="openvino", precision="reduced"), model=model, pixel_size_um=0.8)


@pytest.mark.slow
def test_a_network_in_8_bits_that_is_as_accurate_is_kept_and_used_and_one_that_is_not_is_refused(
    model, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    monkeypatch.setattr(quantising, "SCORED_IMAGES", 120)
    images = recording(tmp_path / "r.tif", (256, 384), 24)
    assert run_command_line(["engine", "quantise", str(model), str(images)]) == 0
    facts = read_quantised(model).facts
    assert facts["scores"]["int8"]["z_um"] <= 1.1 * facts["scores"]["float32"]["z_um"]
    with closing(open_engine(DetectorSettings(workers=1), model=model, pixel_size_um=0.8)) as engine:
        assert (engine.info.backend, engine.info.details["precision"]) == ("openvino", "int8")

    monkeypatch.setattr("engines.backends.openvino_network.processor_of", lambda core: "another processor")
    with closing(open_engine(DetectorSettings(workers=1), model=model, pixel_size_um=0.8)) as engine:
        assert engine.info.details["precision"] == "float32"
    with pytest.raises(ConfigurationError, match="not on another processor; quantise it here"):
        open_engine(DetectorSettings(precision="reduced"), model=model, pixel_size_um=0.8)

    monkeypatch.setattr(quantising, "TOLERANCE", -0.5)
    assert run_command_line(["engine", "quantise", str(model), str(images)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "model.onnx is not accurate enough in 8 bits" in said
    assert "z_um" in said
    assert not quantised_path(model).exists()
