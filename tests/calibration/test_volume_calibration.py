from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from bead_stacks import drawn, gaussian, lopsided, spread_out
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import CalibrationError
from calibration.volumes.beads.selecting import NEIGHBOUR, SATURATED
from calibration.volumes.file import read_volume_calibration, write_volume_calibration
from calibration.volumes.noise import Levels, noise_from
from calibration.volumes.pipeline import calibrate_volumes
from calibration.volumes.psf.shapes import Nodes, gather, spread
from calibration.volumes.reading import read_stacks
from calibration.volumes.result import VolumeCalibration
from engines.volumes.model import load_volume_model
from stream.errors import SourceError

VOXEL = (0.3, 0.1, 0.1)
SHAPE = (16, 96, 96)


def amplitudes(count: int, low: float = 150, high: float = 500) -> np.ndarray:
    return np.exp(np.random.default_rng(5).uniform(np.log(low), np.log(high), count))


@pytest.fixture(scope="module")
def round_beads() -> VolumeCalibration:
    places = spread_out(SHAPE, 24)
    stack = drawn(
        places, amplitudes(len(places)), SHAPE, gaussian((1.6, 1.2, 1.3)), gain=2.0, offset=100, read=2
    )
    return calibrate_volumes(stack[None], VOXEL)


def test_the_size_of_round_beads_is_found_within_two_percent(round_beads: VolumeCalibration) -> None:
    assert np.array(round_beads.psf.sigma_voxels) == pytest.approx((1.6, 1.2, 1.3), rel=0.02)


def test_round_beads_need_no_measured_psf(round_beads: VolumeCalibration) -> None:
    assert not round_beads.psf.is_measured
    assert round_beads.choice.beads >= 10


def test_the_noise_is_that_of_the_camera(round_beads: VolumeCalibration) -> None:
    noise = round_beads.noise.model
    assert noise.gain == pytest.approx(2.0, rel=0.15)
    assert noise.variance(140.0) == pytest.approx(2.0 * 40 + 4, rel=0.1)


def test_a_calibration_comes_back_as_it_was_written(round_beads: VolumeCalibration, tmp_path: Path) -> None:
    path = tmp_path / "beads.h5"
    write_volume_calibration(path, round_beads)
    back = read_volume_calibration(path)
    assert back.psf.sigma_um == pytest.approx(round_beads.psf.sigma_um)
    assert back.noise.model == round_beads.noise.model
    assert back.beads.left_out() == round_beads.beads.left_out()
    assert back.shape == round_beads.shape
    model = load_volume_model(path)
    assert model.psf.sigma_um == pytest.approx(round_beads.psf.sigma_um)
    assert model.noise == round_beads.noise.model
    assert model.psf.voxel_um == pytest.approx(VOXEL)


def test_another_file_is_no_calibration_for_volumes(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"not HDF5")
    with pytest.raises(SourceError):
        read_volume_calibration(tmp_path / "x.h5")


@pytest.mark.slow
def test_a_lopsided_psf_is_measured_and_its_positions_are_right() -> None:
    shape = (18, 80, 80)
    places = spread_out(shape, 20, seed=3)
    stack = drawn(places, amplitudes(len(places), 300, 800), shape, lopsided, seed=4)
    found = calibrate_volumes(stack[None], VOXEL)
    assert found.psf.is_measured
    z = np.linspace(-4, 4, 33)
    centre = _shift(found, z)
    true = lopsided(z, np.zeros_like(z), np.zeros_like(z)) / lopsided(z, z * 0, z * 0).max()
    assert np.abs(found.psf.value((z - centre) * VOXEL[0], 0, 0) - true).max() < 0.06
    used = found.beads.used
    seen = np.column_stack([found.beads.z_um, found.beads.y_um, found.beads.x_um])[used] / VOXEL
    nearest = np.abs(seen[:, None] - places[None]).sum(axis=2).argmin(axis=1)
    error = seen - places[nearest]
    error -= error.mean(axis=0)
    stated = (
        np.column_stack([found.beads.sigma_z_um, found.beads.sigma_y_um, found.beads.sigma_x_um])[used]
        / VOXEL
    )
    assert np.sqrt(((error / stated) ** 2).mean()) < 1.3


