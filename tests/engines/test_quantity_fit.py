"""Objects whose images change with a number of theirs are found and measured, that number included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.psf_model import PsfModel
from engines.factory import open_engine
from engines.matched.object_model import load_object_model, write_object_model
from engines.refine.psf import FitModel
from engines.refine.psf_text import pack, unpack
from engines.refine.quantity import HALF_SPAN_UM, Quantity
from engines.refine.refiner import Refiner
from engines.refine.uneven_light import lay_light
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import NO_PROPERTIES, Detections, Frame, FrameInfo

RADII = (1.5, 3.0)
HALF = 14
PIXEL_UM = 0.1
LIGHT = 400.0
ROW = Detections.COLUMNS.index


def disc(x: float, y: float, radius: float, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """A soft disc, an image that no Gaussian is."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return 1 / (1 + np.exp((np.hypot(columns - x, rows - y) - 1.5 * radius) / 0.5))


def model() -> FitModel:
    """The image model of discs of all radii."""
    side = 2 * HALF + 1
    images = np.array([disc(HALF, HALF, r, (side, side)) for r in np.linspace(*RADII, 9)])
    step = 2 * HALF_SPAN_UM / 8
    spline = PsfModel.from_images(images, -HALF_SPAN_UM, step, pixel_size_um=PIXEL_UM, polarity="bright")
    return replace(spline, quantity=Quantity.over("radius_px", *RADII)).for_fit(brightness_sd=0.5)


