"""What an engine leaves out, and images that came twice, are counted and said once."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from astigmatic import PIXEL_SIZE_UM, curve, draw, frame, grid, particles

from engines.engine import Engine
from engines.factory import open_engine
from engines.particle_limit import strongest
from engines.repeated_images import RepeatedImages
from engines.settings import DetectorSettings
from engines.watched_engine import REMARKS, WatchedEngine, summary_of
from liveptv.models import SHIPPED_MODEL
from stream.messages import Detections, Frame, Predictions

SHAPE = (256, 256)
COUNT = 49


def spots(seed: int, brightness: npt.ArrayLike = 60.0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    x, y = grid(SHAPE, 32)
    return np.rint(100 + draw(SHAPE, x, y, 2, 2, brightness) + rng.normal(0, 2, SHAPE)).astype(np.uint8)


def results(engine: Engine, images: list[npt.NDArray[np.uint8]]) -> list[Detections]:
    found = []
    for number, image in enumerate(images):
        engine.submit(frame(number, image))
        found += engine.results(0.0)
    while engine.pending:
        found += engine.results(10.0)
    return found


def test_particles_beyond_the_limit_are_counted_and_said_once_with_the_setting() -> None:
    said: list[str] = []
    settings = DetectorSettings(workers=1, max_particles=10)
    with closing(open_engine(settings, model=None, pixel_size_um=1.0, say=said.append)) as engine:
        found = results(engine, [spots(k) for k in range(4)])
        left_out = engine.counts()["too_many"]
    assert [len(d) for d in found] == [10] * 4
    total = len(grid(SHAPE, 32)[0])
    assert left_out == 4 * (total - 10)
    assert len(said) == 1
    assert "detector.max_particles is 10" in said[0]
    assert f"{left_out} particles over detector.max_particles left out" in summary_of({"too_many": left_out})


def test_a_network_counts_them_as_well(tmp_path: Path) -> None:
    from engines.cuda.check import drawn_frame
    from engines.cuda.layout import FrameFormat
    from engines.network.model import OnnxModel

    model = OnnxModel(SHIPPED_MODEL)
    image = drawn_frame(
        model.card, model.psf(), FrameFormat.of((192, 288), np.dtype("u1"), False, 2000), None
    )
    found, counts = {}, {}
    for most in (2, 2000):
        said: list[str] = []
        settings = DetectorSettings(workers=1, max_particles=most, backend="onnxruntime")
        size = model.card.pixel_size_um
        with closing(
            open_engine(settings, model=SHIPPED_MODEL, pixel_size_um=size, say=said.append)
        ) as engine:
            (found[most],) = results(engine, [image])
            counts[most] = engine.counts().get("too_many", 0)
        assert ["max_particles" in text for text in said] == [True] * (most == 2)
    assert len(found[2]) == 2
    assert counts[2] >= len(found[2000]) - 2 > 0
    assert counts[2000] == 0


def test_with_depth_the_brightest_are_kept(tmp_path: Path) -> None:
    curve().save(tmp_path / "curve.h5")
    rng = np.random.default_rng(0)
    x, y = grid(SHAPE, 64)
    image = particles(rng, SHAPE, x, y, rng.uniform(-100, 100, x.size))
    tables = {}
    for most in (3, 1000):
        settings = DetectorSettings(workers=1, max_particles=most)
        model = tmp_path / "curve.h5"
        with closing(open_engine(settings, model=model, pixel_size_um=PIXEL_SIZE_UM)) as engine:
            (tables[most],) = results(engine, [image])
    assert len(tables[3]) == 3
    assert sorted(tables[3].brightness) == sorted(tables[1000].brightness)[-3:]


def test_of_too_many_the_brightest_stay_in_their_order() -> None:
    table = np.arange(90.0).reshape(9, 10)
    table[6] = [3, 9, np.nan, 1, 7, 7, 2, 8, 0, 5]
    kept, left_out = strongest(table, 4)
    assert left_out == 6
    assert kept[0].tolist() == [1, 4, 5, 7]
    same, none = strongest(table, 10)
    assert none == 0
    assert same is table


def test_pixels_under_a_bubble_are_said() -> None:
    said: list[str] = []
    image = spots(0).astype(np.uint16)
    image[np.hypot(*(np.indices(SHAPE) - 128)) < 25] = 4000
    settings = DetectorSettings(workers=1, polarity="bright")
    with closing(open_engine(settings, model=None, pixel_size_um=1.0, say=said.append)) as engine:
        results(engine, [image, image + np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint16)])
        hidden = engine.counts()["hidden_px"]
    assert hidden >= 2 * np.pi * 25**2 * 0.95
    assert len(said) == 1
    assert "particles there are not detected" in said[0]


@pytest.mark.parametrize(
    "kind", ["noisy", "drawn", "two bytes", "big-endian", "almost dark", "one moving pixel", "small"]
)
def test_an_image_that_comes_twice_is_noticed(kind: str) -> None:
    rng = np.random.default_rng(1)
    images = []
    for k in range(12):
        image = spots(k)
        if kind == "drawn":
            image = draw(SHAPE, np.array([50.0 + 3 * k]), np.array([70.0]), 3, 3, 60.0).astype(np.uint8)
        elif kind in ("two bytes", "big-endian"):
            image = image.astype("<u2" if kind == "two bytes" else ">u2") * 7
        elif kind == "almost dark":
            image = rng.poisson(0.05, SHAPE).astype(np.uint8)
        elif kind == "one moving pixel":
            image = np.zeros(SHAPE, np.uint8)
            image[37, 5 * k] = 200
        elif kind == "small":
            image = rng.integers(0, 9, (1, 3)).astype(np.uint8) + k
        images.append(image)
    watch = RepeatedImages()
    order = [0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 9, 10, 11]
    seen = [watch.is_repeated(images[k].copy()) for k in order]
    assert seen == [a == b for a, b in zip(order, [None, *order], strict=False)]


def test_a_volume_that_is_delivered_twice_is_told_from_one_with_another_slice() -> None:
    rng = np.random.default_rng(2)
    first = rng.poisson(100, (10, 48, 40)).astype(np.uint16)
    another = first.copy()
    another[7] = rng.poisson(100, another[7].shape)
    watch = RepeatedImages()
    given = (first, first.copy(), another, another.copy(), first)
    assert [watch.is_repeated(volume) for volume in given] == [False, True, False, True, False]


def test_images_without_light_are_not_called_repeated() -> None:
    watch = RepeatedImages()
    assert not any(watch.is_repeated(np.full(SHAPE, 3, np.uint8)) for _ in range(5))
    noisy = spots(0)
    assert [watch.is_repeated(image) for image in (noisy, np.zeros_like(noisy), noisy, noisy)][:3] == [
        False
    ] * 3


def test_an_image_of_another_size_is_another_image() -> None:
    watch = RepeatedImages()
    assert not watch.is_repeated(spots(0))
    assert not watch.is_repeated(spots(0)[:128])
    assert not watch.is_repeated(spots(0)[:, :128])


def test_repeated_images_are_counted_and_said_once_and_change_no_result() -> None:
    said: list[str] = []
    images = [spots(0), spots(1), spots(1), spots(2), spots(2)]
    with closing(
        open_engine(DetectorSettings(workers=1), model=None, pixel_size_um=1.0, say=said.append)
    ) as engine:
        found = results(engine, images)
        assert engine.counts()["repeated_images"] == 2
    assert [text[:29] for text in said] == ["frame 2 repeats the image bef"]
    np.testing.assert_array_equal(found[1].table, found[2].table)
    assert found[1].info.frame != found[2].info.frame


class Fake:
    """An engine that counts whatever it is told to."""

    info = None
    pending = 0

    def __init__(self, **counts: int) -> None:
        self.given = counts

    def submit(self, _frame: Frame, _predicted: Predictions | None = None) -> None: ...

    def results(self, _timeout_s: float) -> list[Detections]:
        return [Detections.empty(frame(3, spots(0)).info)]

    def counts(self) -> dict[str, int]:
        return dict(self.given)


@pytest.mark.parametrize("name", ["too_many", "hidden_px"])
def test_each_remark_is_said_once_whatever_the_engine(name: str) -> None:
    said: list[str] = []
    engine = WatchedEngine(Fake(**{name: 7, "doubtful": 3}), 2000, said.append)  # type: ignore[arg-type]
    for _ in range(3):
        engine.results(0.0)
    assert said == [REMARKS[name].first.format(n=7, frame=3, most=2000)]
    assert summary_of(engine.counts()) == REMARKS[name].total.format(n=7)
    assert summary_of({"doubtful": 3}) == ""