def test_a_measured_psf_reaches_to_a_faint_ring_far_from_its_middle() -> None:
    def ringed(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        ring = np.exp(-0.5 * ((np.hypot(y, x) - 6.5) ** 2 + z**2 / 4))
        return np.exp(-0.5 * (z**2 + y**2 + x**2) / 1.69) + 0.04 * ring

    shape = (14, 120, 120)
    places = spread_out(shape, 30, seed=8)
    stack = drawn(places, amplitudes(len(places), 400, 900), shape, ringed, seed=9)
    found = calibrate_volumes(stack[None], (0.1, 0.1, 0.1))
    assert found.psf.is_measured
    angle = np.linspace(0, 2 * np.pi, 24)
    seen = found.psf.value(np.zeros(24), 0.65 * np.sin(angle), 0.65 * np.cos(angle))
    assert seen.mean() == pytest.approx(0.04, abs=0.008)


def _shift(found: VolumeCalibration, z: np.ndarray) -> float:
    """Where the true shape's origin lies in the measured one, voxels: both are only known up to a shift."""
    fine = np.linspace(-2, 2, 81)
    true = lopsided(z, z * 0, z * 0) / lopsided(z, z * 0, z * 0).max()
    return float(min(fine, key=lambda s: np.abs(found.psf.value((z - s) * VOXEL[0], 0, 0) - true).sum()))


def test_beads_with_neighbours_and_saturated_ones_are_left_out_and_counted() -> None:
    places = spread_out(SHAPE, 24, seed=6)
    pair = places[5] + (0.0, 4.0, 0.0)
    bright = amplitudes(len(places) + 1)
    bright[9] = 3000
    stack = drawn(np.vstack([places, pair]), bright, SHAPE, gaussian((1.3, 1.3, 1.3)))
    found = calibrate_volumes(np.minimum(stack, 1023)[None], VOXEL)
    left_out = found.beads.left_out()
    assert left_out[SATURATED] == 1
    assert left_out[NEIGHBOUR] >= 2
    assert np.array(found.psf.sigma_voxels) == pytest.approx((1.3, 1.3, 1.3), rel=0.03)


def test_the_size_of_the_beads_is_taken_off() -> None:
    places = spread_out(SHAPE, 24, seed=7)
    stack = drawn(places, amplitudes(len(places)), SHAPE, gaussian((1.5, 1.5, 1.5)))
    found = calibrate_volumes(stack[None], (0.1, 0.1, 0.1), bead_diameter_um=0.3)
    wanted = np.sqrt(0.15**2 - 0.3**2 / 20)
    assert np.array(found.psf.sigma_um) == pytest.approx(np.full(3, wanted), rel=0.03)
    with pytest.raises(CalibrationError, match="cannot look as small"):
        calibrate_volumes(stack[None], (0.1, 0.1, 0.1), bead_diameter_um=0.8)


def test_a_stack_without_beads_is_refused() -> None:
    empty = np.random.default_rng(0).poisson(20, (8, 64, 64)).astype(np.uint16)
    with pytest.raises(CalibrationError, match="no beads were found"):
        calibrate_volumes(empty[None], VOXEL)


def test_two_beads_are_too_few_and_the_reasons_are_told() -> None:
    places = np.array([[8.0, 30.3, 30.6], [7.6, 70.2, 60.1]])
    stack = drawn(places, np.array([300.0, 300]), SHAPE, gaussian((1.3, 1.3, 1.3)))
    with pytest.raises(CalibrationError, match=r"only 2 of \d+ beads"):
        calibrate_volumes(stack[None], VOXEL)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 8), st.floats(0, 300), st.floats(0, 6), st.booleans(), st.integers(0, 1000))
