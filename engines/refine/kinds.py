"""The fit of several kinds of particles, each with its own PSF model.

The particles of one kind are fitted jointly to what the images of the other kinds leave; at first these are drawn
as the network has them. Where images of different kinds overlap, they are fitted a second time. The network says
how many particles there are: none is added or removed here. It also says of which kind each is; where it is not
sure of that, the particle is fitted with the PSF models of the others too, and chi-square decides (`kind_choice`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engines.refine.arguments import (
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    Particles,
    Prior,
    Psf,
)
from engines.refine.depth_search import LARGEST_MOVE_PX
from engines.refine.fit_notes import FitNotes
from engines.refine.fitting import (
    CHANCE_SIGMAS,
    LARGEST_MOVE_SIGMAS,
    LARGEST_MOVE_UM,
    LEAST_BRIGHTNESS_SIGMAS,
    SEARCH_SIGMAS,
    SEARCH_STEP_UM,
    WORST_FIT,
)
from engines.refine.frame import UNTRIED, begin_frame
from engines.refine.grouping import usable_boxes
from engines.refine.joint_fit import CONVERGED
from engines.refine.kind_choice import excess_of_other, probabilities, unsure
from engines.refine.partial import Part
from engines.refine.psf import FitModel
from engines.refine.refiner import Refiner
from engines.refine.rendering import BOTTOM, LEFT, RIGHT, TOP, A, X, Y, Z, put
from engines.refine.sample import add_misfit, with_misfit
from stream.messages import Detections

ROUNDS = 2
DEPTHS = 101
"""Depths over which a particle's peak is averaged, as in the unit of the network's brightness."""


class _Kind(NamedTuple):
    """The particles (N,) of one kind in a frame: their rows in the table, and the `image` (H, W) of all of them.

    `excess` (N,) is, of particles tried as another kind, what chi-square that leaves more than their own.
    """

    kind: int
    model: FitModel
    psf: Psf
    rows: IntArray
    particles: Particles
    image: Float32Array
    excess: FloatArray


class KindsRefiner(Refiner):
    """As `Refiner`, for tables that say of which kind each particle is; `models` are those of the kinds.

    Particles of an unknown kind keep what the table says.
    """

    def __init__(self, models: Sequence[FitModel], pixel_size_um: float, search_um: float) -> None:
        super().__init__(models[0], pixel_size_um, search_um)
        self.models = tuple(models)
        depths = (np.linspace(model.z_min_um, model.z_max_um, DEPTHS) for model in self.models)
        self._peaks = [float(m.peak_at(z).mean()) for m, z in zip(self.models, depths, strict=True)]

    def _fit(
        self,
        image: npt.NDArray[Any],
        table: FloatArray,
        full_light: float | None,
        proposals: FloatArray | None,
        part: Part | None = None,
        notes: FitNotes | None = None,
    ) -> tuple[FloatArray, BoolArray]:
        """The table with what was fitted; all particles are there."""
        contrast, total, light, noise = self.prepare(image, full_light)
        row, start = Detections.COLUMNS.index, self.start(table)
        kinds = []
        for kind, (model, peak) in enumerate(zip(self.models, self._peaks, strict=True)):
            rows = np.flatnonzero(table[row("kind")] == kind)
            brightness = table[row("brightness"), rows] / (light * peak)
            theta = np.column_stack([start[rows], brightness])
            kinds.append(_kind(kind, model, rows, theta, contrast.shape))
        self._fit_kinds(contrast, total, kinds, table[row("sigma_z_um")], noise)
        out = with_misfit(table, self.model, self._pixel_size_um, image.shape)
        scale = np.array([self._pixel_size_um, self._pixel_size_um, 1.0])
        good = 0
        tried = self._try_others(contrast, total, kinds, table, start, noise)
        out[row("kind")], out[row("p_kind")] = self._decided(kinds, tried, table, start)
        for one in (*kinds, *tried):
            fitted, sigma = _accepted(one, start[one.rows], table[row("sigma_z_um"), one.rows])
            fitted &= out[row("kind"), one.rows] == one.kind
            theta, where = one.particles.theta[fitted], one.rows[fitted]
            sigma_um = sigma[fitted, :3] * scale * np.array(one.model.sigma_scale)
            if one.model.misfit is not None:
                sigma_um = np.sqrt(add_misfit(sigma_um**2, one.model, theta[:, :2], theta[:, Z], image.shape))
            for axis, name in enumerate("xyz"):
                out[row(f"{name}_um"), where] = theta[:, axis] * scale[axis]
                out[row(f"sigma_{name}_um"), where] = sigma_um[:, axis]
            out[row("brightness"), where] = theta[:, A] * one.model.peak_at(theta[:, Z]) * light
            out[row("chi_square"), where] = one.particles.fit[fitted, 0]
            good += len(where)
        with self._lock:
            self._counts.update(refined=good, not_refined=table.shape[1] - good)
        return out, np.ones(table.shape[1], np.bool_)

    def _fit_kinds(
        self,
        contrast: Float32Array,
        rest: Float32Array,
        kinds: list[_Kind],
        sigma_z_um: FloatArray,
        noise: tuple[float, float],
    ) -> None:
        variance, unknown = self.noise_of(noise), Prior(0.0, 0.0)
        for one in kinds:
            for i in np.flatnonzero(one.particles.usable):
                put(one.image, one.particles.theta[i], 1.0, one.psf)
        for turn in range(ROUNDS):
            mixed = _overlapped(kinds, (contrast.shape[0], contrast.shape[1]))
            for one, beside in zip(kinds, mixed, strict=True):
                wanted = one.particles.usable & (beside if turn else True)
                if not wanted.any():
                    continue
                np.copyto(rest, contrast)
                for other in kinds:
                    if other is not one:
                        rest -= other.image
                if turn == 0:
                    one.image.fill(0)
                    span = np.maximum(SEARCH_SIGMAS * sigma_z_um[one.rows], self._search_um)
                    span = np.minimum(np.where(np.isfinite(span), span, self._search_um), LARGEST_MOVE_UM)
                    theta, usable = one.particles.theta, one.particles.usable
                    begin_frame(rest, one.image, theta, span, SEARCH_STEP_UM, one.psf, variance, usable)
                self.fit_all(rest, one.image, one.particles, one.psf, variance, unknown, wanted)

    def _try_others(
        self,
        contrast: Float32Array,
        rest: Float32Array,
        kinds: list[_Kind],
        table: FloatArray,
        start: FloatArray,
        noise: tuple[float, float],
    ) -> list[_Kind]:
        """The particles of whose kind the network is not sure, or that cannot be fitted as it says, fitted as each
        other kind beside all the others."""
        row = Detections.COLUMNS.index
        tried: list[_Kind] = []
        doubtful = unsure(table[row("kind")], table[row("p_kind")])
        for one in kinds:
            fitted, _ = _accepted(one, start[one.rows], table[row("sigma_z_um"), one.rows])
            doubtful[one.rows] |= ~fitted
        if not doubtful.any():
            return tried
        variance = self.noise_of(noise)
        left = contrast.copy()
        for one in kinds:
            left -= one.image
        scratch = np.zeros_like(left)
        for own in kinds:
            picked = np.flatnonzero(doubtful[own.rows] & own.particles.usable)
            for kind, model in enumerate(self.models):
                if kind == own.kind or not picked.size:
                    continue
                theta = own.particles.theta[picked].copy()
                theta[:, A] *= self._peaks[own.kind] / self._peaks[kind]
                other = _kind(kind, model, own.rows[picked], theta, contrast.shape)
                np.copyto(rest, left)
                for i in picked:
                    put(rest, own.particles.theta[i], 1.0, own.psf)
                span, usable = np.full(picked.size, LARGEST_MOVE_UM), other.particles.usable
                begin_frame(
                    rest,
                    other.image,
                    other.particles.theta,
                    span,
                    SEARCH_STEP_UM,
                    other.psf,
                    variance,
                    usable,
                )
                self.fit_all(rest, other.image, other.particles, other.psf, variance, Prior(0.0, 0.0), usable)
                for n in np.flatnonzero(usable & np.isfinite(other.particles.theta).all(axis=1)):
                    pair = (own.particles.theta[picked[n]], own.psf), (other.particles.theta[n], other.psf)
                    other.excess[n] = excess_of_other(left, *pair, noise, variance.sign, scratch)
                tried.append(other)
        return tried

    def _decided(
        self, kinds: list[_Kind], tried: list[_Kind], table: FloatArray, start: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Kind (N,) and its probability (N,) of all particles."""
        row = Detections.COLUMNS.index
        kind, p_kind = table[row("kind")].copy(), table[row("p_kind")].copy()
        excess = np.full((table.shape[1], len(kinds)), np.nan)
        for one in tried:
            fitted, _ = _accepted(one, start[one.rows], table[row("sigma_z_um"), one.rows])
            # a fit that does not count cannot win, however little it leaves
            excess[one.rows, one.kind] = np.where(fitted, one.excess, np.maximum(one.excess, 0.0))
        asked = np.flatnonzero(np.isfinite(excess).any(axis=1))
        if asked.size:
            excess[asked, kind[asked].astype(np.int64)] = 0.0
            p = probabilities(excess[asked])
            kind[asked], p_kind[asked] = p.argmax(axis=1), p.max(axis=1)
        return kind, p_kind


