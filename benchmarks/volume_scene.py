"""The stand-in for the virus scenario of the Particle Tracking Challenge: spots in a stack, with their truth.

The challenge's own images may not be redistributed. This scene has its facts: 512 x 512 x 10 voxels, 100, 500 or
1000 particles anywhere in the stack, its ends included, Poisson noise over a background of 10, and a brightness
that follows from the signal-to-noise ratio (I - b) / sqrt(I), where I is the peak of a spot with its background.
A spot is a Gaussian of 1.3 voxels: with that size a Laplacian of Gaussian finds what was published for it.

    python benchmarks/volume_scene.py FOLDER --snr 2 --particles 500 --volumes 3

writes stacks (OME-TIFF) and their truth (CSV) for `liveptv detect` and `liveptv evaluate`.
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

SHAPE = (10, 512, 512)
SIGMA = (1.3, 1.3, 1.3)
"""Standard deviations of a spot along z, y and x, in voxels."""
BACKGROUND = 10.0
REACH = 5.0
"""Standard deviations to which a spot is drawn; what is left out is 4e-6 of its peak."""
SNRS = (1, 2, 4, 7)
DENSITIES = (100, 500, 1000)
VOXEL_UM = (0.25, 0.1, 0.1)
"""Size of a voxel along z, y and x in the files. The scene itself knows voxels only."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in a stack; `seed` fixes everything that is drawn.

    `spread` is the standard deviation of the logarithm of the brightness, `unevenness` the part by which the
    background rises and falls over the stack, `read` the standard deviation of the camera's read noise and
    `offset` its grey value without light.
    """

    snr: float
    particles: int
    seed: int
    shape: tuple[int, int, int] = SHAPE
    sigma: tuple[float, float, float] = SIGMA
    background: float = BACKGROUND
    spread: float = 0.0
    unevenness: float = 0.0
    read: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Volume:
    """A stack (Z, H, W), and what is in it: centres (N, 3) along z, y, x in voxels, peaks (N,) over background."""

    image: npt.NDArray[np.uint16]
    truth: npt.NDArray[np.float64]
    amplitude: npt.NDArray[np.float64]


def amplitude_at(snr: float, background: float = BACKGROUND) -> float:
    """Height of a spot's peak over its background, where (I - b) / sqrt(I) is `snr`."""
    return snr * (snr + math.sqrt(snr * snr + 4 * background)) / 2


def draw(scene: Scene) -> Volume:
    """A stack of the scene."""
    rng = np.random.default_rng((scene.seed, scene.particles, round(1000 * scene.snr)))
    size = np.array(scene.shape)
    truth = rng.uniform(-0.5, size - 0.5, (scene.particles, 3))
    peaks = amplitude_at(scene.snr, scene.background) * np.exp(
        scene.spread * rng.standard_normal(scene.particles)
    )
    mean = expected(truth, peaks, scene.shape, scene.sigma)
    mean += scene.background * _uneven(scene)
    image = rng.poisson(mean).astype(np.float64) + scene.offset
    if scene.read:
        image += scene.read * rng.standard_normal(scene.shape)
    return Volume(np.clip(np.rint(image), 0, 65535).astype(np.uint16), truth, peaks)


def expected(
    centres: npt.NDArray[np.float64],
    peaks: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    sigma: tuple[float, float, float],
) -> npt.NDArray[np.float64]:
    """The light of spots with `centres` (N, 3) and `peaks` (N,) in a stack of `shape`, without noise."""
    light = np.zeros(shape)
    for centre, peak in zip(centres, peaks, strict=True):
        part, profiles = [], []
        for middle, width, count in zip(centre, sigma, shape, strict=True):
            first = max(0, math.ceil(middle - REACH * width))
            last = min(count - 1, math.floor(middle + REACH * width))
            part.append(slice(first, max(first, last + 1)))
            profiles.append(np.exp(-0.5 * ((np.arange(first, last + 1) - middle) / width) ** 2))
        z, y, x = profiles
        light[tuple(part)] += peak * z[:, None, None] * y[:, None] * x
    return light


def _uneven(scene: Scene) -> npt.NDArray[np.float64]:
    """A slow wave along each axis, with a mean of about 1."""
    if not scene.unevenness:
        return np.ones(1)
    slices, height, width = scene.shape
    along_z = np.cos(np.pi * np.arange(slices) / slices)[:, None, None]
    along_y = np.sin(2 * np.pi * np.arange(height) / height)[:, None]
    along_x = np.cos(2 * np.pi * np.arange(width) / width)
    return np.asarray(1 + scene.unevenness * (along_y + along_x + along_z) / 3)


def write(folder: Path, name: str, volume: Volume) -> None:
    """Write the stack as OME-TIFF and the truth as CSV (um; height over the first slice) beside it."""
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    step, height, width = VOXEL_UM
    tifffile.imwrite(
        folder / f"{name}.ome.tif",
        volume.image,
        ome=True,
        photometric="minisblack",
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": width,
            "PhysicalSizeY": height,
            "PhysicalSizeZ": step,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeZUnit": "µm",
        },
    )
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["frame", "x_um", "y_um", "z_um", "amplitude"])
        for (z, y, x), peak in zip(volume.truth, volume.amplitude, strict=True):
            table.writerow([0, f"{x * width:.5f}", f"{y * height:.5f}", f"{z * step:.5f}", f"{peak:.3f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--snr", type=float, default=4.0)
    parser.add_argument("--particles", type=int, default=500)
    parser.add_argument("--volumes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first volume; the others follow")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("Z", "Y", "X"))
    parser.add_argument("--sigma", type=float, nargs=3, default=SIGMA, metavar=("Z", "Y", "X"))
    parser.add_argument("--background", type=float, default=BACKGROUND)
    parser.add_argument("--spread", type=float, default=0.0, help="of the logarithm of the brightness")
    parser.add_argument("--unevenness", type=float, default=0.0, help="of the background, as a part of it")
    parser.add_argument("--read", type=float, default=0.0, help="read noise, in grey values")
    parser.add_argument("--offset", type=float, default=0.0, help="grey value without light")
    given = parser.parse_args()
    for number in range(given.volumes):
        scene = Scene(
            given.snr,
            given.particles,
            given.seed + number,
            tuple(given.shape),
            tuple(given.sigma),
            given.background,
            given.spread,
            given.unevenness,
            given.read,
            given.offset,
        )
        write(given.folder, f"snr{given.snr:g}_n{given.particles}_{scene.seed:04d}", draw(scene))


if __name__ == "__main__":
    main()
