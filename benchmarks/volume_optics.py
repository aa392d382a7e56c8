"""Calibration and detection with real optics: aberrated light sheet and confocal stacks, through the command line.

    python benchmarks/volume_optics.py                      all rows, writes results/volume_optics.json
    python benchmarks/volume_optics.py --optics 0 --peaks 400 --particles 80

The PSF is a scalar pupil integral: |FFT(pupil exp(i aberration + i kz z))|^2, times a Gaussian sheet of light, or
times the same for the illumination (confocal). Aberrations are a mix of spherical aberration, coma and astigmatism
(Zernike polynomials) of a given root mean square, which give it the rings of its halo. It is integrated over the
voxels. Poisson noise, 2.2 grey values per photo-electron, read noise, an offset, and a background that varies by 35
%. One stack of 45 beads is calibrated, then `detect` and `evaluate` run on one volume a row. *Over the bound* is
the root mean square error over the Cramer-Rao bound of the true PSF, place, brightness and background unknown, for
particles that are not at an end; a constant between the origins of the two PSFs is taken off.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from reporting import save
from scipy import ndimage
from volume_scoring import pairs

from liveptv.tables import read_detection_table

FloatArray = npt.NDArray[np.float64]
RESULTS = Path(__file__).parent / "results" / "volume_optics.json"
VOXEL_UM = (0.3, 0.1, 0.1)
FINE = (3, 4, 4)
"""Samples of the PSF per voxel."""
HALF = (8, 18, 18)
"""Voxels to which the PSF is drawn."""
GAIN, OFFSET, READ = 2.2, 100.0, 1.5
"""Grey values per photo-electron, grey values, photo-electrons."""
BACKGROUND, UNEVENNESS = 15.0, 0.35
SIZE = 256
PEAKS, PARTICLES = (12, 40, 120, 400), (80, 400)
BEADS = 45
GATE_VOXELS = 5


@dataclass(frozen=True, slots=True)
class Optics:
    """A microscope: numerical aperture in water, aberrations (rad rms), slices, sheet's standard deviation in um
    (None: confocal), wavelength in um."""

    name: str
    aperture: float
    aberration_rad: float
    slices: int
    sheet_um: float | None
    wavelength_um: float = 0.52
    index: float = 1.33


OPTICS = (
    Optics("light sheet", 1.1, 0.7, 15, 0.7),
    Optics("confocal", 0.9, 0.6, 30, None),
)


def psf_of(optics: Optics) -> FloatArray:
    """The light of a point integrated over a voxel, (Z, Y, X) in samples of 1 / `FINE` voxels, peak 1."""
    step = [v / f for v, f in zip(VOXEL_UM, FINE, strict=True)]
    count = 256
    f = np.fft.fftfreq(count, step[1])
    fy, fx = np.meshgrid(f, f, indexing="ij")
    rho = np.hypot(fy, fx) * optics.wavelength_um / optics.aperture
    angle = np.arctan2(fy, fx)
    inside = rho <= 1
    zernike = [
        np.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1),
        np.sqrt(8) * (3 * rho**3 - 2 * rho) * np.cos(angle + 0.6),
        np.sqrt(6) * rho**2 * np.cos(2 * angle + 0.9),
    ]
    parts = np.array([0.7, 0.5, 0.5])
    phase = optics.aberration_rad * sum(
        p * z for p, z in zip(parts / np.linalg.norm(parts), zernike, strict=True)
    )
    along = np.sqrt(np.maximum((optics.index / optics.wavelength_um) ** 2 - fy**2 - fx**2, 0))
    heights = np.arange(-HALF[0] * FINE[0] - 2, HALF[0] * FINE[0] + 3) * step[0]
    field = np.where(inside, np.exp(1j * phase), 0)
    light = np.stack([np.abs(np.fft.ifft2(field * np.exp(2j * np.pi * along * z))) ** 2 for z in heights])
    light = np.fft.fftshift(light, axes=(1, 2))
    if optics.sheet_um is None:
        light = light**2
    else:
        light *= np.exp(-0.5 * (heights / optics.sheet_um) ** 2)[:, None, None]
    for axis, size in enumerate(FINE):
        kernel = np.ones(size) if size % 2 else np.concatenate([[0.5], np.ones(size - 1), [0.5]])
        light = ndimage.convolve1d(light, kernel, axis=axis, mode="constant")
    middle, reach = count // 2, HALF[1] * FINE[1] + 2
    light = light[:, middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    return np.asarray(light / light.max())


class Point:
    """The image of a point between the voxels, and the bound of its place."""

    def __init__(self, samples: FloatArray) -> None:
        self._filtered = ndimage.spline_filter(samples, order=3)
        self._centre = np.array([(n - 1) / 2 for n in samples.shape])

    def image(self, place: FloatArray, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], FloatArray]:
        """The box of voxels, and the light there of a point of peak 1 at `place` (z, y, x)."""
        box, nodes = [], []
        for axis, (centre, size) in enumerate(zip(place, shape, strict=True)):
            first, last = max(0, round(centre) - HALF[axis]), min(size - 1, round(centre) + HALF[axis])
            box.append(slice(first, max(first, last + 1)))
            nodes.append((np.arange(first, last + 1) - centre) * FINE[axis] + self._centre[axis])
        grid = np.meshgrid(*nodes, indexing="ij")
        return tuple(box), ndimage.map_coordinates(self._filtered, grid, order=3, prefilter=False)

    def bound(self, place: FloatArray, peak: float, ground: FloatArray) -> FloatArray:
        """Least standard errors (3,) of z, y, x in voxels on a background `ground` (Z, Y, X), photo-electrons."""
        box, light = self.image(place, ground.shape)
        slopes = []
        for axis in range(3):
            shift = np.zeros(3)
            shift[axis] = 0.05
            plus, minus = (self._in(box, place + s) for s in (shift, -shift))
            slopes.append(peak * (plus - minus).ravel() / 0.1)
        rows = np.stack([*slopes, light.ravel(), np.ones(light.size)])
        variance = ground[box].ravel() + peak * light.ravel() + READ**2
        return np.sqrt(np.diag(np.linalg.inv((rows / variance) @ rows.T))[:3])

    def _in(self, box: tuple[slice, ...], place: FloatArray) -> FloatArray:
        nodes = [
            (np.arange(b.start, b.stop) - c) * f + m
            for b, c, f, m in zip(box, place, FINE, self._centre, strict=True)
        ]
        grid = np.meshgrid(*nodes, indexing="ij")
        return ndimage.map_coordinates(self._filtered, grid, order=3, prefilter=False)


def background(slices: int) -> FloatArray:
    """Photo-electrons (Z, Y, X)."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    wave = 1 + UNEVENNESS * np.sin(2 * np.pi * (0.8 * x + 0.1)) * np.cos(np.pi * (y - 0.2))
    return np.broadcast_to(BACKGROUND * wave, (slices, SIZE, SIZE)).copy()


