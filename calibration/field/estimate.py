"""The field model of a scan, from its aligned traces: the order of the steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from calibration.alignment.aligned import Positions
from calibration.alignment.denoise import wiener
from calibration.alignment.depth_spline import node_weights
from calibration.assemble import centre_of
from calibration.field.choose import Choice, Truncation, choose, folds_of, left_out
from calibration.field.regression import Problem, Residuals, Sums
from calibration.field.samples import Nodes, Samples, Traces, to_middle
from calibration.field.stage import straight_walk
from calibration.field.terms import Design, Terms
from calibration.field.walk import Walk, find_walk
from calibration.psf_model import PsfModel
from engines.refine.field import SURFACE_DEGREE, FieldModel, terms_of

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]

WALK_ROUNDS = 16
"""Most measurements of the walk. Each is of a mean image that is smeared by what is left of it, and finds only a
part, a fifth to a third; with the steps of `_step` 5 to 8 do."""
SETTLED_SIGMAS = 0.5
"""Standard errors of the walk below which a step changes nothing more."""
LONGEST_STEP = 6.0
"""A step over what was measured, at most: more would only follow the noise."""
MAX_PLACE_PX = 1.0
"""px by which a particle's place changes at most in one such measurement."""
DEPTHS_LOOKED_AT = 24
"""Depths at which the symmetry of the images is looked at."""
PLACE_ROUNDS = 2
"""Corrections of the particles' places with the field model of the others."""
CENTRE_ROUNDS = 2
"""Measurements of the images' centre: the second is good to 0.001 px."""
SQUARE_OF_MEDIAN = 0.455
"""Median of the square of a normal number of variance 1."""
CLIPPED = 3.0
"""Standard deviations at which an image's say about its particle's place is clipped."""


@dataclass(frozen=True, slots=True, eq=False)
class FieldFit:
    """What was found, for traces at their corrected places.

    `positions` (N,) replace those of the alignment, of offsets in the model's coordinates; `model` has the field
    model.
    """

    model: PsfModel
    traces: Traces
    positions: Positions
    samples: Samples
    sums: Sums
    terms: Terms
    choice: Choice
    walk: Walk | None
    stage_px: FloatArray
    shape: tuple[int, int]

    def place_um(self, index: int, pixel_size_um: float) -> tuple[float, float]:
        """Where one of the particles is in the image, um from the centre of the first pixel."""
        height, width = self.shape
        half = max(self.shape) / 2
        u, v = float(self.traces.u[index]), float(self.traces.v[index])
        return ((width - 1) / 2 + half * u) * pixel_size_um, ((height - 1) / 2 + half * v) * pixel_size_um

    def left_out_splines(self, mine: IndexArray) -> FloatArray:
        """The splines (T, J, R) through all particles but `mine`."""
        phi = _phi(self.terms, self.traces)
        splines = Problem.of(self.sums, phi, np.setdiff1d(np.arange(len(phi)), mine)).solve(self.choice.ridge)
        return Truncation.of(splines, self.choice.rank).splines(splines[0])


@dataclass(frozen=True, slots=True, eq=False)
class _Still:
    """Samples without the walk, the walk as measured; what was taken out: G, q (K, 2), changes of place (N, 2)."""

    samples: Samples
    walk: Walk | None
    per_um: FloatArray
    stage_px: FloatArray
    place_px: FloatArray


@dataclass(frozen=True, slots=True)
class Scene:
    """What the traces were seen with: focus (K,), column and row (N,) of their middle pixels, and the image's
    shape."""

    focus_um: FloatArray
    column: FloatArray
    row: FloatArray
    shape: tuple[int, int]


