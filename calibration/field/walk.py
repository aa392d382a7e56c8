"""How images walk sideways through a scan: with depth, away from the middle of the field, or all alike.

The centre of particle i in plane k is off its mean place by

    d_ik = G (x_i, y_i) z_ik + p(z_ik) + q(focus_k)     (1)

G is the optics': the magnification changes with depth where the objective is not telecentric. p and q are the same
for the whole field. p goes with depth: an aberration, which belongs to the PSF. q goes with the focus drive: the
stage moves sideways while it moves up. What is curved in p and q can be told apart where the particles lie at
different heights. What is straight cannot, as z is the height less the focus, and each particle's own place is
unknown: `stage` decides it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.field.regression import Residuals

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

SCATTER_PX = 0.05
"""px by which centres scatter beyond noise, as images are not quite like the model: keeps the sharpest images from
deciding alone. Between 0.02 and 0.1 the result changes by less than its standard error."""
DEGREE = 3
"""Degree of p and q: stages and aberrations are smooth."""
HEIGHTS_APART = 0.1
"""Standard deviation of the particles' heights over their largest depth from which p and q are told apart. On a
slide they are the same polynomial but for some um."""
SIGNIFICANT = 4.0
"""Standard errors (jackknife over the particles) above which a walk is believed; there are few numbers to
believe."""
FEWEST = 8
"""Particles from which a walk is looked for: half as many more than there are unknowns beside their places."""
PARTS = 12
"""Groups of particles of the jackknife (Efron 1982): enough for a standard error that is good to 20 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """G (2, 2) in 1/um and the curved part of q (K, 2) in px, with their standard errors.

    `place_px` (N, 2) is how far each particle's place at depth 0 is off the mean place that it had so far.
    """

    per_um: FloatArray
    sigma_per_um: FloatArray
    stage_px: FloatArray
    sigma_stage_px: FloatArray
    place_px: FloatArray

    @property
    def is_optical(self) -> bool:
        """Whether any number of G stands out from its standard error."""
        return bool((np.abs(self.per_um) > SIGNIFICANT * self.sigma_per_um).any())

    @property
    def is_stage(self) -> bool:
        """Whether the curved part of q stands out: its root mean square from that of its standard errors."""
        size = np.sqrt((self.stage_px**2).mean(axis=0))
        return bool((size > SIGNIFICANT * np.sqrt((self.sigma_stage_px**2).mean(axis=0))).any())


def find_walk(
    found: Residuals,
    noise_variance: float,
    depth_um: FloatArray,
    focus_um: FloatArray,
    x_px: FloatArray,
    y_px: FloatArray,
) -> Walk | None:
    """Fit (1) to the changes of place (N, K) of particles at `x_px`, `y_px` (N,) from the middle of the field.

    None for too few particles.
    """
    count = len(x_px)
    if count < FEWEST:
        return None
    shape = depth_um.shape
    middle, half = float(focus_um.mean()), max(float(np.ptp(focus_um)) / 2, 1e-9)
    far = max(float(np.abs(depth_um).max()), 1e-9)
    columns = [x_px[:, None] * depth_um, y_px[:, None] * depth_um]
    columns += [(depth_um / far) ** power for power in range(1, DEGREE + 1)]
    of_focus = ((focus_um - middle) / half)[:, None] ** np.arange(2, DEGREE + 1)
    apart = float(np.std(depth_um[:, 0] + focus_um[0])) > HEIGHTS_APART * far
    of_focus *= apart
    columns += [np.broadcast_to(one, shape) for one in of_focus.T]
    design = np.stack(columns, axis=2)
    parts = np.array_split(np.random.default_rng(0).permutation(count), min(count, PARTS))
    rows, stages, places = [], [], []
    for chosen in (np.arange(count), *(np.setdiff1d(np.arange(count), part) for part in parts)):
        fits = [_fit(found, axis, noise_variance, design, chosen) for axis in (0, 1)]
        both = [one for one, _ in fits]
        places.append(np.stack([place for _, place in fits], axis=1))
        rows.append(np.stack([one[:2] for one in both]))
        stages.append(np.stack([of_focus @ one[1 - DEGREE :] for one in both], axis=1))
    return Walk(
        rows[0],
        _jackknife(rows[1:]),
        stages[0] - stages[0].mean(axis=0),
        _jackknife(stages[1:]),
        places[0],
    )


def _jackknife(without: list[FloatArray]) -> FloatArray:
    parts = np.array(without)
    found: FloatArray = np.sqrt(
        ((parts - parts.mean(axis=0)) ** 2).sum(axis=0) * (len(parts) - 1) / len(parts)
    )
    return found


def _fit(
    found: Residuals, axis: int, noise_variance: float, design: FloatArray, chosen: IndexArray
) -> tuple[FloatArray, FloatArray]:
    """Coefficients (C,) of the columns (N, K, C), and particles' own offsets (M,), by weighted least squares."""
    information = found.information[chosen, :, 1 + axis]
    variance = noise_variance / np.maximum(information, 1e-300) + SCATTER_PX**2
    w = np.where(information > 0, 1.0 / variance, 0.0)
    d, columns = found.change[chosen, :, 1 + axis], design[chosen]
    total = np.maximum(w.sum(axis=1), 1e-300)
    mean_columns, mean = np.einsum("nk,nkc->nc", w, columns) / total[:, None], (w * d).sum(axis=1) / total
    columns, rest = columns - mean_columns[:, None, :], d - mean[:, None]
    scale = np.sqrt(np.einsum("nk,nkc->c", w, columns**2))
    scale = np.where(scale > 0, scale, 1.0)
    normal = np.einsum("nk,nkc,nkd->cd", w, columns, columns, optimize=True) / np.outer(scale, scale)
    right = np.einsum("nk,nkc,nk->c", w, columns, rest, optimize=True) / scale
    solution: FloatArray = np.linalg.lstsq(normal, right, rcond=1e-9)[0] / scale
    return solution, mean - mean_columns @ solution
