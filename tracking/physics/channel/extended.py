"""Do slip or another flow index say what the data say better than the plain model, and which of them?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, norm

from tracking.physics.channel.classes import FOLLOWS
from tracking.physics.channel.fit import ChannelFit, fit_channel
from tracking.physics.channel.misfit import Misfit, misfit
from tracking.physics.channel.parameters import PARAMETERS, UNKNOWN, Prior

FloatArray = npt.NDArray[np.float64]

NAMED = ("slip_um", "flow_index")
"""Parameters that may explain why the flow is not the plain one."""
OTHER, EITHER = "other", "either"
Reason = Literal["slip_um", "flow_index", "other", "either"]
SURE = 0.01
"""Probability that of two explanations that are equally far from the truth one is named."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The fit with one more parameter, and how much better it is than the plain one.

    `gain` (M,) is the logarithm of each track's likelihood with the parameter over that without, for normal errors
    with the dispersion of the richer model; `log_likelihood_ratio` their sum, and `p` the probability of at least
    that by chance.
    """

    name: str
    fit: ChannelFit
    gain: FloatArray
    log_likelihood_ratio: float
    p: float


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why a flow is not the plain one.

    `reason` is the parameter that explains it; `EITHER` if both do, and the tracks do not tell which; `OTHER` if
    with neither the rest is chance.
    """

    reason: Reason
    comparisons: tuple[Comparison, ...]


def with_one_more(plain: ChannelFit, name: str) -> Comparison:
    """Fit once more with `slip_um` or `flow_index` (or any other fixed parameter) unknown.

    Both models are compared with the weights of the plain one (errors and classes of the tracks).
    """
    index = PARAMETERS.index(name)
    sigma = plain.prior.sigma.copy()
    sigma[index] = UNKNOWN
    prior = Prior(plain.prior.value, sigma)
    richer = fit_channel(
        plain.tracks, plain.section, prior, start=plain.theta, reference_x_um=plain.reference_x_um
    )
    weight = plain.classes.probability[FOLLOWS] / plain.variance
    square = np.maximum(
        (weight * richer.residual_um_s**2).sum(axis=1) / plain.classes.probability[FOLLOWS].sum(), 1e-300
    )
    gain = (weight / square[:, None] * (plain.residual_um_s**2 - richer.residual_um_s**2)).sum(axis=0) / 2.0
    ratio = float(gain.sum())
    return Comparison(name, richer, gain, ratio, float(chi2.sf(max(2.0 * ratio, 0.0), 1)))


def explanation(plain: ChannelFit, tests: Misfit, *, sure: float = SURE) -> Explanation | None:
    """Why the flow is not the plain one; None if `tests`, those of the plain fit, tell nothing.

    Each of `NAMED` that the plain fit has fixed is fitted. Those with which the residuals still are not chance are
    out; of two that are left, the likelier one is named if it is so by more than chance (Vuong, Econometrica 57,
    307, 1989: neither model is a part of the other, and neither has to be true).
    """
    fixed = [name for name in NAMED if plain.prior.sigma[PARAMETERS.index(name)] == 0]
    if not tests.told or not fixed:
        return None
    found = tuple(with_one_more(plain, name) for name in fixed)
    left = [one for one in found if one.p < sure and not misfit(one.fit).told]
    if not left:
        return Explanation(OTHER, found)
    left.sort(key=lambda one: -one.log_likelihood_ratio)
    if len(left) == 1:
        return Explanation(_named(left[0]), found)
    more = left[0].gain - left[1].gain
    p = float(norm.sf(more.sum() / max(float(more.std()) * np.sqrt(more.size), 1e-300)))
    return Explanation(_named(left[0]) if p < sure / 2.0 else EITHER, found)


def _named(one: Comparison) -> Reason:
    return "slip_um" if one.name == "slip_um" else "flow_index"
