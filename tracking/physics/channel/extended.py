"""Is a liquid with slip or with another flow index what the data say better than the plain model?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from tracking.physics.channel.classes import FOLLOWS
from tracking.physics.channel.fit import ChannelFit, fit_channel
from tracking.physics.channel.parameters import PARAMETERS, UNKNOWN, Prior


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The fit with one more parameter, and how much better it is than the plain one.

    `log_likelihood_ratio` is the logarithm of the likelihood of the data with the parameter over that without, for
    normal errors with the dispersion of the richer model; `p` the probability of at least that by chance.
    """

    name: str
    fit: ChannelFit
    log_likelihood_ratio: float
    p: float


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
    gain = weight / square[:, None] * (plain.residual_um_s**2 - richer.residual_um_s**2)
    ratio = float(gain.sum()) / 2.0
    return Comparison(name, richer, ratio, float(chi2.sf(max(2.0 * ratio, 0.0), 1)))
