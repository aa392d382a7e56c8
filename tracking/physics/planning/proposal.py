"""How many frames, and which slices, the wanted errors take; what causes the error, and what would help."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tracking.physics.channel.parameters import CENTER, DEPTH, FLOOR, PITCH, ROLL, WIDTH, YAW, Prior
from tracking.physics.planning.precision import (
    LENGTHS,
    QUANTITIES,
    Plan,
    errors_of,
    gradients,
    information_by_slice,
    outcome,
)
from tracking.physics.planning.view import Slices, View

FloatArray = npt.NDArray[np.float64]

FEWEST_FRAMES, MOST_FRAMES = 10.0, 1e7
"""Of a slice; at 100 frames/s the latter are 28 hours."""
CLOSE = 1.005
"""The error may be larger than wanted by this factor where the search for the number of frames ends."""
MORE_SLICES = 3
"""Slices beyond those that just cover the depth that are tried too: far from focus errors are large."""
OPTIMAL_ROUNDS = 200
LEAST_SHARE = 0.03
"""Share of the frames below which a slice is left out of the best ones."""
NOTHING = 1e-3
"""Factor by which a cause of error is made smaller to see what it does."""
AT_WALL = 0.25
"""Share of the depth that is near a wall."""

Errors = Mapping[str, float]
Predict = Callable[[Plan], Errors | None]


def predicted_by(quantities: tuple[str, ...], consistency_error: float = 0.0) -> Predict:
    """The function that gives the errors of a plan by quantity, None where it has no track."""

    def predict(plan: Plan) -> Errors | None:
        found = outcome(plan)
        return None if found is None else errors_of(found.fit, quantities, consistency_error)

    return predict


def excess(errors: Errors, wanted: Errors) -> tuple[float, str]:
    """The largest error over the wanted one, and of which quantity."""
    ratio, name = max((errors[name] / limit, name) for name, limit in wanted.items())
    return ratio, name


def with_frames(plan: Plan, wanted: Errors, predict: Predict) -> Plan | None:
    """The plan with as many frames as the wanted errors take; None if `MOST_FRAMES` a slice are too few.

    The share of each slice is kept. Found by secants of the logarithms: errors fall nearly as 1 / sqrt(frames).
    """
    fewest = FEWEST_FRAMES / min(plan.slices.frames)
    most = MOST_FRAMES / max(plan.slices.frames)
    factor, low, high = 1.0, fewest, most
    for _ in range(30):
        tried = replace(plan, slices=plan.slices.times(factor))
        errors = predict(tried)
        ratio = math.inf if errors is None else excess(errors, wanted)[0]
        if ratio <= 1.0:
            high = factor
            if ratio > 1.0 / CLOSE or factor <= fewest:
                break
        else:
            low = factor
        guess = factor * min(max(ratio, 0.1), 10.0) ** 2 * 1.002
        factor = guess if low < guess < high else math.sqrt(low * high)
        if high / low < 1.002:
            factor = high
            break
    done = replace(plan, slices=_whole(plan.slices.times(high)))
    errors = predict(done)
    return done if errors is not None and excess(errors, wanted)[0] <= CLOSE else None


def _whole(slices: Slices) -> Slices:
    return Slices(slices.focus_um, tuple(float(math.ceil(n)) for n in slices.frames))


def covering(
    view: View, floor_um: float, depth_um: float, count: int, reach_um: tuple[float, float]
) -> Slices:
    """Equally spaced slices whose depth ranges cover the channel from floor to ceiling, within `reach_um`."""
    z = view.localisation.z_um
    lowest = floor_um / view.depth_factor - float(z[0])
    highest = (floor_um + depth_um) / view.depth_factor - float(z[-1])
    middle = (lowest + highest) / 2.0
    if count == 1 or highest <= lowest:
        centres = (
            np.full(1, middle) if count == 1 else middle + np.linspace(-0.5, 0.5, count) * (lowest - highest)
        )
    else:
        centres = np.linspace(lowest, highest, count)
    kept = np.unique(np.round(np.clip(np.sort(centres), *reach_um), 3))
    return Slices(tuple(float(f) for f in kept), (100.0,) * kept.size)


def fewest_slices(view: View, depth_um: float) -> int:
    """Slices whose depth ranges cover a channel of this depth."""
    return max(math.ceil(depth_um / view.depth_factor / float(np.ptp(view.localisation.z_um)) - 1e-9), 1)


def best_slices(plan: Plan, wanted: Errors, quantity: str) -> Slices:
    """Those among the plan's slices, and their shares of its frames, that tell one quantity best in all.

    The design that is optimal for tr(A C), C the covariance, by the multiplicative algorithm (Silvey, Titterington
    & Torsney, Commun. Stat. A 7, 1379, 1978).
    """
    found = outcome(plan)
    assert found is not None
    free = plan.prior.free
    rows = gradients(found.fit, quantity)[:, free]
    known = np.diag(1.0 / plan.prior.sigma[free] ** 2)
    each = information_by_slice(plan)
    total = plan.slices.total_frames
    share = np.full(len(each), 1.0 / len(each))
    for _ in range(OPTIMAL_ROUNDS):
        matrix = known + total * sum(w * m for w, m in zip(share, each, strict=True))
        half = np.linalg.solve(matrix, rows.T)
        gain = np.array([max(float(np.sum(half * (m @ half))), 0.0) for m in each])
        share = share * np.sqrt(gain)
        share /= share.sum()
    kept = np.flatnonzero(share > LEAST_SHARE)
    frames = share[kept] / share[kept].sum() * total
    return Slices(tuple(plan.slices.focus_um[i] for i in kept), tuple(float(n) for n in frames))


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of error: the part of the variance that is gone without it, and where it is largest, if told."""

    name: str
    share: float
    where: str = ""