def _kind(kind: int, model: FitModel, rows: IntArray, theta: FloatArray, shape: tuple[int, ...]) -> _Kind:
    count, height, width = len(rows), shape[0], shape[1]
    theta[:, Z] = np.clip(theta[:, Z], model.z_min_um, model.z_max_um)
    usable = np.isfinite(theta).all(axis=1)
    usable &= (theta[:, X] >= -0.5) & (theta[:, X] < width - 0.5)
    usable &= (theta[:, Y] >= -0.5) & (theta[:, Y] < height - 0.5)
    covariance, fit = np.full((count, 4, 4), np.nan), np.full((count, 2), np.nan)
    particles = Particles(theta, covariance, fit, np.full(count, UNTRIED), usable)
    image, excess = np.zeros(shape, np.float32), np.full(count, np.nan)
    return _Kind(kind, model, model.for_kernels(shape), rows, particles, image, excess)


def _overlapped(kinds: list[_Kind], shape: tuple[int, int]) -> list[BoolArray]:
    """Of each kind, the particles (N,) whose rectangle overlaps that of a particle of another kind."""
    boxes = [usable_boxes(one.particles.theta, one.particles.usable, shape, one.psf) for one in kinds]
    found = [np.zeros(len(one.rows), np.bool_) for one in kinds]
    for i, mine in enumerate(boxes):
        for j, theirs in enumerate(boxes):
            if i != j and len(mine) and len(theirs):
                down = (mine[:, None, TOP] < theirs[:, BOTTOM]) & (theirs[:, TOP] < mine[:, None, BOTTOM])
                across = (mine[:, None, LEFT] < theirs[:, RIGHT]) & (theirs[:, LEFT] < mine[:, None, RIGHT])
                both = kinds[i].particles.usable[:, None] & kinds[j].particles.usable
                found[i] |= (down & across & both).any(axis=1)
    return found


