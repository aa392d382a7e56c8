"""What the flows of a region give to each track, where its place is known only nearly and changes along its
path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, diags_array

from tracking.physics.channel.model import within_walls
from tracking.physics.region.pieces import Pieces
from tracking.physics.region.stokes import Domain

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where M tracks are, as matrices (M, coefficients) of the domain.

    `mean` gives the expected velocity, `slopes` its change over one standard deviation of the place along x, y and
    z; the share (3, M) `blur` of the square of that is variance of the measured velocity. `place_um` (3, M) is the
    expected place."""

    place_um: FloatArray
    mean: csr_array
    slopes: tuple[csr_array, csr_array, csr_array]
    blur: FloatArray

    def variance(self, flow: FloatArray) -> FloatArray:
        """What the places' errors add to the variance of measured velocities, (3, M), (um/s)^2, in a flow given by
        its coefficients (3, K)."""
        added = np.zeros_like(self.blur)
        for slope, share in zip(self.slopes, self.blur, strict=True):
            added += share * (slope @ flow.T).T ** 2
        return added


def places_of(domain: Domain, pieces: Pieces) -> Places:
    """The places of pieces of tracks in the region.

    The flow is averaged over the path that was measured, in x and y. As in
    `tracking.physics.channel.model.expected_velocity`, points one standard deviation to either side along each
    axis do the mean over the possible places within the walls, to second order; along z the particle's own
    wandering too, which the measured heights do not show."""
    tracks = pieces.velocities
    spans = domain.region.spans_um(tracks.position_um)
    place, variance = within_walls(tracks.position_um, tracks.position_sigma_um**2, spans)
    reach = np.minimum(place - spans[:, 0], spans[:, 1] - place)
    wander = tracks.spread_um2 * np.array([[0.0], [0.0], [1.0]])
    step = np.minimum(np.sqrt(variance + wander), np.maximum(reach, 0.0))
    here, _ = domain.interpolation(place)
    mean, slopes = csr_array(here.shape), []
    for path, share in zip(np.moveaxis(pieces.path_um, 1, 0), pieces.share, strict=True):
        there = np.concatenate([path + place[:2] - tracks.position_um[:2], place[2:]])
        matrix, known = domain.interpolation(there)
        mean = mean + diags_array(share * known) @ matrix + diags_array(share * ~known) @ here
    for axis in range(3):
        to = np.zeros_like(place)
        to[axis] = step[axis]
        (before, known), (behind, also) = (domain.interpolation(place + sign * to) for sign in (-1.0, 1.0))
        both = diags_array((known & also).astype(np.float64))  # rounding may leave one outside
        mean = mean + both @ ((before + behind) / 2.0 - here)
        slopes.append(csr_array(both @ (behind - before) / 2.0))
    both_um2 = variance + wander
    blur = np.divide(variance, both_um2, out=np.zeros_like(both_um2), where=variance > 0)
    return Places(place, csr_array(mean), (slopes[0], slopes[1], slopes[2]), blur)
