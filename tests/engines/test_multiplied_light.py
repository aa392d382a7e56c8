"""Where uneven light multiplies objects, as in brightfield, they are measured as well as in flat light."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from calibration.psf_model import PsfModel
from engines.factory import open_engine
from engines.matched.object_model import write_object_model
from engines.refine.psf import FitModel
from engines.refine.psf_text import pack, unpack
from engines.refine.quantity import HALF_SPAN_UM, Quantity
from engines.settings import DetectorSettings
from stream.messages import Detections, Frame, FrameInfo

RADII = (1.5, 3.0)
HALF, SIDE = 14, 48
PIXEL_UM = 0.1
OFFSET, LIGHT = 1000.0, 4000.0
"""Grey values of the camera without light, and photoelectrons of one grey value each of the background."""


def disc(x: float, y: float, radius: float, side: int) -> npt.NDArray[np.float64]:
    """What a soft disc takes away of the light at each pixel."""
    rows, columns = np.mgrid[:side, :side]
    return 0.3 / (1 + np.exp((np.hypot(columns - x, rows - y) - 1.5 * radius) / 0.7))


def model(dark_grey: float | None) -> FitModel:
    """The image model of dark discs of all radii; the light multiplies them where there is a `dark_grey`."""
    images = np.array([disc(HALF, HALF, r, 2 * HALF + 1) for r in np.linspace(*RADII, 9)])
    step = 2 * HALF_SPAN_UM / 8
    spline = PsfModel.from_images(images, -HALF_SPAN_UM, step, pixel_size_um=PIXEL_UM, polarity="dark")
    plain = replace(spline, quantity=Quantity.over("radius_px", *RADII)).for_fit(brightness_sd=0.5)
    shot = (OFFSET + LIGHT) / LIGHT
    return replace(plain, read=1 - shot, shot=shot, dark_grey=dark_grey)


def seen(x: float, y: float, radius: float, slope: float, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """A camera's image of a disc, in light that rises by `slope` over its width."""
    lamp = 1 + slope * (np.arange(SIDE) - (SIDE - 1) / 2) / SIDE
    light = LIGHT * lamp[None, :] * (1 - disc(x, y, radius, SIDE))
    return (OFFSET + rng.poisson(light)).astype(np.uint16)


def pulls(folder: Path, dark_grey: float | None, slope: float, count: int = 24) -> npt.NDArray[np.float64]:
    """Errors over stated errors (N, 2) along x, where the light rises, and along y."""
    path = folder / f"discs_{dark_grey}_{slope}.h5"
    write_object_model(path, model(dark_grey), "discs")
    engine = open_engine(DetectorSettings(workers=1), model=path, pixel_size_um=PIXEL_UM)
    rng, off = np.random.default_rng(5), []
    try:
        for number in range(count):
            x, y, radius = *rng.uniform(22, 26, 2), rng.uniform(1.6, 2.9)
            image = seen(x, y, radius, slope, rng)
            engine.submit(
                Frame(FrameInfo("test", number, number, 0.0, 0, 0.0, pixel_size_um=PIXEL_UM), image)
            )
            found: list[Detections] = []
            while not found:
                found = engine.results(1.0)
            table = found[0]
            best = int(np.argmax(table.confidence))
            off.append(
                (
                    (table.x_um[best] - PIXEL_UM * x) / table.sigma_x_um[best],
                    (table.y_um[best] - PIXEL_UM * y) / table.sigma_y_um[best],
                )
            )
    finally:
        engine.close()
    return np.array(off)


def rms(off: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(off**2)))


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_discs_in_light_that_multiplies_them_are_where_the_fit_says(tmp_path: Path, slope: float) -> None:
    off = pulls(tmp_path, OFFSET, slope)
    assert 0.6 < rms(off) < 1.4
    assert abs(float(off[:, 0].mean())) < 1.0


def test_a_fit_that_adds_them_to_the_light_has_them_off_along_its_slope(tmp_path: Path) -> None:
    off = pulls(tmp_path, None, 1.0)
    assert abs(float(off[:, 0].mean())) > 2.0
    assert rms(off[:, 1]) < 1.5


def test_flat_light_makes_no_difference(tmp_path: Path) -> None:
    assert pulls(tmp_path, OFFSET, 0.0, 3) == pytest.approx(pulls(tmp_path, None, 0.0, 3), abs=0.05)


def test_light_is_more_uneven_than_a_background_with_an_offset() -> None:
    assert model(None).light_gain(5000.0) == 0.0
    assert model(0.0).light_gain(5000.0) == 1.0
    assert model(1000.0).light_gain(5000.0) == pytest.approx(1.25)
    assert 1.0 < model(1000.0).light_gain(10.0) < 10.0  # hardly any light: not more than can be known


def test_a_file_says_that_light_multiplies() -> None:
    for dark in (None, 0.0, 100.0):
        assert unpack(pack(model(dark)), "discs").dark_grey == dark


@pytest.mark.parametrize("dark_grey", [-1.0, np.nan, np.inf])
def test_a_dark_grey_value_that_is_none_is_refused(dark_grey: float) -> None:
    plain = model(0.0)
    with pytest.raises(ValueError, match=r"finite|dark"):
        FitModel.of(
            plain.coefficients, plain.z_first_um, plain.z_step_um, (plain.z_min_um, plain.z_max_um),
            pixel_size_um=PIXEL_UM, polarity="dark", dark_grey=dark_grey,
        )  # fmt: skip
