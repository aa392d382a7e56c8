"""The flow of a straight channel during a run."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from stream.messages import Tracks
from tracking.physics.channel.classes import FOLLOWS, classify
from tracking.physics.channel.fit import FEWEST_FOR_EACH, ChannelFit, fit_channel, place_in_image
from tracking.physics.channel.misfit import Misfit, misfit
from tracking.physics.channel.model import expected_velocity
from tracking.physics.channel.parameters import Prior
from tracking.physics.live.cells import Cells
from tracking.physics.live.running_tracks import LONGEST_S, RunningTracks
from tracking.physics.sections.shapes import Section
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

FIRST_TRACKS = 60
"""Ended tracks from which the first fit is made; the later ones are judged by it."""
STEPS = 1
"""Steps of the fit at each update, from the last one; the walls are known better than a step is wrong soon."""


class LiveChannel:
    """Takes in every `Tracks` message; `update`, about once a second, gives the fit so far.

    `diffusion_um2_s` is that of the particles; `memory_s` how long the flow stays what it is. Tracks come in when
    they end, or every `longest_s`. Of tracks that have come in, only sums in cells over the section are kept, so
    that the cost does not grow.
    """

    def __init__(
        self,
        section: Section,
        prior: Prior,
        diffusion_um2_s: float,
        *,
        refraction_factor: float = 1.0,
        memory_s: float = math.inf,
        longest_s: float = LONGEST_S,
        reference_x_um: float | None = None,
    ) -> None:
        self._reference_x_um = reference_x_um
        self._section, self._prior, self._memory_s = section, prior, memory_s
        self._running = RunningTracks(
            diffusion_um2_s, refraction_factor=refraction_factor, longest_s=longest_s
        )
        self._waiting: list[TrackVelocities] = []
        self._cells: Cells | None = None
        self._time_s = self._updated_s = math.nan
        self.fit: ChannelFit | None = None
        self.tracks = 0

    def take_in(self, tracks: Tracks) -> None:
        """Take in the tracks of one frame."""
        self._running.take_in(tracks)
        self._time_s = tracks.info.time_s

    def update(self) -> ChannelFit | None:
        """Take in what has ended since, and fit; None as long as there are too few tracks."""
        self._waiting += self._running.ended()
        elapsed_s = self._time_s - self._updated_s
        if self._cells is not None and elapsed_s > 0:
            self._cells.forget(elapsed_s, self._memory_s)
        self._updated_s = self._time_s
        if not self._waiting:
            return self.fit
        new = joined(self._waiting)
        if self._cells is None:
            fewest = max(FIRST_TRACKS, FEWEST_FOR_EACH * self._prior.free.size)
            if len(new) < fewest:
                self._waiting = [new]
                return None
            self._begin(new)
        else:
            self._add(new, self.fit)
        self._waiting = []
        self._refit()
        return self.fit

    def misfit(self) -> Misfit | None:
        """Whether the flow is another one than the model's, by what is known so far."""
        return None if self.fit is None else misfit(self.fit)

    def _begin(self, tracks: TrackVelocities) -> None:
        first = fit_channel(tracks, self._section, self._prior, reference_x_um=self._reference_x_um)
        self.fit = first
        place = place_in_image(first.theta, first.reference_x_um, first.tracks, first.expected)
        width, depth = first.value("width_um"), first.value("depth_um")
        reach = np.array([0.0, width / 2.0, depth / 2.0])
        middle = place.mean(axis=1)
        middle[1] = first.value("center_y_um")
        middle[2] = first.value("floor_um") + depth / 2.0
        reach[0] = max(float(np.ptp(place[0])) / 2.0, 1e-3)
        self._cells = Cells(middle - reach, middle + reach)
        self._add(tracks, first)

    def _add(self, tracks: TrackVelocities, fit: ChannelFit | None) -> None:
        assert fit is not None
        assert self._cells is not None
        expected = expected_velocity(fit.section, fit.theta, fit.reference_x_um, tracks)
        own = tracks.velocity_sigma_um_s**2
        variance = own + expected.shear_variance
        residual = tracks.velocity_um_s - expected.velocity_um_s
        follows = classify(residual, variance, tracks.velocity_um_s, own).probability[FOLLOWS]
        place = place_in_image(fit.theta, fit.reference_x_um, tracks, expected)
        self._cells.add(tracks, place, tracks.position_sigma_um**2, variance, follows)
        self.tracks += len(tracks)

    def _refit(self) -> None:
        assert self.fit is not None
        assert self._cells is not None
        cells = self._cells.merged()
        if len(cells) < FEWEST_FOR_EACH * self._prior.free.size:
            return
        self.fit = fit_channel(
            cells, self._section, self._prior, start=self.fit.theta, reference_x_um=self.fit.reference_x_um,
            steps=STEPS,
        )  # fmt: skip


def joined(parts: list[TrackVelocities]) -> TrackVelocities:
    """All tracks of several parts (at least one)."""
    return TrackVelocities(
        *(np.concatenate([getattr(part, f.name) for part in parts], axis=-1) for f in fields(TrackVelocities))
    )