def causes(plan: Plan, quantity: str, predict: Predict) -> list[Cause]:
    """What the error of a quantity comes from, the largest cause first. The shares overlap."""
    before = _variance(plan, quantity, predict)
    view = plan.view
    without = {
        "errors of depth": replace(view, localisation=view.localisation.scaled((1.0, 1.0, NOTHING))),
        "errors of x and y": replace(view, localisation=view.localisation.scaled((NOTHING, NOTHING, 1.0))),
        "Brownian motion": replace(view, diffusion_um2_s=NOTHING**2 * view.diffusion_um2_s),
    }
    found = [
        Cause(name, 1.0 - _variance(replace(plan, view=other), quantity, predict) / before)
        for name, other in without.items()
    ]
    if quantity not in LENGTHS:
        known = replace(plan, prior=fixed(plan.prior, plan.theta))
        found.append(
            Cause("walls whose place is not known", 1.0 - _variance(known, quantity, predict) / before)
        )
    found.sort(key=lambda one: -one.share)
    if found[0].name == "errors of depth" and quantity in QUANTITIES:
        found[0] = replace(found[0], where=_where(plan, quantity))
    return found


def fixed(prior: Prior, theta: FloatArray) -> Prior:
    """With the place and the size of the channel known."""
    sigma = prior.sigma.copy()
    sigma[[CENTER, FLOOR, YAW, PITCH, ROLL, WIDTH, DEPTH]] = 0.0
    return Prior(np.where(sigma > 0, prior.value, theta), sigma)


def _variance(plan: Plan, quantity: str, predict: Predict) -> float:
    errors = predict(plan)
    return math.inf if errors is None else errors[quantity] ** 2


def _where(plan: Plan, quantity: str) -> str:
    """In which part of the depth the errors of depth add most: by what each track adds to the variance."""
    found = outcome(plan)
    assert found is not None
    fit = found.fit
    pull = (
        gradients(fit, quantity)[:, fit.prior.free] @ fit.covariance[np.ix_(fit.prior.free, fit.prior.free)]
    )
    influence = np.einsum("rp,amp->ram", pull, fit.jacobian / fit.variance[..., None])
    added = (influence**2 * fit.expected.shear_variance).sum(axis=(0, 1)) * found.count
    depth = fit.expected.place_um[1] / fit.value("depth_um")
    parts = {
        "near the floor": depth < AT_WALL,
        "in the middle": (depth >= AT_WALL) & (depth <= 1 - AT_WALL),
        "near the ceiling": depth > 1 - AT_WALL,
    }
    low, high = (float(added[parts[name]].sum()) for name in ("near the floor", "near the ceiling"))
    if low + high > float(added.sum()) / 2.0 and max(low, high) < 1.5 * min(low, high):
        return "near floor and ceiling"
    return max(parts, key=lambda name: float(added[parts[name]].sum()))


def helps(plan: Plan, wanted: Errors, predict: Predict) -> list[tuple[str, float]]:
    """Changes and the time that they need over that of the plan, for the error that is the hardest to reach."""
    before = predict(plan)
    assert before is not None
    _, name = excess(before, wanted)
    view = plan.view
    tried = {
        "twice as many particles": replace(view, particles_per_um3=2.0 * view.particles_per_um3),
        "twice the frame rate": replace(view, frame_rate_hz=2.0 * view.frame_rate_hz),
        "half the errors of depth": replace(view, localisation=view.localisation.scaled((1.0, 1.0, 0.5))),
        "an image twice as long along the flow": replace(
            view, image_um=(2.0 * view.image_um[0], view.image_um[1])
        ),
    }
    found = []
    for words, other in tried.items():
        slices = plan.slices.times(other.frame_rate_hz / view.frame_rate_hz)
        after = predict(replace(plan, view=other, slices=slices))
        if after is not None:
            found.append((words, (after[name] / before[name]) ** 2))
    return sorted(found, key=lambda one: one[1])
