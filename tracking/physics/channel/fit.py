"""Fits the flow of a straight channel to the velocities of tracks, weighted by what each of them knows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError
from tracking.physics.channel.classes import FIRST_SHARES, FOLLOWS, Classes, classify
from tracking.physics.channel.model import Expected, axes_of, expected_velocity, in_section, velocity_at
from tracking.physics.channel.parameters import (
    CENTER,
    DEPTH,
    FLOOR,
    INDEX,
    PARAMETERS,
    PITCH,
    ROLL,
    SLIP,
    VELOCITY,
    WIDTH,
    YAW,
    Prior,
)
from tracking.physics.channel.sandwich import robust_covariance, safe_inverse
from tracking.physics.channel.start import begin
from tracking.physics.sections.shapes import Section
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

FEWEST_FOR_EACH = 3
"""Tracks for each free parameter below which nothing is fitted: standard errors come from the scatter."""
STEPS = 40
"""Most steps; it takes 4 to 8 from a start in the right place."""
SETTLED = 0.03
"""Standard errors by which a parameter may still move when the fit ends."""
HALVINGS = 4
WORSE = 0.1
"""Rise of the sum of squares (in variances) that is no reason to halve a step: places within the walls move too."""
DAMPED_FROM = 10
"""Steps after which each goes half as far: where no channel fits the tracks, the classes of some change with it."""
SHARE_OF_SIZE = 0.1
"""Farthest step of a length, over the size of the section; walls farther off are reached in several steps."""
FARTHEST_TURN_DEG = 3.0
FARTHEST_INDEX = 0.2
MOST_DEPTHS, LEAST_DEPTHS = 10.0, 1e-3
"""Heights of the tracks over the depth of the section that are no mistake in the unit: a pitch of 5 degrees adds
one depth, an image of one slice may show a fiftieth of it."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelFit:
    """The flow in a straight channel, from M tracks.

    `theta` (10,) has the parameters in the order of `PARAMETERS`, `covariance` (10, 10) theirs (0 for fixed ones).
    `prior` is what was known before. `jacobian` (3, M, free) is the derivative of each track's expected velocity,
    `residual_um_s` (3, M) measured less expected velocity and `variance` (3, M) what is stated for it, without the
    dispersion of `classes`. `settled` says whether the iteration ended by itself.
    """

    section: Section
    reference_x_um: float
    theta: FloatArray
    covariance: FloatArray
    prior: Prior
    tracks: TrackVelocities
    expected: Expected
    residual_um_s: FloatArray
    variance: FloatArray
    jacobian: FloatArray
    classes: Classes
    settled: bool

    def value(self, name: str) -> float:
        """A parameter by its name in `PARAMETERS`."""
        return float(self.theta[PARAMETERS.index(name)])

    def standard_error(self, name: str) -> float:
        """Its standard error; 0 for a fixed one."""
        return math.sqrt(self.covariance[PARAMETERS.index(name), PARAMETERS.index(name)])

    def told(self, name: str) -> bool:
        """Whether the data say more of it than was known: its standard error is less than half of what it was."""
        return 0 < self.standard_error(name) < float(self.prior.sigma[PARAMETERS.index(name)]) / 2.0


