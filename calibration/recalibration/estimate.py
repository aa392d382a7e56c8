"""Recalibration: from recorded particles to the model's new terms, each only where particles left out agree.

1. Lone images tell the distance of the focal lines, and the size of the particles, which would look alike
   (`image_fit.global_step`); in two halves of the particles, each judged by the other.
2. Particles at rest, fitted with the new lines, tell depth scale, focal surface and walk (`geometry`).
3. A known distance of two walls tells the depth scale where the focus did not move; a known focus position of a
   wall tells the offset of depth. Images alone cannot: each particle's depth is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from calibration.psf_model import PsfModel
from calibration.recalibration.at_rest import tracks_at_rest
from calibration.recalibration.geometry import Linear, Resting, depth_scale, surface, walk
from calibration.recalibration.image_fit import (
    Fitted,
    LocalModels,
    Step,
    Windows,
    X,
    Y,
    Z,
    fit_windows,
    global_step,
    weights_of,
)
from calibration.recalibration.sightings import (
    Images,
    Recorded,
    choose_at_rest,
    choose_lone,
    cut_windows,
    lone_rows,
)
from calibration.recalibration.terms import (
    Term,
    field_of,
    focal_lines,
    is_astigmatic,
    with_depths,
    with_shape,
)
from calibration.recalibration.walls import Walls, by_wall
from stream.errors import LivePTVError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]

LINES = "distance of the focal lines"
FEWEST_LONE = 30
"""Lone particles from which the focal lines are fitted; each half must judge the other."""
FEWEST_TRACKS = 6
"""Different particles among them: one particle's own shape is not the lens."""
SHOWS = 0.5
"""Part of the rows in whose images a particle must be found, near the recorded place; otherwise these are not the
images of this run."""
NEAR_PX = 2.0
"""Distance, px, of a particle from its recorded place in images of the run; in others they lie anywhere."""
OUTLIER = 4.0
"""Reduced chi-square over the typical one, from which an image is of something else: two particles, or dirt."""
SURE_SIGMAS = 3.0
"""A term changes only by more than so many of its standard errors ..."""
SURE_GAIN = 9.0
"""... and where it lowers chi-square of particles left out by as much."""
ROUNDS = 4
"""Most Gauss-Newton steps of the focal lines; two to three are typical."""
SETTLED = 0.1
"""Step over its standard error at which they end."""
DERIVATIVE_PART = 0.002
"""Distance to each side over which the derivative by the focal lines is taken, of the depth range."""
DERIVATIVE_PX2 = 0.02
"""The same for the blur, which is linear."""
METHOD_PART = 0.15
"""Part of a change of the focal lines by which it may be off, as images are stretched without knowing the optics
(`focal_lines`): measured on computed images, whose lines were moved by 5 % of their distance."""
MOST_BLUR_PX2 = 0.5
"""Largest blur: a particle larger by 1 px. Beyond, calibrate with such particles."""


class RecalibrationError(LivePTVError):
    """The recorded particles do not support a new model; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the images.

    Distance of two walls, um in the sample; focus, um, at which a wall is in focus; height per focus travel.
    """

    wall_distance_um: float | None = None
    wall_focus_um: float | None = None
    refraction_factor: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Recalibrated:
    """The new model, and its terms. `chi_square` is the reduced one of lone images, before and after, over
    `particles` images; `at_rest` particles stood still. `remarks` are lines for the user. Images have the `shape`
    (H, W); `sigma_um` (3,) are the typical standard errors of x, y and z from noise alone.
    """

    model: PsfModel
    terms: list[Term]
    chi_square: tuple[float, float]
    particles: int
    at_rest: int
    remarks: list[str]
    shape: tuple[int, int]
    sigma_um: FloatArray

    @property
    def changed(self) -> list[Term]:
        """The terms that the new model has new values of."""
        return [term for term in self.terms if term.changed]

    @property
    def doubt_um(self) -> float:
        """By how much depths may be off, um, as the focal lines' change is not known better; 0 if it is none."""
        return sum(term.sd[0] for term in self.changed if term.name == LINES)


