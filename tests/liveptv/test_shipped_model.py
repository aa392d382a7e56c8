"""The model that comes with the program, on images of the simulated microscope, through the engine."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer, in_sight
from calibration.evaluation import evaluate
from engines.blocks import BLOCK_PX
from engines.engine import DetectionError, Engine
from engines.factory import check_model, open_engine
from engines.network.preparation import Preparation, padded
from engines.settings import DetectorSettings
from liveptv.cli.main import run_command_line
from liveptv.models import SHIPPED_MODEL
from stream.errors import ConfigurationError
from stream.messages import Detections, Frame, FrameInfo

OPTICS = OpticsModel()
SHAPE = (200, 312)
MARGIN_UM = 36.0
ONNXRUNTIME = DetectorSettings(workers=1, backend="onnxruntime")


def frames(count, shape=SHAPE, dtype=np.uint8, seed=0, snr=8.0, shading=0.0):
    """Images of particles at random places, and their table of truth."""
    rng = np.random.default_rng(seed)
    renderer = Renderer(load_bank(OPTICS), shape, dtype, snr=snr, seed=seed, shading=shading)
    height_um, width_um = 0.8 * shape[0], 0.8 * shape[1]
    made, truth = [], []
    for number in range(count):
        x = rng.uniform(-MARGIN_UM, width_um + MARGIN_UM, 18)
        y = rng.uniform(-MARGIN_UM, height_um + MARGIN_UM, 18)
        z = rng.uniform(-180, 180, 18)
        image = np.empty(shape, dtype)
        renderer.render(x, y, z, image)
        seen = in_sight(x, y, z, shape, OPTICS)
        truth.append(np.stack([np.full(seen.sum(), number), x[seen], y[seen], z[seen]]))
        made.append(_frame(number, image))
    return made, dict(zip(("frame", "x_um", "y_um", "z_um"), np.hstack(truth), strict=True))


def _frame(number, image):
    return Frame(FrameInfo("run", number, number, 0.04 * number, 0, 0.0, pixel_size_um=0.8), image)


def detect(given, settings=None):
    with closing(
        open_engine(settings or DetectorSettings(workers=2), model=SHIPPED_MODEL, pixel_size_um=0.8)
    ) as engine:
        found: list[Detections] = []
        for frame in given:
            engine.submit(frame)
        while engine.pending:
            found += engine.results(10.0)
        return found, engine.counts()


def scored(truth, found):
    rows = [np.vstack([np.full(len(d), d.info.frame), d.table]) for d in found]
    return evaluate(truth, dict(zip(("frame", *Detections.COLUMNS), np.hstack(rows), strict=True)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_particles_of_the_simulated_microscope_are_found_with_their_depth(dtype):
    given, truth = frames(12, dtype=dtype)
    score = scored(truth, detect(given)[0])
    assert score.missed < 0.05
    assert score.false < 0.05
    assert score.lone.errors["x"].rms_um < 0.4
    assert score.lone.errors["z"].rms_um < 5
    for axis in "xyz":
        assert 0.4 < score.errors[axis].calibration < 2.5


def test_a_shaded_illumination_is_taken_out_by_the_references(tmp_path):
    import tifffile

    from acquisition.physics.rendering import _illumination

    given, truth = frames(8, shading=0.3)
    tifffile.imwrite(tmp_path / "bright.tif", (200.0 * _illumination(SHAPE, 0.3)).astype(np.float32))
    settings = DetectorSettings(workers=1, bright=tmp_path / "bright.tif")
    score = scored(truth, detect(given, settings)[0])
    assert score.missed < 0.08
    assert score.false < 0.08


def test_detections_come_in_the_order_of_the_frames_and_alike_for_any_number_of_workers():
    given, _ = frames(8)
    several, _ = detect(given, DetectorSettings(workers=3))
    alone, _ = detect(given, DetectorSettings(workers=1))
    assert [d.info.frame for d in several] == list(range(8))
    for ours, theirs in zip(several, alone, strict=True):
        np.testing.assert_array_equal(ours.table, theirs.table)


def test_images_of_any_size_are_read_and_nothing_is_found_outside_of_them():
    given, truth = frames(4, shape=(93, 217))
    found, _ = detect(given)
    assert scored(truth, found).missed < 0.25
    for one in found:
        assert ((one.x_um >= -0.4) & (one.x_um < 0.8 * 216.5)).all()
        assert ((one.y_um >= -0.4) & (one.y_um < 0.8 * 92.5)).all()


def test_frames_without_light_or_particles_have_no_detections():
    rng = np.random.default_rng(0)
    dark = _frame(0, np.zeros(SHAPE, np.uint8))
    empty = _frame(1, np.rint(200 + rng.normal(0, 1.3, SHAPE)).astype(np.uint8))
    found, counts = detect([dark, empty])
    assert [len(d) for d in found] == [0, 0]
    assert counts["no_light"] == 1


def test_the_engine_says_what_it_is_and_refuses_images_that_it_cannot_read():
    with closing(open_engine(ONNXRUNTIME, model=SHIPPED_MODEL, pixel_size_um=0.8)) as engine:
        assert isinstance(engine, Engine)
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        info = engine.info
        assert (info.name, info.backend, info.depth, len(info.hash)) == ("network", "onnxruntime", True, 64)
        assert info.details["z_um"] == [-204.0, 204.0]
        for wrong, says in (
            (np.zeros((2, *SHAPE), np.uint8), "volume"),
            (np.zeros(SHAPE, np.float32), "uint8 and uint16"),
            (np.zeros((64, 64), np.uint8), "images before it"),
        ):
            with pytest.raises(DetectionError, match=says):
                engine.submit(_frame(7, wrong))


@pytest.mark.parametrize(
    ("settings", "pixel_size_um", "says"),
    [
        ({}, 0.65, "0.8 um a pixel"),
        ({"polarity": "bright"}, 0.8, "dark particles"),
        ({"threshold": 5.0}, 0.8, "detector.threshold"),
        ({"engine": "classical"}, 0.8, '"auto"'),
    ],
)
def test_a_model_that_does_not_fit_is_refused(settings, pixel_size_um, says):
    with pytest.raises(ConfigurationError, match=says):
        open_engine(DetectorSettings(**settings), model=SHIPPED_MODEL, pixel_size_um=pixel_size_um)


def test_a_network_without_a_model_or_a_damaged_model_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="needs a network"):
        open_engine(DetectorSettings(engine="network"), model=None, pixel_size_um=0.8)
    whole = SHIPPED_MODEL.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "foreign.onnx").write_bytes(whole.replace(b"liveptv", b"another"))
    for name, says in (
        ("cut", "damaged"),
        ("empty", "not an ONNX model"),
        ("foreign", "not a liveptv model"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            check_model(tmp_path / f"{name}.onnx")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 32), (17, 31), (512, 768)])
def test_the_input_is_contrast_in_units_of_the_noise_padded_with_zeros(height, width):
    image = np.full((height, width), 200, np.uint16)
    image[0, 0] = 180
    preparation = Preparation((height, width), -1.0, 0.01, None)
    background = preparation.fill(image)
    given = preparation.input[0, 0]
    assert given.shape == (padded(height), padded(width))
    assert given.shape[0] % BLOCK_PX == given.shape[1] % BLOCK_PX == 0
    if image.size > 100:
        assert background == pytest.approx(200, abs=0.51)
        assert given[0, 0] == pytest.approx((1 - 180 / background) / 0.01, rel=1e-4)
    assert not given[height:].any()
    assert not given[:, width:].any()


def test_detect_and_info_take_the_model(tmp_path, capsys):
    import tifffile

    given, truth = frames(3)
    tifffile.imwrite(
        tmp_path / "images.tif", np.stack([frame.image for frame in given]), photometric="minisblack"
    )
    arguments = ["detect", str(tmp_path / "images.tif"), "-m", str(SHIPPED_MODEL), "--pixel-size", "0.8"]
    assert run_command_line([*arguments, "-o", str(tmp_path / "found.csv")]) == 0
    lines = (tmp_path / "found.csv").read_text().splitlines()
    assert abs(len(lines) - 1 - len(truth["x_um"])) <= 3
    assert run_command_line(["info", str(SHIPPED_MODEL), "--json"]) == 0
    assert '"kind": "network"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "-o", "{folder}/m.onnx"], "give either a calibration, --optics, --images or --examples"),
        (["train", "--optics", "nowhere.toml", "-o", "{folder}/m.onnx"], "cannot read the optics"),
        (["train", "--optics", "simulated", "-o", "{folder}/m.txt"], "an .onnx file"),
        (["train", "--optics", "simulated", "--size", "huge", "-o", "{folder}/m.onnx"], "small or large"),
    ],
)
def test_wrong_trainings_are_one_line_and_status_2(arguments, says, tmp_path, capsys):
    if says in ("give either a calibration, --optics, --images or --examples", "cannot read the optics"):
        pytest.importorskip("torch")
        pytest.importorskip("onnxscript")
    assert run_command_line([argument.format(folder=tmp_path) for argument in arguments]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "m.onnx").exists()