def found_in(image: npt.NDArray[np.uint16], path: Path, **settings: float) -> Detections:
    """What the engine of a file finds in an image."""
    engine = open_engine(DetectorSettings(workers=1, **settings), model=path, pixel_size_um=PIXEL_UM)
    try:
        engine.submit(Frame(FrameInfo("test", 0, 0, 0.0, 0, 0.0, pixel_size_um=PIXEL_UM), image))
        results: list[Detections] = []
        while not results:
            results = engine.results(1.0)
        return results[0]
    finally:
        engine.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the model of discs."""
    path = tmp_path_factory.mktemp("objects") / "discs.h5"
    write_object_model(path, model(), "discs")
    return path


def test_discs_are_found_where_they_are_and_as_large_as_they_are(file: Path) -> None:
    rng = np.random.default_rng(3)
    truth = np.array([(20.3, 22.8, 1.7), (61.6, 30.2, 2.9), (40.1, 70.5, 2.2)])
    light = LIGHT * (1 + 0.5 * sum(disc(*each, (96, 96)) for each in truth))
    found = found_in(rng.poisson(light).astype(np.uint16), file)
    assert len(found) == 3
    assert np.isnan(found.z_um).all()
    order = [
        int(np.argmin(np.hypot(found.x_um / PIXEL_UM - x, found.y_um / PIXEL_UM - y))) for x, y, _ in truth
    ]
    radius, error = found.properties.value("radius_px")[order], found.properties.error("radius_px")[order]
    assert found.x_um[order] / PIXEL_UM == pytest.approx(truth[:, 0], abs=0.1)
    assert found.y_um[order] / PIXEL_UM == pytest.approx(truth[:, 1], abs=0.1)
    assert (np.abs(radius - truth[:, 2]) < 4 * error).all()
    assert (error < 0.1).all()


@pytest.mark.parametrize("slope", [0.0, 1.2])
def test_standard_errors_are_right_in_flat_and_in_uneven_light(file: Path, slope: float) -> None:
    rng, off = np.random.default_rng(5), []
    for _ in range(40):
        x, y, radius = rng.uniform(22, 26), rng.uniform(22, 26), rng.uniform(1.6, 2.9)
        ground = 1 + slope * (np.arange(48) - 24) / 48
        light = 60 * (ground[None, :] + 0.4 * disc(x, y, radius, (48, 48)))
        found = found_in(rng.poisson(np.maximum(light, 0)).astype(np.uint16), file)
        assert len(found) >= 1
        best = int(np.argmax(found.confidence))
        off += [(found.x_um[best] - 0.1 * x) / found.sigma_x_um[best]]
        off += [(found.y_um[best] - 0.1 * y) / found.sigma_y_um[best]]
    assert 0.7 < float(np.sqrt(np.mean(np.square(off)))) < 1.35


def test_a_clipped_image_is_measured_by_what_is_left_of_it(file: Path) -> None:
    rng, off = np.random.default_rng(7), []
    for _ in range(12):
        x, y = rng.uniform(22, 26, 2)
        slope = 1 + 0.6 * (np.arange(48) - 24) / 48
        light = np.minimum(4000 * (slope[None, :] + 0.5 * disc(x, y, 2.5, (48, 48))), 5600)
        found = found_in(rng.poisson(light).astype(np.uint16), file)
        away = np.hypot(found.x_um / PIXEL_UM - x, found.y_um / PIXEL_UM - y)
        off.append(float(away.min()))
    assert float(np.median(off)) < 0.1
    assert sum(each < 0.3 for each in off) >= 11


def test_what_memory_held_before_is_no_image_of_objects(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Refiner.prepare

    def with_old_memory(*given: Any) -> Any:
        contrast, work, *rest = prepare(*given)
        work[:] = np.nan  # as it may be before anything was drawn into it
        return contrast, work, *rest

    monkeypatch.setattr(Refiner, "prepare", with_old_memory)
    rng = np.random.default_rng(4)
    empty = found_in(rng.poisson(np.full((96, 96), LIGHT)).astype(np.uint16), file)
    assert not (empty.confidence > 0.9).any()
    light = LIGHT * (1 + 0.5 * disc(40.2, 50.7, 2.0, (96, 96)))
    found = found_in(rng.poisson(light).astype(np.uint16), file)
    assert np.count_nonzero(found.confidence > 0.9) == 1


def test_the_model_survives_its_file(file: Path) -> None:
    kept, whole = load_object_model(file), model()
    assert kept.quantity == whole.quantity
    assert kept.coefficients == pytest.approx(whole.coefficients, abs=1e-4)
    assert unpack(pack(whole), "discs").quantity == whole.quantity


def test_other_files_and_pixels_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="um a pixel"):
        open_engine(DetectorSettings(), model=file, pixel_size_um=0.2)
    with pytest.raises(ConfigurationError, match="image model of objects"):
        open_engine(DetectorSettings(engine="classical"), model=file, pixel_size_um=PIXEL_UM)
    broken = tmp_path / "broken.h5"
    broken.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ConfigurationError):
        open_engine(DetectorSettings(), model=broken, pixel_size_um=PIXEL_UM)


@given(
    low=st.floats(-1e3, 1e3),
    span=st.floats(1e-3, 1e3),
    part=st.floats(0, 1),
    sigma=st.floats(1e-3, 10.0),
)
def test_a_quantity_goes_to_depth_and_back(low: float, span: float, part: float, sigma: float) -> None:
    quantity = Quantity.over("radius_um", low, low + span)
    table = np.full((len(Detections.COLUMNS), 1), np.nan)
    known = type(NO_PROPERTIES)(
        ("radius_um",), np.array([[low + part * span]]), np.array([[sigma * quantity.per_um]])
    )
    depth = quantity.as_depth(table, known)
    assert abs(depth[ROW("z_um"), 0]) <= HALF_SPAN_UM * (1 + 1e-9)
    assert depth[ROW("sigma_z_um"), 0] == pytest.approx(sigma)
    depth[ROW("chi_square")] = 1.0
    after, found = quantity.taken_out(depth, known)
    assert np.isnan(after[ROW("z_um")]).all()
    assert found.value("radius_um")[0] == pytest.approx(low + part * span, abs=1e-6 * (abs(low) + span))


def test_even_light_is_left_alone_and_a_gradient_is_found() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.05, (60, 80)).astype(np.float32)
    out = np.empty_like(noise)
    assert not lay_light(noise, 29, out)
    assert not out.any()
    gradient = np.linspace(-0.4, 0.4, 80, dtype=np.float32)[None, :] + 0.5 * disc(40, 30, 2.0, (60, 80))
    assert lay_light((noise + gradient).astype(np.float32), 29, out)
    assert out[:, 0] == pytest.approx(-0.4, abs=0.03)
    assert out[:, -1] == pytest.approx(0.4, abs=0.03)


def test_a_hill_of_light_makes_no_objects_along_the_border_of_the_image(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:15, :15]
    dot = np.exp(-((rows - 7) ** 2 + (columns - 7) ** 2) / (2 * 1.1**2))
    step = 2 * HALF_SPAN_UM / 8
    dots = PsfModel.from_images(
        np.repeat(dot[None], 9, axis=0), -HALF_SPAN_UM, step, pixel_size_um=PIXEL_UM, polarity="bright"
    )
    file = tmp_path / "dots.h5"
    write_object_model(file, dots.for_fit(brightness_sd=0.5), "dots")
    rows, columns = np.mgrid[:128, :128]
    hill = 4 + 56 * np.exp(-((rows - 60) ** 2 + (columns - 68) ** 2) / (2 * 30**2))
    image = (100 + np.random.default_rng(8).poisson(hill)).astype(np.uint16)  # a camera with an offset
    found = found_in(image, file)
    x, y = found.x_um / PIXEL_UM, found.y_um / PIXEL_UM
    assert np.minimum(np.minimum(x, y), 127 - np.maximum(x, y)).min(initial=64) > 7
