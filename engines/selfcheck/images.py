"""Whether particles still look as calibrated: the residuals of fitted lone particles against named changes.

The last `KEPT` particles are judged together, and by region of the image.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from engines.refine.arguments import BoolArray, Float32Array, FloatArray, IntArray
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, SPARE_UM, TOP, A, Z, set_box
from engines.selfcheck.directions import NAMES, SEPARATION, TURNED, WIDER_X, WIDER_Y, Directions
from engines.selfcheck.scores import Estimate, Score, estimate, score
from stream.evidence import is_sure

REGIONS = 3
"""Rows and columns of regions."""
DEPTHS = 5
KEPT = 400
"""Particles judged together, about eight seconds' worth: the focal planes are then known to 0.2 um on the paper's
set-up. More follows a change more slowly."""
FEWEST = 120
"""Particles before the first judgement."""
OUTLIER = 6.0
"""Robust standard deviations above the region's median chi-square from which a particle is left out: two particles
on top of each other, or a piece of dirt."""
SEPARATION_PART, SEPARATION_OF_RANGE = 0.025, 0.01
"""Change of the distance of the focal planes that is tolerated: part of it, and of half the depth range where they
are as good as one. The first shifts depths by up to 1.2 % of the distance, 1.9 um of 150; twice as much is sure
after a few seconds. Less would tell what differs between two calibrations of the same optics."""
TURN_DEG = 2.0
"""Turn of the images that is tolerated, degrees."""
WIDER_PX2 = 0.25
"""Variance that a blur may add to the images of a region, px^2, 0.5 px in one direction: particles that are 15 %
larger than those of the calibration have 0.15 (bright field, rings)."""


class Found(NamedTuple):
    """A change that is sure: its name, told once, and what it means."""

    name: str
    text: str


class ImageCheck:
    """Takes fitted lone particles and judges them; one thread."""

    def __init__(self, directions: Directions, shape: tuple[int, int]) -> None:
        directions.use(shape)
        self.directions = directions
        self._shape = shape
        self._kept: deque[tuple[int, int, float, Score]] = deque(maxlen=KEPT)
        self._candidates = 1.0
        self._looks = 0
        self.together: Estimate | None = None
        self.regions: list[Estimate] = []

    def alone(self, theta: FloatArray) -> IntArray:
        """Which of the particles (N, 4) stand alone in their boxes, well inside of the image and of the depths."""
        model = self.directions.model
        boxes = np.empty((len(theta), BOX), np.int64)
        for k in range(len(theta)):
            set_box(theta[k], (1 << 30, 1 << 30), self.directions.psf, SPARE_UM, boxes[k])
        half = np.column_stack([boxes[:, BOTTOM] - boxes[:, TOP], boxes[:, RIGHT] - boxes[:, LEFT]]) / 2
        off_y, off_x = (np.abs(theta[:, None, 1 - k] - theta[None, :, 1 - k]) for k in (0, 1))
        touch = (off_y < half[:, None, 0] + half[None, :, 0]) & (off_x < half[:, None, 1] + half[None, :, 1])
        height, width = self._shape
        inside = (theta[:, 0] > half[:, 1]) & (theta[:, 0] < width - 1 - half[:, 1])
        inside &= (theta[:, 1] > half[:, 0]) & (theta[:, 1] < height - 1 - half[:, 0])
        deep = (theta[:, Z] > model.z_min_um + SPARE_UM / 2) & (theta[:, Z] < model.z_max_um - SPARE_UM / 2)
        good = (theta[:, A] > 0) & np.isfinite(theta).all(axis=1)
        alone: IntArray = np.flatnonzero((touch.sum(axis=1) == 1) & inside & deep & good)
        return alone

    def add(
        self, contrast: Float32Array, theta: FloatArray, noise: tuple[float, float], candidates: int
    ) -> None:
        """Take particles `theta` (N, 4) of an image as contrast (H, W), drawn from `candidates` of it.

        `noise` is read and shot variance of the contrast.
        """
        self._candidates += 0.05 * (candidates - self._candidates) if self._kept else candidates - 1.0
        sign = -1.0 if self.directions.model.polarity == "dark" else 1.0
        model = self.directions.model
        edges = np.linspace(model.z_min_um, model.z_max_um, DEPTHS + 1)[1:-1]
        expected = self._expected(theta, noise)
        for one, calibrated in zip(theta, expected, strict=True):
            box = np.empty(BOX, np.int64)
            set_box(one, self._shape, self.directions.psf, SPARE_UM, box)
            own, changes = self.directions.of(one, box)
            image = one[A] * own[3]
            seen = contrast[box[TOP] : box[BOTTOM], box[LEFT] : box[RIGHT]]
            weight = 1.0 / (noise[0] + noise[1] * np.maximum(1.0 + sign * image, 0.05))
            row = min(int(one[1] / self._shape[0] * REGIONS), REGIONS - 1)
            column = min(int(one[0] / self._shape[1] * REGIONS), REGIONS - 1)
            scored = score(seen - image, weight, own, changes)
            scored = scored._replace(chi_square=scored.chi_square / calibrated)
            self._kept.append(
                (row * REGIONS + column, int(np.searchsorted(edges, one[Z])), float(one[Z]), scored)
            )

    def _expected(self, theta: FloatArray, noise: tuple[float, float]) -> FloatArray:
        """Reduced chi-square (N,) that the calibration's own left-out particles have; 1 where not known."""
        misfit, model = self.directions.model.misfit, self.directions.model
        if misfit is None or not len(theta):
            return np.ones(len(theta))
        down, along = model.origin_px(self._shape)
        image = misfit.image_at(theta[:, 0] + along, theta[:, 1] + down, theta[:, Z])
        return np.asarray(1.0 + image * theta[:, A] ** 2 / sum(noise), np.float64)

    def judge(self) -> list[Found]:
        """What is sure now."""
        if len(self._kept) < FEWEST:
            return []
        self._looks += 1
        region = np.array([one[0] for one in self._kept])
        chi = np.array([one[3].chi_square for one in self._kept])
        typical = np.zeros(len(region), np.bool_)
        for r in range(REGIONS**2):
            mine = region == r
            if mine.any():
                middle = np.median(chi[mine])
                spread = 1.4826 * np.median(np.abs(chi[mine] - middle))
                typical |= mine & (chi < middle + OUTLIER * max(spread, 0.02))
        scores = np.array([one[3].score for one in self._kept])
        information = np.array([one[3].information for one in self._kept])
        # the same particle in several images says less than several particles: as if none had moved
        again = math.sqrt(max(1.0, len(region) / max(self._candidates, 1.0)))

        def of(some: BoolArray) -> Estimate:
            found = estimate(scores[some], information[some])
            return found._replace(error=again * found.error)

        self.together = of(typical)
        self.regions = [of(typical & (region == r)) for r in range(REGIONS**2)]
        return [*self._of_all(self.together), *self._of_regions(self.regions)]

    def _sure(self, value: float, error: float, tolerated: float) -> bool:
        return is_sure(value, error, tolerated, self._looks, 2 + REGIONS**2)

    def _of_all(self, found: Estimate) -> list[Found]:
        model = self.directions.model
        apart_um = self.directions.separation_um
        tolerated_um = max(
            SEPARATION_PART * apart_um, SEPARATION_OF_RANGE * (model.z_max_um - model.z_min_um) / 2
        )
        out = []
        by_um, error_um = found.value[SEPARATION], found.error[SEPARATION]
        if self._sure(by_um, error_um, tolerated_um):
            way = "apart" if by_um > 0 else "closer together"
            out.append(
                Found(
                    "focal_planes",
                    f"the focal planes have moved {way} by {abs(by_um):.1f} +- {error_um:.1f} um since "
                    f"the calibration ({100 * abs(by_um) / max(apart_um, 1.0):.0f} % of their distance): the "
                    "temperature is another, or the cylindrical lens has moved or turned; depths are wrong by "
                    f"up to {abs(by_um) / 2:.1f} um, calibrate again",
                )
            )
        turn, error = found.value[TURNED], found.error[TURNED]
        if self._sure(turn, error, TURN_DEG):
            out.append(
                Found(
                    "turned",
                    f"the images of particles are turned by {turn:+.1f} +- {error:.1f} degrees since the "
                    "calibration: the camera or the cylindrical lens has turned; calibrate again",
                )
            )
        return out

    def _of_regions(self, found: list[Estimate]) -> list[Found]:
        wider = np.array([one.value[WIDER_X] + one.value[WIDER_Y] for one in found])
        error = np.array([math.hypot(one.error[WIDER_X], one.error[WIDER_Y]) for one in found])
        known = np.isfinite(error)
        smeared = [
            bool(known[r]) and wider[r] > 0 and self._sure(wider[r], error[r], WIDER_PX2)
            for r in range(len(found))
        ]
        if known.any() and sum(smeared) > known.sum() / 2:
            px = math.sqrt(float(np.median(wider[known])))
            return [
                Found(
                    "blurred",
                    f"images of particles are blurred by {px:.1f} px more than in the calibration: vibration, "
                    "motion during the exposure, larger particles, or another cover glass; errors are larger "
                    "than stated",
                )
            ]
        return [
            Found(
                f"smeared_{r}",
                f"particles {place_name(r)} are smeared by {math.sqrt(wider[r]):.1f} px more than in the "
                "calibration: dirt or a drop on the optics there, or the lens has tilted; errors there are "
                "larger than stated",
            )
            for r in range(len(found))
            if smeared[r]
        ]

    def facts(self) -> dict[str, object]:
        """JSON-able: the named changes with their errors, and chi-squares over those of the calibration."""
        if self.together is None:
            return {}
        chi = np.array([(one[0], one[1], one[3].chi_square) for one in self._kept])
        both = zip(NAMES, self.together.value, self.together.error, strict=True)
        return {
            "changes": {n: [round(float(v), 3), round(float(e), 3)] for n, v, e in both if math.isfinite(e)},
            "wider_px2": [
                round(float(one.value[WIDER_X] + one.value[WIDER_Y]), 3)
                if np.isfinite(one.error).all()
                else None
                for one in self.regions
            ],
            "chi_square_field": _medians(chi[:, 0], chi[:, 2], REGIONS**2),
            "chi_square_depth": _medians(chi[:, 1], chi[:, 2], DEPTHS),
            "particles": self.together.particles,
        }


def place_name(region: int) -> str:
    """Where a region is, in words."""
    row, column = divmod(region, REGIONS)
    words = f"{('top', '', 'bottom')[row]} {('left', '', 'right')[column]}".strip()
    return f"at the {words}" if words else "in the middle"


def _medians(group: FloatArray, values: FloatArray, groups: int) -> list[float | None]:
    return [
        round(float(np.median(values[group == g])), 3) if (group == g).sum() > 4 else None
        for g in range(groups)
    ]