def recalibrate(
    model: PsfModel,
    recorded: Recorded,
    shape: tuple[int, int],
    images: Images,
    known: Known | None = None,
    *,
    seed: int = 0,
    say: Callable[[str], None] = lambda _text: None,
) -> Recalibrated:
    """Update the named terms of a model from a recording with images of `shape` (H, W).

    Raises `RecalibrationError` where too few particles are lone or the images do not show them.
    """
    known, rng = known or Known(), np.random.default_rng(seed)
    alone = lone_rows(recorded, model, shape)
    resting = tracks_at_rest(recorded, alone)
    lone = choose_lone(recorded, alone, model, shape, rng)
    tracks = np.unique(recorded.track[lone]).size
    if lone.size < FEWEST_LONE or tracks < FEWEST_TRACKS:
        raise RecalibrationError(
            f"only {lone.size} images of {tracks} lone particles lie inside the images and overlap no other, "
            f"and {FEWEST_LONE} of {FEWEST_TRACKS} are needed; record longer, or fewer particles at a time"
        )
    still = choose_at_rest(recorded, alone, resting, rng)
    rows = np.union1d(lone, still)
    say(f"fitting {rows.size} images of lone particles, {still.size} of them of {resting.size} at rest")
    chosen = recorded.part(rows)
    windows, start = cut_windows(chosen, model, images)
    before = LocalModels(model, shape)
    weight = weights_of(windows, before, start)
    first = fit_windows(windows, before, weight, start)
    fitted = fit_windows(windows, before, weight, first.theta)  # by now the brightness is known
    good = _sound(fitted, start)
    of_lone = good & np.isin(rows, lone)
    terms, change = _shape_terms(model, shape, windows, weight, fitted, chosen.track, of_lone)
    new, after = model, fitted
    if any(change):
        new = with_shape(model, *change)
        after = fit_windows(windows, LocalModels(new, shape), weight, fitted.theta)
    remarks: list[str] = []
    of_rest = good & after.good & np.isin(rows, still)
    new = _geometry(new, shape, chosen, after, of_rest, known, terms, remarks)
    both = of_lone & after.good
    dof = float((after.pixels[both] - 7).sum())
    chi_square = float(fitted.chi2[both].sum()) / dof, float(after.chi2[both].sum()) / dof
    pixel = np.array([model.pixel_size_um, model.pixel_size_um, 1.0])
    return Recalibrated(
        new,
        terms,
        chi_square,
        int(both.sum()),
        int(np.unique(chosen.track[of_rest]).size),
        remarks,
        shape,
        np.median(after.sigma[both], axis=0) * pixel,
    )


def _sound(fitted: Fitted, start: FloatArray) -> BoolArray:
    """Images (N,) of one lone particle. Raises `RecalibrationError` where most show none at its place."""
    moved = np.hypot(*(fitted.theta[:, [X, Y]] - start[:, [X, Y]]).T)
    there = fitted.good & (moved < NEAR_PX) & (fitted.pixels > 0)
    if there.mean() < SHOWS:
        raise RecalibrationError(
            f"in {there.size - int(there.sum())} of {there.size} places the images show no particle of this model; "
            "give the images, the references and the model that the trajectories were made from"
        )
    typical = float(np.median(fitted.reduced[there]))
    return np.asarray(there & (fitted.reduced < OUTLIER * typical))


