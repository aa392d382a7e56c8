"""What the flows of a region give to each track, where its place is known only nearly and changes along its
path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, diags_array

from tracking.physics.channel.model import within_walls
from tracking.physics.region.stokes import Domain
from tracking.physics.tracks.velocities import TrackVelocities

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


def places_of(domain: Domain, tracks: TrackVelocities) -> Places:
    """The places of tracks in the region.

    As in `tracking.physics.channel.model.expected_velocity`, points one standard deviation to either side along
    each axis do the mean over the possible places within the walls, to second order. Two more on the line that the
    particle moved along, at 1 / sqrt(12) of it before and behind the middle, do the mean over its path (Gauss;
    exact for a velocity that is cubic along it)."""
    spans = domain.region.spans_um(tracks.position_um)
    place, variance = within_walls(tracks.position_um, tracks.position_sigma_um**2, spans)
    reach = np.minimum(place - spans[:, 0], spans[:, 1] - place)
    wander = tracks.spread_um2
    step = np.minimum(np.sqrt(variance + wander), np.maximum(reach, 0.0))
    here, _ = domain.interpolation(place)
    mean = here.copy()
    slopes = []
    for axis in range(3):
        to = np.zeros_like(place)
        to[axis] = step[axis]
        before, behind = _pair(domain, place, to, here)
        mean = mean + (before + behind) / 2.0 - here
        slopes.append(csr_array((behind - before) / 2.0))
    moved = tracks.velocity_um_s * tracks.duration_s / np.sqrt(12.0)
    moved[2] = 0.0  # along z the errors are larger than what the flow of such a region does
    before, behind = _pair(domain, place, moved, here)
    mean = mean + (before + behind) / 2.0 - here
    both = variance + wander
    blur = np.divide(variance, both, out=np.zeros_like(both), where=variance > 0)
    return Places(place, csr_array(mean), (slopes[0], slopes[1], slopes[2]), blur)


def _pair(domain: Domain, place: FloatArray, to: FloatArray, here: csr_array) -> tuple[csr_array, csr_array]:
    """The matrices of the places to both sides; of the place itself where either is outside the region."""
    (before, known), (behind, also) = (domain.interpolation(place + sign * to) for sign in (-1.0, 1.0))
    both = diags_array((known & also).astype(np.float64))
    neither = diags_array((~(known & also)).astype(np.float64)) @ here
    return csr_array(both @ before + neither), csr_array(both @ behind + neither)
