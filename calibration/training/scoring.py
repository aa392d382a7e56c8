"""Scores of a network on held-out images, which it was never trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.evaluation import DISTANCE_BINS_UM, LONE_UM, Evaluation, evaluate
from calibration.matching import GATE_XY_UM, IntArray, Table, match
from calibration.training.material import Material
from calibration.training.property_scores import PropertyScore, score_property
from engines.network.decode import ROW, decode
from engines.network.learnt import values_of
from engines.network.preparation import padded

SCORING_SEED = 2**31
IMAGE_PX = 256
Network = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Images (B, 1, H, W) in, maps (B, H/4, W/4, slots, values) out, or what its `Decode` can read."""
Decode = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
"""A network's answer to one image in, particles (N, 8) with the columns `engines.network.decode.ROW` out."""


@dataclass(frozen=True, slots=True)
class Scores:
    """`missed` is 1 - recall, `false` 1 - precision; errors are those of lone particles, rms in um.

    `class_right` is the part of the particles found whose class is right, `class_stated` the mean probability that
    the network gave these classes; NaN for a network that tells none. `properties` are the scores of what else was
    learnt.
    """

    particles: int
    missed: float
    false: float
    x_um: float
    y_um: float
    z_um: float
    missed_close: float
    evaluation: Evaluation
    class_right: float = math.nan
    class_stated: float = math.nan
    properties: tuple[PropertyScore, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The numbers that are kept with a model."""
        names: tuple[str, ...] = ("missed", "false", "x_um", "y_um", "z_um", "missed_close")
        if np.isfinite(self.class_right):
            names += ("class_right", "class_stated")
        return (
            {"particles": self.particles}
            | {
                name: float(np.round(getattr(self, name), 4)) if np.isfinite(getattr(self, name)) else None
                for name in names
            }
            | {f"rms_{each.name}": each.rms for each in self.properties}
        )


class HeldOut:
    """Images (count, 256, 256) drawn once; `score` tells how well a network reads them.

    Where particles look different over a field of view, it is about as many pixels in images of the whole field, as
    the network gets them in use.
    """

    def __init__(self, material: Material, count: int = 48, seed: int = SCORING_SEED) -> None:
        self._material = material
        shape, self._images_in_one = (IMAGE_PX, IMAGE_PX), 1.0
        if material.field_shape is not None:
            shape = padded(material.field_shape[0]), padded(material.field_shape[1])
            self._images_in_one = shape[0] * shape[1] / IMAGE_PX**2
            count = max(1, round(count / self._images_in_one))
        self.scene = material.scoring.draw(np.random.default_rng(seed), shape, count)

    def at_once(self, count: int) -> int:
        """How many of the images have no more pixels than `count` of 256 x 256; one at least."""
        return max(1, int(count / self._images_in_one))

    def score(
        self,
        network: Network,
        at_once: int = 8,
        sigma_scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
        read: Decode = decode,
    ) -> Scores:
        """Detect in all images and compare with the truth."""
        return self.judge(self.detect(network, at_once, sigma_scale, read))

    def judge(self, found: Table) -> Scores:
        """The scores of detections, as `detect` gives them."""
        truth = self.scene.table()
        gate_um, gate_z_um = self._material.gate_um
        size = (
            gate_um / GATE_XY_UM
        )  # of the particles, over those that the lengths of the scores were made for
        score = evaluate(
            truth,
            found,
            gate_xy_um=gate_um,
            gate_z_um=gate_z_um,
            lone_um=size * LONE_UM,
            distance_bins_um=tuple(size * edge for edge in DISTANCE_BINS_UM),
        )
        errors = score.lone.errors
        x, y, z = (errors[axis].rms_um if axis in errors else float("nan") for axis in "xyz")
        close = score.by_distance[0].missed
        right = stated = math.nan
        properties: tuple[PropertyScore, ...] = ()
        if "kind" in found or self._material.properties:
            mine, theirs = self.pairs_with(found, score.depth)
            right = class_right(truth, found, mine, theirs)
            if "kind" in found and theirs.size:
                stated = float(np.asarray(found["p_kind"])[theirs].mean())
            properties = self._property_scores(found, mine, theirs)
        return Scores(
            score.true_particles, score.missed, score.false, x, y, z, close, score, right, stated,
            properties,
        )  # fmt: skip

    def pairs_with(self, found: Table, depth: bool) -> tuple[IntArray, IntArray]:
        """Which particles were found, by their `depth` too if so, and by which detections: indices (P,)."""
        gate_um, gate_z_um = self._material.gate_um
        return pairs(self.scene.table(), found, gate_um, gate_z_um if depth else None)

    def _property_scores(self, found: Table, mine: IntArray, theirs: IntArray) -> tuple[PropertyScore, ...]:
        return tuple(
            score_property(
                each,
                self.scene.particles.more[mine, n],
                np.asarray(found[each.name])[theirs],
                np.asarray(found[f"sigma_{each.name}"])[theirs],
            )
            for n, each in enumerate(self._material.properties)
        )

    def detect(
        self,
        network: Network,
        at_once: int = 8,
        sigma_scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
        read: Decode = decode,
    ) -> dict[str, npt.NDArray[np.float64]]:
        """The network's detections in all images, `at_once` of them at a time, as a table for `evaluate`."""
        images, material = self.scene.images, self._material
        rows = []
        at_once = self.at_once(at_once)
        for start in range(0, len(images), at_once):
            some = images[start : start + at_once, None] / material.noise_contrast
            maps = network(some.astype(np.float32))
            for offset, one in enumerate(maps):
                found = read(one)
                rows.append(np.column_stack([np.full(len(found), start + offset), found]))
        table = np.concatenate(rows)
        pixel, depth = material.pixel_size_um, material.half_range_um
        if not material.depth:
            depth = math.nan
        classes = table[:, 1 + len(ROW) : table.shape[1] - 2 * material.learnt]
        more = {}
        if classes.size:
            more = {"kind": classes.argmax(axis=1).astype(np.float64), "p_kind": classes.max(axis=1)}
        values, errors = values_of(material.properties, table, more.get("kind"))
        for row, each in enumerate(material.properties):
            more |= {each.name: values[row], f"sigma_{each.name}": errors[row]}
        return more | {
            "frame": table[:, 0],
            "x_um": table[:, 1] * pixel,
            "y_um": table[:, 2] * pixel,
            "z_um": table[:, 3] * depth + material.middle_um,
            "sigma_x_um": table[:, 5] * pixel * sigma_scale[0],
            "sigma_y_um": table[:, 6] * pixel * sigma_scale[1],
            "sigma_z_um": table[:, 7] * depth * sigma_scale[2],
        }


def class_right(truth: Table, found: Table, mine: IntArray, theirs: IntArray) -> float:
    """The part of the pairs with the same `kind`; NaN where there is none, or the network tells no class."""
    if "kind" not in found or not mine.size:
        return math.nan
    return float((np.asarray(truth["kind"])[mine] == np.asarray(found["kind"])[theirs]).mean())


def pairs(truth: Table, found: Table, gate_um: float, gate_z_um: float | None) -> tuple[IntArray, IntArray]:
    """Which particles were found, and by which detections: indices (P,) of both."""
    rows_of, columns_of = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    true_points, found_points = (
        np.column_stack([table[f"{axis}_um"] for axis in "xyz"]) for table in (truth, found)
    )
    for frame in np.unique(truth["frame"]):
        mine, theirs = (np.flatnonzero(np.asarray(table["frame"]) == frame) for table in (truth, found))
        rows, columns = match(true_points[mine], found_points[theirs], gate_um, gate_z_um)
        rows_of.append(mine[rows])
        columns_of.append(theirs[columns])
    return np.concatenate(rows_of), np.concatenate(columns_of)
