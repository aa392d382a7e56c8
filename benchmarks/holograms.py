"""Radius and refractive index of spheres from in-line holograms: the bound, single detections, and tracks.

The sample of DeepTrack 2 (Midtvedt et al. 2021, section IV.3): polystyrene spheres of 150 and 230 nm radius (index
1.58) in water, half of each; red laser, NA 1.2, pixels of 0.1 um, 10,000 photons a pixel, up to 6 spheres in 128 x
128 pixels at depths of 2.2 to 5.8 um. Images are drawn by the exact model (`acquisition.physics.hologram`) with
photon noise; the radius and the index of each sphere are both unknown.

`bound`: Cramer-Rao of one image. `images`: independent images, spheres found by search and fit
(`calibration.holograms.search`), and with --model by a network (`liveptv train --images`), alone and as the
start of the fit. `video`: the spheres diffuse, and are tracked by `liveptv.track`; its means over tracks. `misfit`:
images with what the fit does not know: another index of the medium, wavelength or aperture.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from reporting import save
from scipy.spatial.distance import pdist

import liveptv
from acquisition.physics.hologram import HologramOptics, hologram_model
from calibration.holograms.fit import INDEX, RADIUS, X, Y, Z, bound, fit_spheres
from calibration.holograms.search import SphereSearch
from calibration.matching import match
from liveptv.config import build_experiment
from liveptv.workflows.offline import detect_frames
from stream.messages import Frame, FrameInfo

FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]

OPTICS = HologramOptics()
REACH_UM, DEEPEST_UM = 6.4, 8.0
MODEL = hologram_model(OPTICS, REACH_UM, DEEPEST_UM)
SIDE, MOST, BORDER_PX = 128, 6, 5
DEPTH_UM, SEARCHED_UM = (2.2, 5.8), (2.0, 6.0)
RADII_UM, PARTICLE_INDEX = (0.15, 0.23), 1.58
PHOTONS = 10_000
NOISE = 1 / math.sqrt(PHOTONS)
GATE_PX, GATE_UM = 5.0, 0.5
GREY = 20_000.0
"""Grey value of the background in the 16-bit images that a network gets."""
KT_OVER_6_PI_ETA = 4.11e-21 / (6 * math.pi * 1e-3) * 1e18
"""um^3/s at 25 C in water of 1 mPa s; over the radius in um it is the diffusion coefficient, um^2/s."""
FRAMES, FRAME_RATE_HZ = 60, 100.0
LEAST_ROWS = 10
HISTOGRAM_NM = np.arange(120.0, 262.0, 5.0)
SIGMAS = (("x", X, 0.1), ("y", Y, 0.1), ("z", Z, 1.0))


def sample(rng: np.random.Generator, count: int) -> FloatArray:
    while True:
        spheres = np.column_stack(
            [
                rng.uniform(BORDER_PX, SIDE - BORDER_PX, (count, 2)),
                rng.uniform(*DEPTH_UM, count),
                rng.choice(RADII_UM, count),
                np.full(count, PARTICLE_INDEX),
            ]
        )
        if not overlap(spheres):
            return spheres


def overlap(spheres: FloatArray) -> bool:
    """Whether two spheres are nearer to one another than the sum of their radii."""
    place = spheres[:, :3] * [OPTICS.pixel_size_um, OPTICS.pixel_size_um, 1]
    radii = spheres[:, RADIUS]
    nearest = pdist(place) - pdist(radii[:, None], lambda a, b: float(a[0] + b[0]))
    return bool((nearest < 0).any())


def photographed(light: FloatArray, rng: np.random.Generator) -> FloatArray:
    return rng.poisson(light * PHOTONS) / PHOTONS


def sd(covariance: FloatArray) -> FloatArray:
    return np.sqrt(np.diag(covariance))


def bounds() -> list[Row]:
    rows = []
    for radius in RADII_UM:
        for z_um in (2.0, 3.0, 4.0, 5.0, 6.0):
            sphere = np.array([[SIDE / 2 + 0.2, SIDE / 2 - 0.3, z_um, radius, PARTICLE_INDEX]])
            (covariance,) = bound(MODEL, sphere, (SIDE, SIDE), NOISE)
            errors, others = sd(covariance), [row for row in range(len(covariance)) if row != INDEX]
            of_known_index = np.linalg.inv(np.linalg.inv(covariance)[np.ix_(others, others)])
            found = {
                "contrast": np.abs(MODEL.image(sphere, (SIDE, SIDE)) - 1).max(),
                "xy_nm": 1e3 * OPTICS.pixel_size_um * math.sqrt(0.5 * float((errors[[X, Y]] ** 2).sum())),
                "z_nm": 1e3 * errors[Z],
                "radius_nm": 1e3 * errors[RADIUS],
                "index": errors[INDEX],
                "correlation": covariance[RADIUS, INDEX] / errors[RADIUS] / errors[INDEX],
                "radius_nm_of_known_index": 1e3 * sd(of_known_index)[RADIUS],
            }
            row: Row = {"what": "bound", "radius_um": radius, "z_um": z_um}
            rows.append(row | {name: float(value) for name, value in found.items()})
            print(rows[-1])
    return rows


def by_search(**known: float) -> Callable[[FloatArray], tuple[FloatArray, FloatArray]]:
    search = SphereSearch(MODEL, SEARCHED_UM, noise=NOISE, **known)

    def find(image: FloatArray) -> tuple[FloatArray, FloatArray]:
        found = search.find(image)
        return found.spheres[found.ended], found.errors[found.ended]

    return find


class ByNetwork:
    """A network's own values (`find`), and the fit that starts from them (`find_and_fit`)."""

    def __init__(self, model: Path) -> None:
        settings = {"detector": {"model": model, "workers": 1}}
        self._settings = build_experiment(settings, "detect").detector

    def find(self, image: FloatArray) -> tuple[FloatArray, FloatArray]:
        grey = np.clip(np.rint(image * GREY), 0, 65535).astype(np.uint16)
        info = FrameInfo("holograms", 0, 0, 0.0, 0, 0.0, 0.0, OPTICS.pixel_size_um)
        (found,) = detect_frames(
            iter([Frame(info, grey)]), self._settings, shape=grey.shape, dtype=grey.dtype,
            pixel_size_um=OPTICS.pixel_size_um,
        )  # fmt: skip
        pixel = OPTICS.pixel_size_um
        values = (found.x_um / pixel, found.y_um / pixel, found.z_um)
        errors = (found.sigma_x_um / pixel, found.sigma_y_um / pixel, found.sigma_z_um)
        learnt = [
            (found.properties.value(n), found.properties.error(n)) for n in ("radius_um", "refractive_index")
        ]
        return (
            np.column_stack([*values, *(value for value, _ in learnt)]),
            np.column_stack([*errors, *(error for _, error in learnt)]),
        )

    def find_and_fit(self, image: FloatArray) -> tuple[FloatArray, FloatArray]:
        start, _ = self.find(image)
        found = fit_spheres(MODEL, image, start, NOISE, seek_um=0.6)
        return found.spheres[found.ended], found.errors[found.ended]