def fit_channel(
    tracks: TrackVelocities,
    section: Section,
    prior: Prior,
    *,
    start: FloatArray | None = None,
    reference_x_um: float | None = None,
    steps: int = STEPS,
) -> ChannelFit:
    """Fit the free parameters by iteratively reweighted least squares (Gauss and Newton).

    `section` gives the shape; its size is in the parameters. `start` (10,) is where to begin, such as the last fit
    of a run; `reference_x_um` the x at which center and floor are meant (default: the middle of the tracks).

    The covariance is the robust one (`robust_covariance`): it is right whatever the stated errors are worth.

    Raises `ConfigurationError` with too few tracks in 3D (`FEWEST_FOR_EACH` for each parameter), with none that
    moves, or with heights that cannot be those of this section.
    """
    usable = np.isfinite(tracks.velocity_um_s).all(axis=0)
    usable &= np.isfinite(tracks.velocity_sigma_um_s).all(axis=0)
    usable &= np.isfinite(tracks.position_um).all(axis=0) & np.isfinite(tracks.position_sigma_um).all(axis=0)
    tracks = tracks.chosen(np.flatnonzero(usable))
    free = prior.free
    if len(tracks) < FEWEST_FOR_EACH * max(free.size, 1):
        raise ConfigurationError(
            f"{len(tracks)} trajectories with a height and a velocity are too few for the flow's {free.size} "
            "unknowns; measure longer, or fix some of them"
        )
    if start is None:
        _check_tracks(tracks, prior)
    if reference_x_um is None:
        reference_x_um = float(np.median(tracks.position_um[0]))
    theta = begin(tracks, section, prior, reference_x_um) if start is None else start.copy()
    settled = False
    state = _state(section, theta, reference_x_um, tracks)
    for count in range(steps):
        expected, residual, variance, classes = state
        jacobian = _jacobian(section, theta, reference_x_um, tracks, expected, free)
        weight = classes.probability[FOLLOWS] / (variance * classes.dispersion[:, None] ** 2)
        curvature, pull = _normal_equations(jacobian, weight, residual, prior, theta, free)
        if not (np.isfinite(curvature).all() and np.isfinite(pull).all()):
            raise ConfigurationError(
                f"no flow fits the {len(tracks)} trajectories: the numbers grow without limit; check the "
                "section, and that all lengths are in um"
            )
        inverse = safe_inverse(curvature)
        step, error = inverse @ pull, np.sqrt(np.diag(inverse))
        settled = bool((np.abs(step) < SETTLED * error).all())
        moved = np.zeros(len(PARAMETERS))
        moved[free] = step
        moved *= _shortened(moved, theta) * (1.0 if count < DAMPED_FROM else 0.5)
        before = _cost(residual, weight, theta, prior)
        state = _state(section, theta + moved, reference_x_um, tracks)
        for _ in range(HALVINGS):
            if _cost(state[1], weight, theta + moved, prior) <= before + WORSE:
                break
            moved /= 2.0
            state = _state(section, theta + moved, reference_x_um, tracks)
        theta = theta + moved
        if settled:
            break
    expected, residual, variance, classes = state
    if not settled:  # else the last step has changed it by a part in a thousand
        jacobian = _jacobian(section, theta, reference_x_um, tracks, expected, free)
    weight = classes.probability[FOLLOWS] / (variance * classes.dispersion[:, None] ** 2)
    covariance = np.zeros((len(PARAMETERS), len(PARAMETERS)))
    covariance[np.ix_(free, free)] = robust_covariance(
        jacobian, weight, residual, 1.0 / prior.sigma[free] ** 2, classes.probability[FOLLOWS]
    )
    return ChannelFit(
        section, reference_x_um, theta, covariance, prior, tracks, expected, residual, variance, jacobian,
        classes, settled,
    )  # fmt: skip


def _check_tracks(tracks: TrackVelocities, prior: Prior) -> None:
    """Raises `ConfigurationError` for tracks at rest, and for heights that are not those of the section."""
    if not tracks.velocity_um_s[0].any():
        raise ConfigurationError(
            f"none of the {len(tracks)} trajectories moves along x: there is no flow to fit; check the table that "
            "they come from"
        )
    low, high = np.percentile(tracks.position_um[2], (5.0, 95.0))
    depth_um = float(prior.value[DEPTH])
    if not LEAST_DEPTHS * depth_um <= high - low <= MOST_DEPTHS * depth_um:
        raise ConfigurationError(
            f"the trajectories are at heights of {low:.4g} to {high:.4g} um in a channel that is {depth_um:g} um "
            "deep; give the section in um, and trajectories with depths in um"
        )


def expected_fit(
    tracks: TrackVelocities,
    section: Section,
    prior: Prior,
    theta: FloatArray,
    count: FloatArray,
    reference_x_um: float,
) -> ChannelFit:
    """The fit that `fit_channel` ends with if the flow is `theta` (10,) and each track comes `count` (M,) times.

    Of the tracks' velocities only the standard errors matter; the covariance is the inverse of the Fisher
    information.
    """
    expected = expected_velocity(section, theta, reference_x_um, tracks)
    variance = tracks.velocity_sigma_um_s**2 + expected.shear_variance
    jacobian = _jacobian(section, theta, reference_x_um, tracks, expected, prior.free)
    residual = np.zeros_like(variance)
    curvature, _ = _normal_equations(jacobian, count / variance, residual, prior, theta, prior.free)
    covariance = np.zeros((len(PARAMETERS), len(PARAMETERS)))
    covariance[np.ix_(prior.free, prior.free)] = safe_inverse(curvature)
    all_follow = np.zeros((len(FIRST_SHARES), len(tracks)))
    all_follow[FOLLOWS] = 1.0
    classes = Classes(all_follow, all_follow.mean(axis=1), np.ones(3))
    return ChannelFit(
        section, reference_x_um, theta, covariance, prior, tracks, expected, residual, variance, jacobian, classes,
        True,
    )  # fmt: skip