def places(count: int, lone: bool, slices: int, margin: float, rng: np.random.Generator) -> FloatArray:
    """Places (N, 3), voxels; `lone` ones are 18 voxels and 6 slices apart at least, as an ellipsoid."""
    low, high = np.array([margin, 6.0, 6.0]), np.array([slices - 1 - margin, SIZE - 7.0, SIZE - 7.0])
    if not lone:
        return rng.uniform(low, high, (count, 3))
    kept: list[FloatArray] = []
    while len(kept) < count:
        one = rng.uniform(low, high)
        if all((((one - k) / (6, 18, 18)) ** 2).sum() > 1 for k in kept):
            kept.append(one)
    return np.array(kept)


def stack(point: Point, where: FloatArray, peaks: FloatArray, slices: int, rng: np.random.Generator) -> Any:
    """The image of points, uint16."""
    light = background(slices)
    for place, peak in zip(where, peaks, strict=True):
        box, image = point.image(place, light.shape)
        light[box] += peak * np.maximum(image, 0)
    seen = GAIN * (rng.poisson(light) + READ * rng.standard_normal(light.shape)) + OFFSET
    return np.clip(np.rint(seen), 0, 65535).astype(np.uint16)


def liveptv(folder: Path, *arguments: object) -> str:
    """Run a command in a folder; what it prints."""
    command = [sys.executable, "-m", "liveptv", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"liveptv {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def write(folder: Path, name: str, image: Any, where: FloatArray, peaks: FloatArray) -> None:
    """The stack and its truth."""
    import tifffile

    sizes = dict(zip(("PhysicalSizeZ", "PhysicalSizeY", "PhysicalSizeX"), VOXEL_UM, strict=True))
    metadata = {"axes": "ZYX", **sizes}
    tifffile.imwrite(folder / f"{name}.ome.tif", image, ome=True, photometric="minisblack", metadata=metadata)
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["frame", "x_um", "y_um", "z_um", "brightness"])
        for (z, y, x), peak in zip(where * VOXEL_UM, peaks, strict=True):
            table.writerow([0, f"{x:.6f}", f"{y:.6f}", f"{z:.6f}", f"{peak * GAIN:.3f}"])