def traces_of(
    images: Float32Array, positions: Positions, scene: Scene, model: PsfModel, noise_variance: float
) -> Traces:
    """Traces (N, K, P, P) at positions in the model's coordinates."""
    depth = positions.z_um[:, None] - scene.focus_um
    seen = (depth >= model.z_min_um) & (depth <= model.z_max_um)
    height, width = scene.shape
    half = max(scene.shape) / 2
    u = (scene.column + positions.dx_px - (width - 1) / 2) / half
    v = (scene.row + positions.dy_px - (height - 1) / 2) / half
    dx, dy = (np.repeat(off[:, None], depth.shape[1], axis=1) for off in (positions.dx_px, positions.dy_px))
    return Traces(images, depth, seen, dx, dy, positions.brightness, u, v, noise_variance)


def fit_field(
    images: Float32Array, start: Positions, scene: Scene, model: PsfModel, noise_variance: float
) -> FieldFit:
    """Find walk, terms and modes, and correct the places of the particles.

    `images` (N, K, P, P) are clean of neighbours, `start` their positions in the coordinates of the `model`. Where
    one image serves the whole field as well, the model and the positions come back as they were.
    """
    nodes = Nodes(model.z_first_um, model.z_step_um, len(model.coefficients))
    traces = traces_of(images, start, scene, model, noise_variance)
    still = _without_walk(Samples.of(traces, nodes, alike=True), scene)
    samples = Samples.of(still.samples.traces, nodes)
    sums = Sums.of(samples)
    choice = choose(samples, sums)
    off = still.place_px
    positions = replace(start, dx_px=start.dx_px + off[:, 0], dy_px=start.dy_px + off[:, 1])
    if choice.design != Design():
        for _ in range(PLACE_ROUNDS):
            change = _place_changes(samples, sums, choice)
            positions = Positions(
                positions.brightness * (1 + change[:, 0]),
                positions.z_um + change[:, 3],
                positions.dx_px + change[:, 1],
                positions.dy_px + change[:, 2],
            )
            moved = samples.traces.moved(change[:, 1:2], change[:, 2:3], change[:, 3])
            samples = Samples.of(replace(moved, brightness=positions.brightness), nodes, samples.basis)
            sums = Sums.of(samples)
    traces = samples.traces
    terms = Terms.of(choice.design, traces.u, traces.v, np.log(traces.brightness))
    fit = FieldFit(
        model, traces, positions, samples, sums, terms, choice, still.walk, still.stage_px, scene.shape
    )
    if choice.design == Design() and not still.per_um.any():
        return fit
    model, off_px = _model(fit, still.per_um)
    centred = replace(positions, dx_px=positions.dx_px + off_px[0], dy_px=positions.dy_px + off_px[1])
    return replace(fit, model=model, positions=centred)


def _without_walk(samples: Samples, scene: Scene) -> _Still:
    """Take out the walk, and put the particles where they are at depth 0."""
    half = max(scene.shape) / 2
    count = len(samples.traces.u)
    first, per_um, stage_px = None, np.zeros((2, 2)), np.zeros((len(scene.focus_um), 2))
    place_px, step, before, sigma = np.zeros((count, 2)), 1.0, np.zeros((2, 2)), np.zeros((2, 2))
    for turn in range(WALK_ROUNDS):
        traces = samples.traces
        x_px, y_px = traces.u * half, traces.v * half
        fold = folds_of(traces.u, traces.v)
        alone = left_out(samples, Sums.of(samples), np.ones((count, 1)), 0.0, None, fold)
        walk = find_walk(alone, traces.noise_variance, traces.depth_um, scene.focus_um, x_px, y_px)
        stage = _straight(samples, scene.focus_um) if turn == 0 else np.zeros_like(stage_px)
        if walk is not None and walk.is_stage:
            stage = stage + walk.stage_px
        optical = walk is not None and (walk.is_optical or bool(per_um.any()))
        if walk is None or not (optical or stage.any()):
            first = first or walk
            break
        if optical:
            step = _step(step, walk.per_um, before, walk.sigma_per_um)
            before, sigma = walk.per_um, np.maximum(step * walk.sigma_per_um, 1e-12)
        more = step * walk.per_um if optical else np.zeros((2, 2))
        away = np.stack([x_px, y_px], axis=1) @ more.T
        place = np.clip(step * walk.place_px, -MAX_PLACE_PX, MAX_PLACE_PX)
        aside = place[:, None, :] + away[:, None, :] * traces.depth_um[..., None] + stage
        moved = traces.moved(aside[..., 0], aside[..., 1], np.zeros(count))
        samples = Samples.of(moved, samples.nodes, alike=True)
        per_um, stage_px, place_px = per_um + more, stage_px + stage, place_px + place
        found = per_um if optical else walk.per_um
        errors = sigma if optical else walk.sigma_per_um
        first = replace(walk, per_um=found, sigma_per_um=errors, stage_px=stage_px)
        if optical and not stage.any() and (np.abs(more) < SETTLED_SIGMAS * sigma).all():
            break
    return _Still(samples, first, per_um, stage_px, place_px)


