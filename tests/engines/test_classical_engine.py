from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from astigmatic import PIXEL_SIZE_UM, curve, draw, frame, grid, particles
from pydantic import ValidationError

from engines.classical import centre, detector, joint, spots, widths
from engines.classical.engine import ClassicalEngine
from engines.engine import DetectionError, Engine
from engines.factory import open_engine
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import Detections

SHAPE = (160, 224)


@pytest.fixture
def curve_file(tmp_path: Path) -> Path:
    path = tmp_path / "curve.h5"
    curve().save(path)
    return path


@pytest.fixture
def engine(curve_file: Path) -> Iterator[Engine]:
    with closing(
        open_engine(DetectorSettings(workers=3), model=curve_file, pixel_size_um=PIXEL_SIZE_UM)
    ) as opened:
        yield opened


def image(seed: int, count: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(40, 180, count), rng.uniform(40, 120, count)
    return particles(rng, SHAPE, x, y, rng.uniform(-120, 120, count))


def drain(engine: Engine) -> list[Detections]:
    found = []
    while engine.pending:
        found += engine.results(10.0)
    return found


def test_detections_come_in_the_order_of_the_frames_whatever_the_workers_do(engine: Engine) -> None:
    for number in range(20):
        engine.submit(frame(number, image(number, count=1 + 20 * (number % 2))))
    assert [d.info.frame for d in drain(engine)] == list(range(20))


def test_three_workers_find_what_one_finds(engine: Engine, curve_file: Path) -> None:
    frames = [frame(number, image(number)) for number in range(8)]
    alone = ClassicalEngine(DetectorSettings(), PIXEL_SIZE_UM, curve_file)
    with closing(alone):
        for one in frames:
            engine.submit(one)
            alone.submit(one)
        for ours, theirs in zip(drain(engine), drain(alone), strict=True):
            np.testing.assert_array_equal(ours.table, theirs.table)


def test_an_engine_says_what_it_is(engine: Engine) -> None:
    engine.warmup(*SHAPE, np.dtype(np.uint8))
    assert isinstance(engine, Engine)
    info = engine.info
    assert (info.name, info.backend, info.depth, len(info.hash)) == ("classical", "numba", True, 64)
    assert info.details["polarity"] == "dark"
    assert info.details["z_um"] == [-180.0, 180.0]
    assert info.details["threshold_sigmas"] > 3


def test_nothing_is_compiled_after_the_warm_up(engine: Engine) -> None:
    engine.warmup(*SHAPE, np.dtype(np.uint8))

    def compiled() -> int:
        modules = (centre, detector, joint, spots, widths)
        functions = [f for module in modules for f in vars(module).values() if hasattr(f, "signatures")]
        return sum(len(f.signatures) for f in functions)

    before = compiled()
    for number in range(3):
        engine.submit(frame(number, image(number)))
    assert sum(len(d) for d in drain(engine)) > 5
    assert compiled() == before


def test_the_polarity_is_decided_by_the_first_frame_that_shows_particles() -> None:
    rng = np.random.default_rng(0)
    x, y = grid(SHAPE, 40)
    empty = np.full(SHAPE, 100, np.uint8)
    shown = np.rint(100 - draw(SHAPE, x, y, 2, 2, 40) + rng.normal(0, 1, SHAPE)).astype(np.uint8)
    with closing(open_engine(DetectorSettings(), model=None, pixel_size_um=1.0)) as engine:
        assert not engine.info.depth
        for number, picture in enumerate((empty, shown, 200 - shown)):
            engine.submit(frame(number, picture))
        counts = [len(d) for d in drain(engine)]
        assert engine.info.details["polarity"] == "dark"
    assert counts[0] == 0
    assert counts[1] == x.size
    assert counts[2] < x.size


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((3, *SHAPE), np.uint8), "frame 7 is a volume"),
        (np.zeros(SHAPE, np.float32), "frame 7 has float32 pixels"),
        (np.zeros((80, 80), np.uint8), "frame 7 is \\(80, 80\\) but the images before"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(engine: Engine, picture: np.ndarray, says: str) -> None:
    engine.submit(frame(6, image(6)))
    with pytest.raises(DetectionError, match=says):
        engine.submit(frame(7, picture))
    assert [d.info.frame for d in drain(engine)] == [6]


def test_the_engine_counts_what_it_leaves_out(curve_file: Path) -> None:
    noise = np.random.default_rng(4).normal(0, 1.3, SHAPE)
    speck = np.rint(180 - draw(SHAPE, 100, 80, 0.9, 0.9, 60) + noise).astype(np.uint8)
    with closing(open_engine(DetectorSettings(), model=curve_file, pixel_size_um=0.8)) as engine:
        engine.submit(frame(0, speck))
        assert [len(d) for d in drain(engine)] == [0]
        assert sum(engine.counts().values()) >= 1


def test_flat_field_references_are_read_and_checked(tmp_path: Path, curve_file: Path) -> None:
    path = tmp_path / "bright.tif"
    tifffile.imwrite(path, np.full(SHAPE, 180, np.uint16))
    settings = DetectorSettings(bright=path)
    with closing(open_engine(settings, model=curve_file, pixel_size_um=0.8)) as engine:
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        engine.submit(frame(0, image(0)))
        assert len(drain(engine)[0]) >= 3
    with (
        closing(open_engine(settings, model=curve_file, pixel_size_um=0.8)) as engine,
        pytest.raises(ConfigurationError, match="same camera settings"),
    ):
        engine.warmup(64, 64, np.dtype(np.uint8))


def test_unfit_model_files_are_one_clear_line(tmp_path: Path) -> None:
    for name, says in (
        ("model.onnx", "not an ONNX model"),
        ("model.txt", "not a model that this program knows"),
        ("curve.h5", "cannot read"),
    ):
        (tmp_path / name).write_bytes(b"something")
        with pytest.raises(ConfigurationError, match=says):
            open_engine(DetectorSettings(), model=tmp_path / name, pixel_size_um=1.0)
    with pytest.raises(ConfigurationError, match="no model file"):
        open_engine(DetectorSettings(), model=tmp_path / "missing.h5", pixel_size_um=1.0)
    with pytest.raises(ConfigurationError, match="pixel size"):
        open_engine(DetectorSettings(), model=None, pixel_size_um=0.0)


@pytest.mark.parametrize("wrong", [{"diameter": 9}, {"workers": 0}, {"polarity": "grey"}, {"dark": "d.tif"}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        DetectorSettings(**wrong)