def row(folder: Path, optics: Optics, point: Point, peak: float, particles: int, seed: int) -> dict[str, Any]:
    """One volume: detected, scored by the command, and its errors over the bound."""
    rng = np.random.default_rng((seed, particles, round(peak)))
    lone = particles == min(PARTICLES)
    where = places(particles, lone, optics.slices, 2.0 if lone else 0.0, rng)
    peaks = np.full(particles, float(peak))
    write(folder, "scene", stack(point, where, peaks, optics.slices, rng), where, peaks)
    liveptv(folder, "detect", "scene.ome.tif", "-m", "beads.h5", "-o", "found.csv", "--overwrite")
    voxel = ",".join(str(v) for v in VOXEL_UM)
    gate = ("--gate-voxels", GATE_VOXELS, "--voxel-size", voxel, "--json")
    score = json.loads(liveptv(folder, "evaluate", "--truth", "scene.csv", "--found", "found.csv", *gate))
    found = read_detection_table(folder / "found.csv").columns()
    points, sigma = (
        np.stack([found[f"{prefix}{axis}_um"] for axis in "zyx"], axis=1) / VOXEL_UM
        for prefix in ("", "sigma_")
    )
    rows, columns, _ = pairs(where, points, GATE_VOXELS)
    inner = (where[rows, 0] > 2) & (where[rows, 0] < optics.slices - 3)
    rows, columns = rows[inner], columns[inner]
    error = points[columns] - where[rows]
    error -= np.median(error, axis=0)
    ground = background(optics.slices)
    least = np.array([point.bound(where[k], peak, ground) for k in rows])
    return {
        "optics": optics.name, "aperture": optics.aperture, "aberration_rad": optics.aberration_rad,
        "peak": peak, "particles": particles, "lone": lone, "found": len(points),
        "f1": round(float(score["all"]["f1"]), 4),
        "over_the_bound": round(float(np.sqrt(((error / least) ** 2).mean())), 3),
        "over_the_bound_median": round(float(np.sqrt(np.median((error / least) ** 2) / 0.455)), 3),
        "true_over_stated": round(float(np.sqrt(((error / sigma[columns]) ** 2).mean())), 3),
        "true_over_stated_median": round(
            float(np.sqrt(np.median((error / sigma[columns]) ** 2) / 0.455)), 3
        ),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--optics", type=int, nargs="*", default=range(len(OPTICS)))
    parser.add_argument("--peaks", type=float, nargs="*", default=PEAKS)
    parser.add_argument("--particles", type=int, nargs="*", default=PARTICLES)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows = []
    for optics in (OPTICS[k] for k in given.optics):
        point, rng = Point(psf_of(optics)), np.random.default_rng(given.seed)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            where, peaks = places(BEADS, True, optics.slices, 3.0, rng), rng.uniform(300, 900, BEADS)
            write(folder, "beads", stack(point, where, peaks, optics.slices, rng), where, peaks)
            print(liveptv(folder, "calibrate", "beads.ome.tif", "--volume", "-o", "beads.h5"))
            facts = json.loads(liveptv(folder, "info", "beads.h5", "--json"))
            print({key: facts[key] for key in ("beads_used", "psf", "misfit", "psf_misfit")}, flush=True)
            for particles in given.particles:
                for peak in given.peaks:
                    rows.append(row(folder, optics, point, peak, particles, given.seed))
                    print(rows[-1], flush=True)
    if len(rows) == len(OPTICS) * len(PEAKS) * len(PARTICLES):
        save(RESULTS, rows)


if __name__ == "__main__":
    main()