def _step(step: float, now: FloatArray, before: FloatArray, sigma: FloatArray) -> float:
    """How many times a walk (2, 2) as measured is to be applied, after `step` times the one `before` was.

    Each measurement finds the same part of what is left, so that two of them tell how much that is (the secant
    method).
    """
    size = float(((before / sigma) ** 2).sum())
    if not size > 0:
        return step
    left = float((now * before / sigma**2).sum()) / size
    return float(np.clip(step / max(1.0 - left, 1e-3), 1.0, LONGEST_STEP))


def _straight(samples: Samples, focus_um: FloatArray) -> FloatArray:
    """The straight walk of the stage, (K, 2) px."""
    seen = samples.traces.depth_um[samples.traces.seen]
    depth_um = np.linspace(seen.min(), seen.max(), DEPTHS_LOOKED_AT)
    every = np.arange(len(samples.values))
    spline = Problem.of(Sums.of(samples), np.ones((every.size, 1)), every).solve(0.0)[0]
    node = (depth_um - samples.nodes.first_um) / samples.nodes.step_um
    first, weight, _ = node_weights(node, samples.nodes.count)
    values = np.einsum("mp,mpr->mr", weight, spline[first[:, None] + np.arange(4)])
    walk = straight_walk(np.einsum("mr,rpq->mpq", values, samples.basis), depth_um)
    moved: FloatArray = -(focus_um - focus_um.mean())[:, None] * walk
    return moved


def _phi(terms: Terms, traces: Traces) -> FloatArray:
    return terms.at(traces.u, traces.v, np.log(traces.brightness))


def _place_changes(samples: Samples, sums: Sums, choice: Choice) -> FloatArray:
    """Changes (N, 4) of brightness (relative), x, y, z that fit each particle best, by the model of the others.

    An image counts by its noise and by how far images at its depth are off.
    """
    traces = samples.traces
    phi = _phi(Terms.of(choice.design, traces.u, traces.v, np.log(traces.brightness)), traces)
    fold = folds_of(traces.u, traces.v)
    found: Residuals = left_out(samples, sums, phi, choice.ridge, choice.rank, fold)
    place = np.round((traces.depth_um - samples.nodes.first_um) / samples.nodes.step_um).astype(int)
    place = np.clip(place, 0, samples.nodes.count - 1)  # images far out of sight are beyond the nodes
    change = np.zeros((len(phi), 4))
    for column in range(4):
        error = found.change[..., column]
        squares = ndimage.median(error**2, np.where(traces.seen, place, -1), np.arange(samples.nodes.count))
        typical = np.nan_to_num(squares) / SQUARE_OF_MEDIAN
        known = traces.noise_variance / np.maximum(found.information[..., column], 1e-300)
        weight = traces.seen / (known + typical[place] + 1e-12)
        limit = CLIPPED * np.sqrt(known + typical[place])
        total = np.maximum(weight.sum(axis=1), 1e-300)
        change[:, column] = (weight * np.clip(error, -limit, limit)).sum(axis=1) / total
    change[:, 0] = (1 + change[:, 0]) / np.mean(1 + change[:, 0]) - 1
    return change