def _shape_terms(
    model: PsfModel,
    shape: tuple[int, int],
    windows: Windows,
    weight: npt.NDArray[np.float32],
    fitted: Fitted,
    track: npt.NDArray[np.int64],
    good: BoolArray,
) -> tuple[list[Term], tuple[float, float]]:
    """The distance of the focal lines and the size of the particles; by how much they change, um and px^2."""
    x_um, y_um = focal_lines(model)
    before = abs(x_um - y_um)
    name = (LINES, "um")
    depth = fitted.theta[:, Z] - (x_um + y_um) / 2
    fewest = min(int((good & (sign * depth > 0)).sum()) for sign in (-1, 1))
    why = "" if is_astigmatic(model) else "the lens is not astigmatic"
    if not why and fewest < FEWEST_LONE // 3:
        why = f"{fewest} lone particles are on one side of focus, and {FEWEST_LONE // 3} are needed on each"
    if why:
        nothing = Term(*name, (before,), (before,), (np.nan,), np.nan, np.nan, int(good.sum()), False, why)
        return [nothing], (0.0, 0.0)
    half = np.searchsorted(np.unique(track), track) % 2 == 0
    steps: list[Step] = []
    chi2 = np.zeros(3)
    typical = []
    for mine in (half, ~half):
        step = _step(model, shape, windows, weight, fitted, np.flatnonzero(good & mine))
        others = np.flatnonzero(good & ~mine)
        judged = [
            fit_windows(
                windows.part(others),
                LocalModels(with_shape(model, lines, blur), shape),
                weight[others],
                fitted.theta[others],
            )
            for lines, blur in ((0.0, 0.0), (0.0, step.change[1]), (step.change[0], step.change[1]))
        ]
        ended = np.all([one.good for one in judged], axis=0)
        chi2 += [one.chi2[ended].sum() for one in judged]
        typical.append(judged[-1].reduced[ended])
        steps.append(step)
    chi2 /= max(float(np.median(np.concatenate(typical))), 1.0)
    precision = [np.linalg.inv(step.covariance) for step in steps]
    joint = np.linalg.inv(sum(precision, np.zeros((2, 2))))
    change = joint @ sum((p @ step.change for p, step in zip(precision, steps, strict=True)), np.zeros(2))
    # as far apart as the two halves say, at least
    sd = np.maximum(np.sqrt(np.diagonal(joint)), np.abs(steps[0].change - steps[1].change) / 2)
    sd[0] = np.hypot(sd[0], METHOD_PART * change[0])
    terms, new = [], [0.0, 0.0]
    for place, label, unit, old in ((1, "blur of larger particles", "px^2", 0.0), (0, *name, before)):
        first, second = (chi2[0], chi2[1]) if place else (chi2[1], chi2[2])
        sure = abs(change[place]) > SURE_SIGMAS * sd[place] and first - second > SURE_GAIN
        why = (
            ""
            if sure
            else f"a change of {change[place]:+.2g} {unit} is not sure (standard error {sd[place]:.2g})"
        )
        value = (old + float(change[place]),)
        size = (float(sd[place]),)
        terms.append(Term(label, unit, (old,), value, size, first, second, int(good.sum()), bool(sure), why))
        new[place] = float(change[place]) if sure else 0.0
    return terms, (new[0], new[1])


def _step(
    model: PsfModel,
    shape: tuple[int, int],
    windows: Windows,
    weight: npt.NDArray[np.float32],
    fitted: Fitted,
    rows: IndexArray,
) -> Step:
    """By how much the focal lines are further apart and the particles larger, from some images."""
    some, w = windows.part(rows), weight[rows]
    theta, change = fitted.theta[rows], np.zeros(2)
    span_um = model.z_max_um - model.z_min_um
    distance = np.array([DERIVATIVE_PART * span_um, DERIVATIVE_PX2])
    most = np.array([span_um / 10, MOST_BLUR_PX2])
    for _ in range(ROUNDS):
        middle = LocalModels(with_shape(model, change[0], change[1]), shape)
        around = []
        for one in np.diag(distance):
            high, low = (LocalModels(with_shape(model, *(change + part * one)), shape) for part in (1, -1))
            around.append((high, low, 2 * float(one.sum())))
        found = fit_windows(some, middle, w, theta)
        theta = found.theta
        step = global_step(some, middle, w, found, around)
        change = np.clip(change + step.change, -most, most)
        if (np.abs(step.change) < SETTLED * np.sqrt(np.diagonal(step.covariance))).all():
            break
    return Step(change, step.covariance)