def test_noise_is_found_from_exact_levels(
    gain: float, offset: float, read: float, dark: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mean = offset + rng.uniform(20, 2000, 12)
    signal = (0.5 * (mean - offset)) ** 2
    variance = gain * (mean - offset) + read**2 + 0.03**2 * signal
    levels = Levels(mean, variance, signal, np.full(12, 1000.0), np.ones(12, bool))
    found = noise_from(levels, (offset, read) if dark else None)
    assert found.model.variance(mean) == pytest.approx(gain * (mean - offset) + read**2, rel=0.02, abs=0.1)
    assert found.misfit == pytest.approx(0.03, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 1.5))
def test_gathering_is_the_adjoint_of_spreading(seed: int, spacing: float) -> None:
    rng = np.random.default_rng(seed)
    nodes = Nodes((spacing, 0.8, 1.1), (4, 3, 3))
    half = (2, 2, 2)
    offset = rng.uniform(-0.5, 0.5, (3, 3))
    bases = [nodes.basis(offset, half, axis) for axis in range(3)]
    coefficients, images = rng.normal(size=nodes.shape), rng.normal(size=(3, 5, 5, 5))
    assert (spread(coefficients, bases) * images).sum() == pytest.approx(
        (coefficients * gather(images, bases)).sum()
    )


def write_stack(path: Path, stack: np.ndarray, step_um: float | None, pixel_um: float | None) -> None:
    sizes = {"PhysicalSizeX": pixel_um, "PhysicalSizeY": pixel_um, "PhysicalSizeZ": step_um}
    tifffile.imwrite(
        path,
        stack,
        ome=True,
        photometric="minisblack",
        metadata={"axes": "ZYX", **{name: size for name, size in sizes.items() if size is not None}},
    )


@pytest.mark.parametrize(
    ("step_um", "pixel_um", "wanted"),
    [
        (0.3, None, "--pixel-size"),
        (None, 0.1, "--z-step"),
        (300.0, 0.1, "--z-step"),
        (0.3, 80.0, "--pixel-size"),
    ],
)
def test_a_voxel_size_that_is_missing_or_implausible_is_asked_for(
    tmp_path: Path, step_um: float | None, pixel_um: float | None, wanted: str
) -> None:
    path = tmp_path / "stack.ome.tif"
    write_stack(path, np.zeros((6, 32, 32), np.uint16), step_um, pixel_um)
    with pytest.raises((CalibrationError, SourceError), match=wanted):
        read_stacks([path])
    read = read_stacks([path], pixel_size_um=0.1, z_step_um=0.3)
    assert read.voxel_um == pytest.approx((0.3, 0.1, 0.1))
    assert read.volumes.shape == (1, 6, 32, 32)


@pytest.mark.slow
def test_the_command_calibrates_describes_and_reports(tmp_path: Path) -> None:
    places = spread_out(SHAPE, 24)
    stack = drawn(places, amplitudes(len(places)), SHAPE, gaussian((1.4, 1.3, 1.3)))
    write_stack(tmp_path / "beads.ome.tif", stack, 0.3, 0.1)
    said = command("calibrate", "beads.ome.tif", "--volume", "-o", "beads.h5", cwd=tmp_path)
    assert "beads used" in said
    facts = json.loads(command("info", "--json", "beads.h5", cwd=tmp_path))
    assert facts["kind"] == "volume calibration"
    assert facts["psf_sigma_um"]["z"] == pytest.approx(1.4 * 0.3, rel=0.03)
    command("report", "beads.h5", cwd=tmp_path)
    page = (tmp_path / "beads.report.html").read_text(encoding="utf-8")
    assert "beads.ome.tif" in page
    assert page.count("<figure>") == 4


def command(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "liveptv", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