def _model(fit: FieldFit, per_um: FloatArray) -> tuple[PsfModel, FloatArray]:
    """The PSF model with the field model of all particles; and how far, (2,: x, y) px, its images were off centre.

    A particle's place is where its image is symmetric, in the middle of the field: further out the optics may make
    images lopsided, and so do particles that are more on one side than on the other as long as a walk smears them.
    """
    splines = Problem.of(fit.sums, _phi(fit.terms, fit.traces), np.arange(len(fit.traces.u))).solve(
        fit.choice.ridge
    )
    parts = Truncation.of(splines, fit.choice.rank)
    mean = _images(splines[0], fit.samples.basis)
    modes = np.array([_images(mode, fit.samples.basis) for mode in parts.modes]).reshape(-1, *mean.shape)
    mixed = np.hstack([np.zeros((len(modes), 1)), parts.mixing])
    b = np.log(fit.traces.brightness)
    field = FieldModel(
        shape=fit.shape,
        surface_um=np.zeros(terms_of(SURFACE_DEGREE)),
        walk_per_um=per_um,
        modes=np.zeros((len(modes), 1, 1, 1), np.float32),
        weights=fit.terms.weights(mixed),
        degree=fit.choice.design.degree,
        brightness_degree=fit.choice.design.brightness_degree,
        brightness_range=(float(b.min()), float(b.max())),
    )
    middle = mean + np.tensordot(field.weights_at(0.0, 0.0)[0], modes, axes=1)
    off_px = np.zeros(2)
    for _ in range(CENTRE_ROUNDS):
        off_px += centre_of(_moved(middle, off_px))
    of_mean, *others = (_splined(_moved(part, off_px)) for part in (mean, *modes))
    field = replace(field, modes=np.array(others, np.float32).reshape(-1, *mean.shape))
    return replace(fit.model, coefficients=of_mean, field=field), off_px


def _moved(images: FloatArray, off_px: FloatArray) -> FloatArray:
    """Images (J, P, P) moved back by `off_px` (2,: x, y)."""
    size = images.shape[-1]
    turn = fft.fftfreq(size)[:, None] * off_px[1] + fft.rfftfreq(size)[None, :] * off_px[0]
    moved: FloatArray = fft.irfft2(fft.rfft2(images) * np.exp(2j * np.pi * turn), s=(size, size))
    return moved


def _images(spline: FloatArray, basis: FloatArray) -> FloatArray:
    """The coefficients (J, P, P), over depth only, of a spline (J, R) in a basis (R, P, P), without their noise."""
    return wiener(np.einsum("jr,rpq->jpq", spline, basis))


def _splined(images: FloatArray) -> Float32Array:
    """Coefficients (J, P, P) over depth of images as those of a spline also over rows and columns."""
    for axis in (1, 2):
        images = ndimage.spline_filter1d(images, order=3, axis=axis, mode="mirror")
    return np.ascontiguousarray(images, np.float32)


def expected_images(fit: FieldFit, splines: FloatArray, index: int) -> Float32Array:
    """The images (K, P, P) that splines (T, J, R) give one of the traces, where it is; 0 where not seen."""
    samples = fit.samples
    first, weight, _ = (part[index] for part in samples.weights())
    own = np.einsum(
        "t,tjr->jr", _phi(fit.terms, fit.traces)[index], fit.left_out_splines(np.empty(0, np.intp))
    )
    values = np.einsum("kp,kpr->kr", weight, own[first[:, None] + np.arange(4)])
    centred = fit.traces.brightness[index] * np.tensordot(values, samples.basis, axes=1)
    away = (-part[index : index + 1] for part in (fit.traces.dx_px, fit.traces.dy_px))
    moved: Float32Array = to_middle(centred[None].astype(np.float32), *away)[0]
    return moved


def spline_of_place(fit: FieldFit, splines: FloatArray, index: int) -> Float32Array:
    """The spline (J, P, P) of splines (T, J, R) at the place of one of the traces."""
    own = np.einsum("t,tjr->jr", _phi(fit.terms, fit.traces)[index], splines)
    return _splined(_images(own, fit.samples.basis))
