"""The table of a frame from its corrected particles and from what the network has found beside them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engines.prediction.correction import Corrected
from engines.prediction.finds import Group, group_of, owners, unseen
from engines.prediction.tiles import inside
from engines.refine.arguments import BoolArray, Float32Array, FloatArray
from engines.refine.fitting import fit_particles
from engines.refine.refiner import NETWORK_SEARCH_UM, Fitted, Refiner, confidence_of
from engines.refine.rendering import A
from engines.refine.sample import with_misfit
from engines.refine.turns import Allowance
from engines.refine.typical import sample_of
from stream.messages import Detections

SIGMA_Z, CONFIDENCE, FLAGS = (
    Detections.COLUMNS.index(name) for name in ("sigma_z_um", "confidence", "flags")
)


class Reading(NamedTuple):
    """What the network says of parts of a frame: tables (columns, N) of what it reports and of its `doubts`, local.

    `read` (h, w) are the blocks that it knows, `pixels` how many it has read.
    """

    table: FloatArray
    doubts: FloatArray
    read: BoolArray
    pixels: int


class Prepared(NamedTuple):
    """A frame ready to be fitted: contrast (H, W), a work image, the light in grey values, and the noise."""

    contrast: Float32Array
    total: Float32Array
    light: float
    noise: tuple[float, float]


class Merged(NamedTuple):
    """The particles (columns, N) of a frame, local; how many of them were corrected, and how many were ghosts."""

    table: FloatArray
    predicted: int
    ghosts: int


def merged(
    refiner: Refiner,
    prepared: Prepared,
    corrected: Corrected,
    reading: Reading,
    pixel_size_um: float,
    allowed: Allowance,
) -> Merged:
    """The particles of a frame: those that are believed, and what is new of the `reading`, fitted beside them.

    Where nothing of the fit is `allowed`, new particles keep the network's answer, flagged.
    """
    theta, read = corrected.particles.theta, reading.read
    place, thought = refiner.start(reading.table), refiner.start(reading.doubts)
    counts = inside(place, read)
    table, place = reading.table[:, counts], place[counts]
    thought = thought[inside(thought, read)]
    rows = np.flatnonzero(corrected.believed)
    owner = owners(place, theta[rows, :3], corrected.other[rows, 0])
    doubted = owners(thought, theta[rows, :3], corrected.other[rows, 0])
    seen = np.zeros(len(theta), np.bool_)
    for some in (owner, doubted):
        seen[rows[some[some >= 0]]] = True
    gone = unseen(corrected, seen, inside(theta, read))
    corrected = corrected._replace(believed=corrected.believed & ~gone)
    new, shape = np.ascontiguousarray(table[:, owner < 0]), prepared.contrast.shape
    known = table_of(refiner, corrected, prepared.light, shape)
    ghosts, count = int(gone.sum()), known.shape[1]
    if not new.shape[1]:
        return Merged(known, count, ghosts)
    if allowed.is_none:
        return Merged(np.hstack([known, refiner.reduce(new, shape, notes=allowed.notes)]), count, ghosts)
    group = group_of(
        place[owner < 0], new[SIGMA_Z], corrected, (shape[0], shape[1]), refiner.model.for_kernels(shape)
    )
    fitted, there = _fitted(refiner, prepared, corrected, group, new, thought, pixel_size_um)
    kept = np.ones(len(theta), np.bool_)
    kept[group.known] = group.drawn[group.new :]
    return Merged(np.hstack([known[:, kept[corrected.believed]], fitted[:, there]]), count, ghosts)


def table_of(refiner: Refiner, corrected: Corrected, light: float, shape: tuple[int, ...]) -> FloatArray:
    """The table (columns, K) of the believed particles; their confidence is that of particles that the fit
    added."""
    rows = np.flatnonzero(corrected.believed)
    theta, sigma = corrected.particles.theta[rows], corrected.sigma[rows]
    table = np.full((len(Detections.COLUMNS), len(rows)), np.nan)
    fitted = Fitted(theta, sigma, corrected.particles.fit[rows, 0], corrected.other[rows])
    refiner.put_fitted(table, np.ones(len(rows), np.bool_), fitted, light, shape)
    table[CONFIDENCE] = confidence_of(theta[:, A] / sigma[:, A])
    table[FLAGS] = 0.0
    return table


def _fitted(
    refiner: Refiner,
    prepared: Prepared,
    corrected: Corrected,
    group: Group,
    new: FloatArray,
    thought: FloatArray,
    pixel_size_um: float,
) -> tuple[FloatArray, BoolArray]:
    """The table (columns, M) of a group, with particles that the fit adds behind; which are there, drawn ones
    not."""
    theta, covariance, fit, _, _ = corrected.particles
    contrast, total, light, noise = prepared
    mine = np.flatnonzero(corrected.believed)
    sample = sample_of(theta[mine], fit[mine], covariance[mine])
    found = fit_particles(
        contrast,
        refiner.model,
        group.start,
        group.sigma_z_um,
        noise,
        total,
        thought,
        NETWORK_SEARCH_UM,
        refiner.fit_all,
        group.drawn,
        sample,
    )
    given = len(group.start)
    out = np.full((len(Detections.COLUMNS), len(found.theta)), np.nan)
    out[:, : group.new] = with_misfit(new, refiner.model, pixel_size_um, contrast.shape)
    only = np.zeros(len(theta), np.bool_)
    only[group.known] = True
    if len(group.known):
        out[:, group.new : given] = table_of(
            refiner, corrected._replace(believed=only), light, contrast.shape
        )
    what = Fitted(found.theta, found.sigma, found.chi_square, found.other)
    refiner.put_fitted(out, found.accepted, what, light, contrast.shape)
    sure = found.theta[:, A] / found.sigma[:, A]
    out[CONFIDENCE, given:] = confidence_of(sure[given:])
    out[FLAGS, given:] = 0.0
    there = found.present.copy()
    there[:given] &= ~group.drawn
    return out, there
