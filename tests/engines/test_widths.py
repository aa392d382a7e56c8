from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from astigmatic import curve, widths_px
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.classical.widths import WIDTH_SCATTER, WidthCurve, depth_from_widths
from engines.file_hash import file_hash
from stream.errors import ConfigurationError

TABLE = curve().table(0.8)


@settings(max_examples=60, deadline=None)
@given(st.floats(-170, 170))
def test_the_widths_of_a_depth_give_the_depth_back(z_um: float) -> None:
    sx, sy = widths_px(z_um)
    z, sigma, distance, inside = depth_from_widths(np.log(sx), np.log(sy), 1e-4, 0.0, 1e-4, TABLE)
    assert inside
    assert abs(z - z_um) < 0.3
    assert 0 < sigma < 5
    assert distance < 0.1


def test_the_stated_error_of_depth_is_the_one_that_is_made() -> None:
    rng = np.random.default_rng(0)
    z_um = rng.uniform(-150, 150, 2000)
    spread = 0.04
    total = np.hypot(spread, WIDTH_SCATTER)
    sx, sy = widths_px(z_um)
    scaled = []
    for z, a, b in zip(z_um, np.log(sx), np.log(sy), strict=True):
        found, sigma, _, inside = depth_from_widths(
            a + rng.normal(0, total), b + rng.normal(0, total), spread**2, 0.0, spread**2, TABLE
        )
        if inside:
            scaled.append((found - z) / sigma)
    assert len(scaled) > 1950
    assert np.sqrt(np.mean(np.square(scaled))) == pytest.approx(1, abs=0.2)


def test_a_pair_of_widths_far_from_the_curve_is_far_in_sigmas() -> None:
    _, _, distance, _ = depth_from_widths(np.log(1.3), np.log(1.3), 0.03**2, 0.0, 0.03**2, TABLE)
    assert distance > 100


def test_beyond_the_end_of_the_curve_is_outside() -> None:
    sx, sy = widths_px(230.0)
    assert not depth_from_widths(np.log(sx), np.log(sy), 1e-4, 0.0, 1e-4, TABLE)[3]


def test_a_curve_serves_images_of_another_pixel_size() -> None:
    np.testing.assert_allclose(curve().table(0.4)[1:], TABLE[1:] + np.log(2))


def test_a_curve_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "curve.h5"
    first = WidthCurve(
        *(getattr(curve(), n) for n in ("z_um", "sigma_x_um", "sigma_y_um", "amplitude")),
        0.8,
        "bright",
        {"made_from": "a test", "beads": 7.0},
    )
    first.save(path)
    second = WidthCurve.load(path)
    for name in ("z_um", "sigma_x_um", "sigma_y_um", "amplitude"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (second.pixel_size_um, second.polarity) == (0.8, "bright")
    assert second.provenance == first.provenance
    assert len(file_hash(path)) == 64
    with h5py.File(path) as file:
        assert file["z_um"].attrs["unit"] == "um"


def test_an_existing_curve_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "curve.h5"
    curve().save(path)
    with pytest.raises(ConfigurationError, match="exists"):
        curve().save(path)
    curve().save(path, overwrite=True)
    with pytest.raises(ConfigurationError, match="cannot write"):
        curve().save(tmp_path / "nowhere" / "curve.h5")


def _other_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = 1


def _newer_file(path: Path) -> None:
    curve().save(path)
    with h5py.File(path, "a") as file:
        file.attrs["schema"] = 99


def _torn_file(path: Path) -> None:
    curve().save(path)
    path.write_bytes(path.read_bytes()[:700])


def _incomplete_file(path: Path) -> None:
    curve().save(path)
    with h5py.File(path, "a") as file:
        del file["sigma_y_um"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no width curve at"),
        (_other_file, "is not a width curve"),
        (_newer_file, "newer than this program"),
        (_torn_file, "cannot read"),
        (_incomplete_file, "cannot read"),
        (lambda path: path.write_bytes(b"nothing"), "cannot read"),
    ],
)
def test_a_file_that_is_no_curve_is_one_clear_line(tmp_path: Path, make, says: str) -> None:
    path = tmp_path / "curve.h5"
    make(path)
    with pytest.raises(ConfigurationError, match=says):
        WidthCurve.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"z_um": np.arange(10.0)[::-1]},
        {"sigma_x_um": np.zeros(10)},
        {"sigma_y_um": np.ones(9)},
        {"amplitude": np.full(10, np.nan)},
        {"pixel_size_um": 0.0},
        {"polarity": "grey"},
    ],
)
def test_a_curve_that_cannot_be_right_is_refused(change: dict) -> None:
    good = {name: np.ones(10) for name in ("sigma_x_um", "sigma_y_um", "amplitude")}
    good |= {"z_um": np.arange(10.0), "pixel_size_um": 0.8, "polarity": "dark"}
    WidthCurve(**good)
    with pytest.raises(ConfigurationError):
        WidthCurve(**(good | change))