def _state(
    section: Section, theta: FloatArray, reference_x_um: float, tracks: TrackVelocities
) -> tuple[Expected, FloatArray, FloatArray, Classes]:
    """What is expected with these parameters, residuals, their variances, and the classes."""
    expected = expected_velocity(section, theta, reference_x_um, tracks)
    own = tracks.velocity_sigma_um_s**2
    residual = tracks.velocity_um_s - expected.velocity_um_s
    variance = own + expected.shear_variance
    return expected, residual, variance, classify(residual, variance, tracks.velocity_um_s, own)


def difference_of(theta: FloatArray, parameter: int) -> float:
    """Step of a parameter for a numerical derivative."""
    if parameter == VELOCITY:
        return 1e-3 * (abs(float(theta[VELOCITY])) or 1.0)
    if parameter in (YAW, PITCH, ROLL):
        return 1e-3
    if parameter == INDEX:
        return 1e-2
    return 1e-4 * float(min(theta[WIDTH], theta[DEPTH]))


def _jacobian(
    section: Section,
    theta: FloatArray,
    reference_x_um: float,
    tracks: TrackVelocities,
    expected: Expected,
    free: npt.NDArray[np.int64],
) -> FloatArray:
    """Derivative of the expected velocities, (3, M, free), at the expected places.

    What the place's error adds is held: it changes the derivative by a part of its second order.
    """
    place = place_in_image(theta, reference_x_um, tracks, expected)

    here = velocity_at(section, theta, reference_x_um, place)
    columns = []
    for parameter in free:
        moved = theta.copy()
        moved[parameter] += difference_of(theta, int(parameter))
        there = velocity_at(section, moved, reference_x_um, place)
        columns.append((there - here) / difference_of(theta, int(parameter)))
    return np.stack(columns, axis=-1)


def place_in_image(
    theta: FloatArray, reference_x_um: float, tracks: TrackVelocities, expected: Expected
) -> FloatArray:
    """The expected places of the tracks in the image's axes, (3, M)."""
    local = in_section(theta, reference_x_um, tracks.position_um)
    local[1:] = expected.place_um
    origin = np.array([reference_x_um, theta[CENTER], theta[FLOOR]])
    place: FloatArray = axes_of(theta) @ local + origin[:, None]
    return place


def _normal_equations(
    jacobian: FloatArray,
    weight: FloatArray,
    residual: FloatArray,
    prior: Prior,
    theta: FloatArray,
    free: npt.NDArray[np.int64],
) -> tuple[FloatArray, FloatArray]:
    weighted = jacobian * weight[..., None]
    curvature = np.tensordot(weighted, jacobian, ((0, 1), (0, 1)))
    pull = np.tensordot(weighted, residual, ((0, 1), (0, 1)))
    confidence = 1.0 / prior.sigma[free] ** 2
    known = np.where(confidence > 0, prior.value[free] - theta[free], 0.0)
    return curvature + np.diag(confidence), pull + confidence * known


def _cost(residual: FloatArray, weight: FloatArray, theta: FloatArray, prior: Prior) -> float:
    known = np.isfinite(prior.sigma) & (prior.sigma > 0)
    off = (theta - prior.value)[known] / prior.sigma[known]
    return float((weight * residual**2).sum() + (off**2).sum())


def _shortened(step: FloatArray, theta: FloatArray) -> float:
    """The share of a step that goes no farther than a linear model can be trusted."""
    size = SHARE_OF_SIZE * min(theta[WIDTH], theta[DEPTH])
    farthest = np.full(len(PARAMETERS), math.inf)
    farthest[[WIDTH, DEPTH, CENTER, FLOOR, SLIP]] = size
    farthest[[YAW, PITCH, ROLL]] = FARTHEST_TURN_DEG
    farthest[INDEX] = FARTHEST_INDEX * min(theta[INDEX], 1.0)
    return float(min(1.0, 1.0 / max(np.max(np.abs(step) / farthest), 1e-300)))
