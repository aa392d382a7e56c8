"""The joint fit in volumes against the Cramer-Rao bound: lone particles, the ends of the stack, pairs, its cost.

Particles are drawn far apart (or in pairs), and the fit starts from their places with an error, as a detector gives
them. Errors are over the bound of each particle, root mean square over particles and axes.

    python benchmarks/volume_fit.py [--quick] [--out benchmarks/results/volume_fit.json]
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reporting import save
from benchmarks.volume_scene import Scene, amplitude_at, draw
from engines.volumes.fit.bound import bound, least_errors
from engines.volumes.fit.spots import Fitted, fit_spots
from engines.volumes.proposal import Proposals
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]
START = 0.3
"""Error of the starts along each axis, in standard deviations of the PSF: about that of the nearest voxel."""
STRENGTH = 16.0
"""Log-likelihood ratio from which a particle counts as found, near what the engine asks at SNR 1."""
APART_SIGMAS = 10.0
"""Distance between particles, or pairs, that are to be alone."""


class Case:
    """An optics, a background and a noise; amplitudes follow from the signal-to-noise ratio at the peak."""

    def __init__(
        self,
        name: str,
        psf: VolumePsf,
        background: float = 10.0,
        gain: float = 1.0,
        read: float = 0.0,
        slope: float = 0.0,
    ) -> None:
        self.name, self.psf, self.background, self.slope = name, psf, background, slope
        self.noise = Noise(gain, 100.0 if read else 0.0, read**2)

    def amplitude(self, snr: float) -> float:
        """Grey values of the peak, so that it is `snr` standard deviations of its own noise over the background."""
        gain, read2 = self.noise.gain, self.noise.read_variance
        b = snr * snr * gain
        return (b + math.sqrt(b * b + 4 * snr * snr * (gain * self.background + read2))) / 2

    def image(self, places: FloatArray, amplitude: float, shape: tuple[int, int, int], seed: int) -> Any:
        """A stack of grey values."""
        rng = np.random.default_rng(seed)
        light = np.full(shape, float(self.background))
        reach = 1.7 * np.array(self.psf.reach_um) / self.psf.voxel_um
        for place in places:
            low = np.maximum(np.ceil(place - reach), 0).astype(int)
            high = np.minimum(np.floor(place + reach) + 1, shape).astype(int)
            part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            off = np.meshgrid(
                *(
                    (np.arange(a, b) - p) * v
                    for a, b, p, v in zip(low, high, place, self.psf.voxel_um, strict=True)
                ),
                indexing="ij",
            )
            light[part] += amplitude * self.psf.value(*off)
        light *= 1 + self.slope * np.sin(2 * np.pi * np.arange(shape[2]) / shape[2])
        counts = rng.poisson(light / self.noise.gain) * self.noise.gain
        counts = counts + self.noise.offset + math.sqrt(self.noise.read_variance) * rng.standard_normal(shape)
        return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def measured_psf(voxel_um: tuple[float, float, float]) -> VolumePsf:
    """A PSF that is no Gaussian: lopsided along z, with a ring, as lenses with spherical aberration have."""
    step = (voxel_um[0] / 2, voxel_um[1], voxel_um[2])
    z, y, x = np.meshgrid(
        *(np.arange(-n, n + 1) * s for n, s in zip((16, 8, 8), step, strict=True)), indexing="ij"
    )
    wide = 1.3 * voxel_um[1] * (1 + 0.5 * np.maximum(z / (3 * voxel_um[0]), 0) ** 2)
    rho2 = x * x + y * y
    ring = 0.06 * np.exp(-0.5 * ((np.sqrt(rho2) - 3.5 * voxel_um[1]) / voxel_um[1]) ** 2)
    value = (np.exp(-0.5 * rho2 / wide**2) + ring) * np.exp(-0.5 * (z / (1.2 * voxel_um[0])) ** 2)
    return VolumePsf.measured(value, step, voxel_um)


CASES = [
    Case("sigma 1.3", VolumePsf.gaussian(1.3, 1.3, 1.3, (1, 1, 1))),
    Case("sigma 0.8", VolumePsf.gaussian(0.8, 0.8, 0.8, (1, 1, 1))),
    Case("sigma 2, z 3", VolumePsf.gaussian(2, 2, 3, (1, 1, 1))),
    Case("background 2", VolumePsf.gaussian(1.3, 1.3, 1.3, (1, 1, 1)), background=2),
    Case("background 1000", VolumePsf.gaussian(1.3, 1.3, 1.3, (1, 1, 1)), background=1000),
    Case("gain 0.5, read 2", VolumePsf.gaussian(1.3, 1.3, 1.3, (1, 1, 1)), background=50, gain=0.5, read=2),
    Case("1:1:3, measured, uneven", measured_psf((0.3, 0.1, 0.1)), background=50, slope=0.3),
]


def lattice(case: Case, shape: tuple[int, int, int], z: tuple[float, float], seed: int) -> FloatArray:
    """Places (N, 3) far from one another and from the sides, z anywhere between two heights in slices."""
    rng = np.random.default_rng(seed)
    step = APART_SIGMAS * max(case.psf.sigma_voxels[1:])
    ys, xs = (np.arange(step, size - step, step) for size in shape[1:])
    y, x = (axis.ravel() for axis in np.meshgrid(ys, xs, indexing="ij"))
    sub = rng.uniform(-0.5, 0.5, (2, y.size))
    return np.stack([rng.uniform(*z, y.size), y + sub[0], x + sub[1]], axis=1)


def fitted(
    case: Case, image: Any, starts: FloatArray, amplitude: float, density: float | None = None
) -> Fitted:
    nothing = np.full(len(starts), np.nan)
    proposals = Proposals(
        starts[:, 2], starts[:, 1], starts[:, 0], np.full(len(starts), amplitude), nothing, nothing
    )
    background = Background.flat(case.background + case.noise.offset, len(image))
    if case.slope:  # a coarse grid, as the engine measures it
        cell = 32
        middle = (np.arange(image.shape[2] // cell) + 0.5) * cell - 0.5
        level = (
            case.background * (1 + case.slope * np.sin(2 * np.pi * middle / image.shape[2]))
            + case.noise.offset
        )
        grid = np.broadcast_to(level, (len(image), image.shape[1] // cell, level.size))
        background = Background(np.asarray(grid, np.float32), cell)
    return fit_spots(
        image, np.zeros(len(image), bool), proposals, case.psf, case.noise, background, density=density
    )


def over_bound(case: Case, snr: float, z: tuple[float, float], volumes: int) -> dict[str, Any]:
    """Errors of lone particles between two heights over the bound, and over what is stated."""
    shape, amplitude = (10, 256, 256), case.amplitude(snr)
    errors, least, stated, lost, total = [], [], [], 0, 0
    for seed in range(volumes):
        places = lattice(case, shape, z, seed)
        image = case.image(places, amplitude, shape, 1000 + seed)
        rng = np.random.default_rng(2000 + seed)
        starts = places + START * rng.standard_normal(places.shape) * case.psf.sigma_voxels
        found = fitted(case, image, starts, amplitude)
        found = found.take((found.source >= 0) & (found.log_likelihood_ratio > STRENGTH))
        total, lost = total + len(places), lost + len(places) - len(found)
        errors.append(np.stack([found.z, found.y, found.x], axis=1) - places[found.source])
        stated.append(np.stack([found.sigma_z, found.sigma_y, found.sigma_x], axis=1))
        middle = case.background + case.noise.offset
        heights, of = np.linspace(*z, 9), places[found.source, 0]
        known = [
            least_errors(
                bound(np.array([[h, 50.2, 50.4]]), np.array([amplitude]), middle, case.psf, case.noise, 10)
            )[0, :3]
            for h in heights
        ]
        least.append(np.stack([np.interp(of, heights, [k[a] for k in known]) for a in range(3)], axis=1))
    e, b, s = (np.concatenate(part) for part in (errors, least, stated))
    near = (np.abs(e) < 3 * np.array(case.psf.sigma_voxels)).all(axis=1)
    e, b, s = e[near], b[near], s[near]
    return {
        "case": case.name,
        "snr": snr,
        "z": z,
        "particles": len(e),
        "lost": round((total - len(e)) / total, 4),
        "rms_over_bound": _three(np.sqrt(((e / b) ** 2).mean(axis=0))),
        "true_over_stated": _three(np.sqrt(((e / s) ** 2).mean(axis=0))),
        "rms_over_bound_all_axes": round(float(np.sqrt(((e / b) ** 2).mean())), 3),
    }


def pairs(snr: float, apart: float, volumes: int, starts_each: int) -> dict[str, Any]:
    """Pairs of equal particles `apart` (standard deviations), started from both or from their middle."""
    case, shape = CASES[0], (10, 256, 256)
    amplitude, sigma = case.amplitude(snr), 1.3
    ratio, pull, found_both, count = [], [], 0, 0
    for seed in range(volumes):
        rng = np.random.default_rng(seed)
        middle = lattice(case, shape, (3.5, 5.5), seed)
        direction = rng.standard_normal(middle.shape)
        direction *= 0.5 * apart * sigma / np.linalg.norm(direction, axis=1)[:, None]
        places = np.concatenate([middle - direction, middle + direction])
        image = case.image(places, amplitude, shape, 3000 + seed)
        starts = places if starts_each == 2 else middle
        starts = starts + START * sigma * rng.standard_normal(starts.shape)
        found = fitted(case, image, starts, amplitude * (2 if starts_each == 1 else 1), 5e-4)
        where = np.stack([found.z, found.y, found.x], axis=1)
        stated = np.stack([found.sigma_z, found.sigma_y, found.sigma_x], axis=1)
        for k in range(len(middle)):
            near = np.flatnonzero(np.linalg.norm(where - middle[k], axis=1) < 4 * sigma)
            count += 1
            if near.size != 2:
                continue
            found_both += 1
            two = places[[k, k + len(middle)]]
            if (
                np.linalg.norm(where[near] - two, axis=1).sum()
                > np.linalg.norm(where[near][::-1] - two, axis=1).sum()
            ):
                near = near[::-1]
            least = least_errors(bound(two, np.full(2, amplitude), 10.0, case.psf, case.noise, 10))[:, :3]
            ratio.append(((where[near] - two) / least).ravel())
            pull.append(((where[near] - two) / stated[near]).ravel())
    r, p = (np.concatenate(part) if part else np.full(1, np.nan) for part in (ratio, pull))
    return {
        "snr": snr,
        "apart_sigmas": apart,
        "starts": starts_each,
        "seen_as_two": round(found_both / count, 3),
        "rms_over_bound": round(float(np.sqrt((r**2).mean())), 3),
        "true_over_stated": round(float(np.sqrt((p**2).mean())), 3),
    }


def cost(particles: int, snr: float) -> dict[str, Any]:
    """CPU milliseconds of the stand-in scene, from starts near the places."""
    volume = draw(Scene(snr, particles, 5))
    rng = np.random.default_rng(5)
    starts = volume.truth + START * 1.3 * rng.standard_normal(volume.truth.shape)
    times = []
    for _ in range(5):
        start = time.process_time()
        fitted(CASES[0], volume.image, starts, amplitude_at(snr))
        times.append(time.process_time() - start)
    return {"particles": particles, "snr": snr, "cpu_ms": round(1e3 * float(np.median(times)), 1)}


def _three(values: FloatArray) -> list[float]:
    return [round(float(v), 3) for v in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the volumes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/volume_fit.json"))
    arguments = parser.parse_args()
    volumes = 1 if arguments.quick else 5
    rows: dict[str, list[Any]] = {"lone": [], "pairs": [], "cost": []}

    def note(part: str, row: dict[str, Any]) -> None:
        rows[part].append(row)
        print(part, row, flush=True)
        save(arguments.out, rows)

    for snr in (1, 2, 4, 7):
        for z in ((3.0, 6.0), (-0.5, 1.0)):
            note("lone", over_bound(CASES[0], snr, z, 2 * volumes))
    for case in CASES[1:]:
        for snr in (2, 4):
            note("lone", over_bound(case, snr, (3.0, 6.0), volumes))
    for apart in (1.0, 1.5, 2.0, 3.0):
        for starts_each in (1, 2):
            note("pairs", pairs(4, apart, volumes, starts_each))
    for particles in (100, 500, 1000):
        note("cost", cost(particles, 4))


if __name__ == "__main__":
    main()