def _accepted(one: _Kind, start: FloatArray, sigma_z_um: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Which fits (N,) count, by the rules of `fitting.fit_particles`, and standard errors (N, 4), px and um."""
    theta, covariance, fit, state, usable = one.particles
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        if one.model.misfit is None:
            worse = fit[:, 0] > 1 + CHANCE_SIGMAS * np.sqrt(2 / fit[:, 1])
            sigma = sigma * np.sqrt(np.where(worse, fit[:, 0], 1.0))[:, None]
        good = usable & (state == CONVERGED) & np.isfinite(sigma).all(axis=1)
        good &= theta[:, A] > LEAST_BRIGHTNESS_SIGMAS * sigma[:, A]
        if good.any():
            good &= fit[:, 0] < WORST_FIT * max(1.0, float(np.median(fit[good, 0])))
    good &= np.hypot(theta[:, X] - start[:, X], theta[:, Y] - start[:, Y]) <= LARGEST_MOVE_PX
    good &= np.abs(theta[:, Z] - start[:, 2]) <= np.fmax(LARGEST_MOVE_UM, LARGEST_MOVE_SIGMAS * sigma_z_um)
    good &= (theta[:, Z] > one.model.z_min_um) & (theta[:, Z] < one.model.z_max_um)
    return good, sigma


def open_kinds_refiner(
    models: Sequence[FitModel | None], pixel_size_um: float, search_um: float
) -> KindsRefiner | None:
    """The fit of several kinds; None where the PSF model of one is missing."""
    there = [model for model in models if model is not None]
    return KindsRefiner(there, pixel_size_um, search_um) if len(there) == len(models) else None