def _geometry(
    model: PsfModel,
    shape: tuple[int, int],
    rows: Recorded,
    fitted: Fitted,
    chosen: BoolArray,
    known: Known,
    terms: list[Term],
    remarks: list[str],
) -> PsfModel:
    """The model with the depth scale, surface, walk and offset that particles at rest tell; adds to `terms`."""
    where = np.flatnonzero(chosen)
    tracks, bead = np.unique(rows.track[where], return_inverse=True)
    focus_um = rows.focus_um[where]
    middle = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    resting = Resting(
        bead.astype(np.int64),
        np.where(np.isfinite(focus_um), focus_um, 0.0),
        fitted.theta[where, X] - middle[0],
        fitted.theta[where, Y] - middle[1],
        fitted.theta[where, Z],
    )
    field = field_of(model, shape)
    half_px = max(field.shape) / 2
    uv = resting.mean(resting.x_px) / half_px, resting.mean(resting.y_px) / half_px
    walls = by_wall(resting, uv, field.surface_um, model.z_max_um - model.z_min_um)
    scale = _scale(model, resting, walls, known, terms, remarks)
    found = surface(resting, uv, scale, scale * field.surface_um, walls.number) if tracks.size else None
    need = "6 particles at rest on a flat wall, spread over half of the field along x and y"
    terms.append(_term("focal surface", "um", scale * field.surface_um, found, f"there are not {need}"))
    surface_um = np.array(terms[-1].after) if terms[-1].changed else scale * field.surface_um
    found = (
        walk(resting, scale, model.z_max_um - model.z_min_um, field.walk_per_um / scale)
        if tracks.size
        else None
    )
    need = "6 particles at rest while the focus moved through a twentieth of the depth range"
    terms.append(
        _term("walk with depth", "1/um", field.walk_per_um.ravel() / scale, found, f"there are not {need}")
    )
    walk_per_um = field.walk_per_um / scale
    if terms[-1].changed:
        walk_per_um = np.array(terms[-1].after).reshape(2, 2)
    offset_um = _offset(resting, uv, scale, surface_um, walls, known, terms)
    out = with_depths(model, scale, offset_um)
    if out.field is not None or any(term.changed for term in terms[-3:-1]):
        out = replace(
            out, field=replace(field_of(out, shape), surface_um=surface_um, walk_per_um=walk_per_um)
        )
    return out


def _scale(
    model: PsfModel, resting: Resting, walls: Walls, known: Known, terms: list[Term], remarks: list[str]
) -> float:
    found = depth_scale(resting, model.z_max_um - model.z_min_um) if resting.beads else None
    why = "the focus did not move while particles were at rest, and no wall distance is known"
    travel_um = None if known.wall_distance_um is None else known.wall_distance_um / known.refraction_factor
    if found is None and travel_um is not None:
        found = walls.scale(travel_um, model.z_max_um - model.z_min_um)
        why = "there are not 3 particles at rest on each of two walls, at different depths"
    terms.append(_term("depth scale", "1", np.ones(1), found, why))
    scale = terms[-1].after[0] if terms[-1].changed else 1.0
    seen_um = walls.distance(scale)
    if travel_um is not None and seen_um is not None and known.wall_distance_um is not None:
        remarks.append(
            f"the walls are {known.refraction_factor * seen_um:.4g} um apart with the new model, "
            f"{known.wall_distance_um:g} um as given; an optics.refraction_factor of "
            f"{known.wall_distance_um / seen_um:.4g} would make them equal"
        )
    return scale


def _offset(
    resting: Resting,
    uv: tuple[FloatArray, FloatArray],
    scale: float,
    surface_um: FloatArray,
    walls: Walls,
    known: Known,
    terms: list[Term],
) -> float:
    if known.wall_focus_um is None:
        return 0.0
    found = walls.offset(resting, uv, scale, surface_um, known.wall_focus_um)
    terms.append(
        _term("depth offset", "um", np.zeros(1), found, "there are not 3 particles at rest on a wall")
    )
    return terms[-1].after[0] if terms[-1].changed else 0.0


def _term(name: str, unit: str, before: FloatArray, found: Linear | None, missing: str) -> Term:
    old = tuple(before.tolist())
    if found is None:
        return Term(name, unit, old, old, (np.nan,) * len(old), np.nan, np.nan, 0, False, missing)
    moved = np.abs(found.coefficients - before)
    sure = bool((moved > SURE_SIGMAS * found.sd)[found.sd > 0].any()) and found.gain > SURE_GAIN
    return Term(
        name,
        unit,
        old,
        tuple(found.coefficients.tolist()),
        tuple(found.sd.tolist()),
        found.before,
        found.after,
        found.count,
        sure,
        "" if sure else "particles left out are not explained better",
    )