def matched(truth: FloatArray, found: FloatArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    points = (sphere[:, [X, Y, Z]] * [1 / GATE_PX, 1 / GATE_PX, 1 / GATE_UM] for sphere in (truth, found))
    return match(*points, 1.0, 1.0)


def score(
    what: str, method: str, pairs: list[FloatArray], counts: tuple[int, int, int], cpu_s: float
) -> list[Row]:
    """`pairs` are (P, 15): truth, found and stated errors; `counts` true, found and matched."""
    true, found, right = counts
    table = np.concatenate(pairs)
    rows = []
    for radius in RADII_UM:
        mine = table[table[:, RADIUS] == radius]
        off, stated = mine[:, 5:10] - mine[:, :5], mine[:, 10:]
        row: Row = {"what": what, "method": method, "radius_um": radius, "spheres": len(mine)}
        row |= {"missed": 1 - right / true, "false": 1 - right / max(found, 1), "cpu_ms": 1e3 * cpu_s}
        for name, column, unit in (("z_nm", Z, 1e3), ("radius_nm", RADIUS, 1e3), ("index", INDEX, 1.0)):
            row[f"rms_{name}"] = float(unit * np.sqrt((off[:, column] ** 2).mean()))
            row[f"mean_{name}"] = float(unit * off[:, column].mean())
            row[f"stated_{name}"] = float(unit * np.sqrt((stated[:, column] ** 2).mean()))
            row[f"error_over_stated_{name}"] = float(np.sqrt(((off / stated)[:, column] ** 2).mean()))
        rows.append(row)
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    middle = 0.5 * sum(RADII_UM)
    is_large = table[:, RADIUS] > middle
    rows[-1]["told_apart"] = float(((table[:, 5 + RADIUS] > middle) == is_large).mean())
    print(f"   told apart by a threshold half way: {rows[-1]['told_apart']:.4f}", flush=True)
    return rows


def images(
    what: str, method: str, find: Any, count: int, draw: Callable[[FloatArray], FloatArray] | None = None
) -> list[Row]:
    rng = np.random.default_rng(11)
    pairs, true, seen, right, cpu = [], 0, 0, 0, 0.0
    for _ in range(count):
        spheres = sample(rng, int(rng.integers(1, MOST + 1)))
        image = photographed((draw or light)(spheres), rng)
        start = time.process_time()
        found, errors = find(image)
        cpu += time.process_time() - start
        mine, theirs = matched(spheres, found)
        pairs.append(np.hstack([spheres[mine], found[theirs], errors[theirs]]))
        true, seen, right = true + len(spheres), seen + len(found), right + len(mine)
    return score(what, method, pairs, (true, seen, right), cpu / count)


def light(spheres: FloatArray) -> FloatArray:
    return MODEL.image(spheres, (SIDE, SIDE))


def integrated(spheres: FloatArray) -> FloatArray:
    """The same image, each pixel the mean of 3 x 3 parts, as a check of how the model takes the mean."""
    fine = hologram_model(HologramOptics(pixel_size_um=OPTICS.pixel_size_um / 3), REACH_UM, DEEPEST_UM)
    finer = spheres.copy()
    finer[:, [X, Y]] = 3 * finer[:, [X, Y]] + 1
    return fine.image(finer, (3 * SIDE, 3 * SIDE)).reshape(SIDE, 3, SIDE, 3).mean(axis=(1, 3))


def with_optics(**changed: float) -> Callable[[FloatArray], FloatArray]:
    model = hologram_model(replace(OPTICS, **changed), REACH_UM, DEEPEST_UM)
    return lambda spheres: model.image(spheres, (SIDE, SIDE))


def video(seeds: int) -> list[Row]:
    find = by_search()
    rows, pairs, singles = [], [], []
    tracks = wrong = 0
    for seed in range(seeds):
        rng = np.random.default_rng(100 + seed)
        spheres = sample(rng, MOST)
        spheres[:, RADIUS] = np.resize(RADII_UM, MOST)
        parts = []
        for frame in range(FRAMES):
            found, errors = find(photographed(light(spheres), rng))
            mine, theirs = matched(spheres, found)
            true = np.full(len(found), -1)
            true[theirs] = mine
            columns = {
                "frame": frame,
                "x_um": found[:, X] * 0.1,
                "y_um": found[:, Y] * 0.1,
                "z_um": found[:, Z],
            }
            columns |= {"radius_um": found[:, RADIUS], "sigma_radius_um": errors[:, RADIUS], "true": true}
            columns |= {"index": found[:, INDEX], "sigma_index": errors[:, INDEX]}
            columns |= {f"sigma_{axis}_um": errors[:, n] * unit for axis, n, unit in SIGMAS}
            parts.append(pd.DataFrame(columns))
            spheres = moved(spheres, rng)
        table = pd.concat(parts, ignore_index=True)
        table["detection"] = table.groupby("frame").cumcount()
        linked = liveptv.track(table.drop(columns="true"), FRAME_RATE_HZ)
        linked = linked[linked["detection"] >= 0].rename(
            columns={"radius_um": "mean", "sigma_radius_um": "error"}
        )
        linked = linked[["track", "frame", "detection", "mean", "error"]].merge(
            table, on=["frame", "detection"]
        )
        for _, track in linked.groupby("track"):
            if len(track) < LEAST_ROWS:
                continue
            tracks += 1
            number = int(track["true"].mode()[0])
            wrong += int((track["true"] != number).any())
            last = track.iloc[-1]
            pairs.append((spheres[number, RADIUS], last["mean"], last["error"], len(track)))
            singles += track["radius_um"].tolist()
    found = np.array(pairs)
    for radius in RADII_UM:
        mine = found[found[:, 0] == radius]
        off = mine[:, 1] - radius
        row: Row = {
            "what": "video",
            "radius_um": radius,
            "tracks": len(mine),
            "rows_of_a_track": float(mine[:, 3].mean()),
        }
        row |= {
            "mean_radius_nm": float(1e3 * mine[:, 1].mean()),
            "rms_radius_nm": float(1e3 * np.sqrt((off**2).mean())),
        }
        row |= {"stated_radius_nm": float(1e3 * np.sqrt((mine[:, 2] ** 2).mean()))}
        row |= {"error_over_stated": float(np.sqrt(((off / mine[:, 2]) ** 2).mean()))}
        row |= {"tracks_of_two_spheres": wrong / tracks}
        row |= {"histogram_nm": np.histogram(1e3 * mine[:, 1], HISTOGRAM_NM)[0].tolist()}
        rows.append(row)
        print(row)
    counts = np.histogram(1e3 * np.array(singles), HISTOGRAM_NM)[0]
    rows.append(
        {"what": "histogram", "edges_nm": HISTOGRAM_NM.tolist(), "single_detections": counts.tolist()}
    )
    return rows


def moved(spheres: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The spheres a frame later; they turn back at the edges of the sample, and do not pass through one another."""
    while True:
        after = diffused(spheres, rng)
        if not overlap(after):
            return after


def diffused(spheres: FloatArray, rng: np.random.Generator) -> FloatArray:
    step = np.sqrt(2 * KT_OVER_6_PI_ETA / spheres[:, RADIUS] / FRAME_RATE_HZ)[:, None] * rng.normal(
        size=(len(spheres), 3)
    )
    after = spheres.copy()
    after[:, :3] += step * [1 / OPTICS.pixel_size_um, 1 / OPTICS.pixel_size_um, 1]
    for column, low, high in (
        (X, BORDER_PX, SIDE - BORDER_PX),
        (Y, BORDER_PX, SIDE - BORDER_PX),
        (Z, *DEPTH_UM),
    ):
        after[:, column] = np.where(after[:, column] < low, 2 * low - after[:, column], after[:, column])
        after[:, column] = np.where(after[:, column] > high, 2 * high - after[:, column], after[:, column])
    return after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100, help="independent images")
    parser.add_argument("--seeds", type=int, default=4, help="videos")
    parser.add_argument("--model", type=Path, help="a network trained on examples/holograms_spheres.py")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    rows = bounds()
    rows += images("images", "search and fit", by_search(), options.images)
    if options.model is not None:
        network = ByNetwork(options.model)
        rows += images("images", "network", network.find, options.images)
        rows += images("images", "network and fit", network.find_and_fit, options.images)
    for name, draw in {
        "pixels of 3 x 3 parts": integrated,
        "the medium's index 0.001 higher": with_optics(medium_index=OPTICS.medium_index + 0.001),
        "wavelength 1 nm longer": with_optics(wavelength_um=OPTICS.wavelength_um + 0.001),
        "aperture 1.15": with_optics(numerical_aperture=1.15),
    }.items():
        rows += images("misfit", name, by_search(), max(options.images // 4, 1), draw)
    rows += video(options.seeds)
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
