"""The flow of a straight channel during a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError
from stream.messages import Tracks
from tracking.analysis.robust import robust_sigma
from tracking.physics.channel.classes import FOLLOWS, classify
from tracking.physics.channel.derived import with_errors
from tracking.physics.channel.fit import FEWEST_FOR_EACH, ChannelFit, fit_channel, place_in_image
from tracking.physics.channel.misfit import Misfit, misfit
from tracking.physics.channel.model import Expected, axes_of, expected_velocity, velocity_at
from tracking.physics.channel.parameters import UNKNOWN, VELOCITY, Prior
from tracking.physics.live.cells import Cells
from tracking.physics.live.pump_history import PumpHistory
from tracking.physics.live.running_tracks import LONGEST_S, RunningTracks
from tracking.physics.sections.shapes import Section
from tracking.physics.tracks.velocities import TrackVelocities, joined

FloatArray = npt.NDArray[np.float64]

FIRST_TRACKS = 60
"""Ended tracks from which the first fit is made; the later ones are judged by it."""
STEPS = 1
"""Steps of the fit at each update, from the last one; the walls are known better than a step is wrong soon."""
SETTLE_S = 2.0
"""Time after a change of the pump in which tracks do not count, s: pumps and hoses take that long."""
SIGNIFICANCE = 5.0
"""Standard errors by which a velocity must differ from 0, or new tracks from the fit, before it is told: one chance
in a million a look."""
CHANGED = 0.02
"""Difference of the new tracks from the fit, relative, from which on the flow counts as another one although the
pump was not changed. Depths of a detector that are wrong by 1 um in a channel of 100 um look like 1 % of it."""
CARRIED = 2.0
"""Standard errors with which walls and direction are carried over to another flow, over those that were found: the
last tracks of a flow may have seen the next one already. At 1 such an error would stay for the run; a higher value
only costs the time to find the walls anew."""
FAST = 0.3
"""Only where the flow has this part of its maximum is it compared: near the walls a ratio says little."""
FEWEST = 20
"""Tracks that are compared at least: the scatter of fewer says too little of its own error."""
MOST = 400
"""Tracks that are compared at most: their mean is known to a part in 500 then, and more only cost time."""
SOME = 50
"""Of their places at which the fit's error is taken: it differs little between them."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What came in since the last one: velocities at the reference set-point, `None` if there were none.

    `anew`: the flow has changed before these; `from_s` is since when they are counted.
    """

    time_s: float
    from_s: float
    anew: bool
    tracks: TrackVelocities | None


class LiveChannel:
    """Takes in every `Tracks` message; `update`, about once a second, gives the fit so far.

    `diffusion_um2_s` is that of the particles; `memory_s` how long the flow stays what it is. Tracks come in when
    they end, or every `longest_s`. Of tracks that have come in, only sums in cells over the section are kept, so
    that the cost does not grow.

    When the pump's set-point changes by more than `ANOTHER_FLOW`, or new tracks show another flow, the fit begins
    anew: what is known of walls and direction stays, with twice its errors; the velocity is not known then. Smaller
    changes of the set-point scale the velocities.

    `update` is `renew(collect())`; `renew` may run in another thread than `take_in` and `collect`.
    """

    def __init__(
        self,
        section: Section,
        prior: Prior,
        diffusion_um2_s: float,
        *,
        refraction_factor: float = 1.0,
        memory_s: float = math.inf,
        settle_s: float = SETTLE_S,
        longest_s: float = LONGEST_S,
        reference_x_um: float | None = None,
    ) -> None:
        self._reference_x_um = reference_x_um
        self._section, self._prior, self._memory_s = section, prior, memory_s
        self._settle_s = settle_s
        self._running = RunningTracks(
            diffusion_um2_s, refraction_factor=refraction_factor, longest_s=longest_s
        )
        self.pump = PumpHistory()
        self._anew = self._has_changed = False
        self._from_s = self._settled_s = -math.inf
        self._begun = prior
        self._waiting: list[TrackVelocities] = []
        self._cells: Cells | None = None
        self._time_s = self._renewed_s = math.nan
        self.fit: ChannelFit | None = None
        self.from_s = -math.inf
        self.tracks = 0

    def warmup(self) -> None:
        """Compile, or load what was compiled before. Before the first frame."""
        self._running.warmup()

    def take_in(self, tracks: Tracks) -> None:
        """Take in the tracks of one frame."""
        now_s = self._time_s = tracks.info.time_s
        if math.isinf(self._from_s):
            self._from_s = now_s
        if self.pump.see(now_s, tracks.info.flow_ul_s):
            self._begin_anew(now_s + self._settle_s)
        if now_s >= self._settled_s and not self.pump.rests:
            self._running.take_in(tracks)

    def follow_diffusion(self, diffusion_um2_s: float) -> None:
        """Use another diffusion coefficient from now on; it is in the weights only."""
        self._running.diffusion_um2_s = diffusion_um2_s

    def _begin_anew(self, settled_s: float) -> None:
        self._running.drop()
        self._anew = True
        self._from_s = self._settled_s = settled_s

    def collect(self) -> Batch:
        """What has come in since the last call."""
        if self._has_changed:
            self._has_changed = False
            self._begin_anew(self._time_s)
        ended, anew, self._anew = self._running.ended(), self._anew, False
        new = self._at_reference(ended) if len(ended) else None
        return Batch(self._time_s, self._from_s, anew, new)

    def _at_reference(self, tracks: TrackVelocities) -> TrackVelocities:
        """The tracks' velocities as they would be at the reference set-point."""
        half_s = tracks.duration_s / 2.0
        factor = self.pump.factors(tracks.time_s - half_s, tracks.time_s + half_s)
        return replace(
            tracks,
            velocity_um_s=tracks.velocity_um_s / factor,
            velocity_sigma_um_s=tracks.velocity_sigma_um_s / np.abs(factor),
        )

    def update(self) -> ChannelFit | None:
        """Take in what has ended since, and fit; None as long as there are too few tracks."""
        return self.renew(self.collect())

    def renew(self, batch: Batch) -> ChannelFit | None:
        """Take in a batch, and fit; None as long as there are too few tracks."""
        if batch.anew:
            self._forget_velocity()
        self.from_s = batch.from_s
        elapsed_s = batch.time_s - self._renewed_s
        if self._cells is not None and elapsed_s > 0:
            self._cells.forget(elapsed_s, self._memory_s)
        self._renewed_s = batch.time_s
        if batch.tracks is None:
            return self.fit
        new = joined([*self._waiting, batch.tracks])
        if self._cells is None:
            fewest = max(FIRST_TRACKS, FEWEST_FOR_EACH * self._prior.free.size)
            self._waiting = [new]
            if len(new) < fewest or not self._begin(new):
                return None
        elif not self._add(new, self.fit):
            return self.fit
        self._waiting = []
        self._refit()
        return self.fit

    def _forget_velocity(self) -> None:
        """Begin anew with what is known of walls and direction."""
        fit = self.fit
        if fit is not None and moves(fit):
            free = fit.prior.free[fit.prior.free != VELOCITY]
            value, sigma = self._prior.value.copy(), self._prior.sigma.copy()
            told = free[np.diag(fit.covariance)[free] > 0]
            value[told] = fit.theta[told]
            sigma[told] = np.minimum(
                CARRIED * np.sqrt(np.diag(fit.covariance)[told]), self._prior.sigma[told]
            )
            value[VELOCITY], sigma[VELOCITY] = math.nan, UNKNOWN
            self._begun = Prior(value, sigma)
        self.fit, self._cells, self._waiting, self.tracks = None, None, [], 0

    def misfit(self) -> Misfit | None:
        """Whether the flow is another one than the model's, by what is known so far."""
        return None if self.fit is None else misfit(self.fit)

    def told(self, fit: ChannelFit, name: str) -> bool:
        """Whether the run says more of a parameter than was known before it."""
        return replace(fit, prior=self._prior).told(name)

    def _begin(self, tracks: TrackVelocities) -> bool:
        try:
            first = fit_channel(tracks, self._section, self._begun, reference_x_um=self._reference_x_um)
        except ConfigurationError:  # too few of them have a place and a velocity
            return False
        self.fit, self._reference_x_um = first, first.reference_x_um
        place = place_in_image(first.theta, first.reference_x_um, first.tracks, first.expected)
        width, depth = first.value("width_um"), first.value("depth_um")
        reach = np.array([0.0, width / 2.0, depth / 2.0])
        middle = place.mean(axis=1)
        middle[1] = first.value("center_y_um")
        middle[2] = first.value("floor_um") + depth / 2.0
        reach[0] = max(float(np.ptp(place[0])) / 2.0, 1e-3)
        self._cells = Cells(middle - reach, middle + reach)
        self._add(tracks, first)
        return True

    def _add(self, tracks: TrackVelocities, fit: ChannelFit | None) -> bool:
        """Add tracks to the cells; False if they show another flow, and are left out."""
        assert fit is not None
        assert self._cells is not None
        expected = expected_velocity(fit.section, fit.theta, fit.reference_x_um, tracks)
        place = place_in_image(fit.theta, fit.reference_x_um, tracks, expected)
        if self.tracks and differs(fit, tracks, expected, place):
            self._has_changed = True
            return False
        own = tracks.velocity_sigma_um_s**2
        variance = own + expected.shear_variance
        residual = tracks.velocity_um_s - expected.velocity_um_s
        follows = classify(residual, variance, tracks.velocity_um_s, own).probability[FOLLOWS]
        self._cells.add(tracks, place, tracks.position_sigma_um**2, variance, follows)
        self.tracks += len(tracks)
        return True

    def _refit(self) -> None:
        assert self.fit is not None
        assert self._cells is not None
        cells = self._cells.merged()
        if len(cells) < FEWEST_FOR_EACH * self._prior.free.size:
            return
        self.fit = fit_channel(
            cells, self._section, self._begun, start=self.fit.theta, reference_x_um=self.fit.reference_x_um,
            steps=STEPS,
        )  # fmt: skip


def moves(fit: ChannelFit) -> bool:
    """Whether there is a flow: the velocity is known, and not 0."""
    return abs(fit.value("velocity_um_s")) > SIGNIFICANCE * fit.standard_error("velocity_um_s") > 0


def differs(fit: ChannelFit, tracks: TrackVelocities, expected: Expected, place_um: FloatArray) -> bool:
    """Whether tracks show another flow than the fit: by more than `CHANGED` and than chance and its error allow.

    `place_um` (3, M) are the expected places in the image's axes.
    """
    along = axes_of(fit.theta)[:, 0]
    model = along @ expected.velocity_um_s
    fast = np.flatnonzero(np.abs(model) > FAST * np.abs(model).max(initial=0.0))
    if fast.size < FEWEST or not moves(fit):
        return False
    fast = fast[:: max(fast.size // MOST, 1)]
    ratio = (along @ tracks.velocity_um_s)[fast] / model[fast]
    own = math.sqrt(math.pi / 2.0) * robust_sigma(ratio) / math.sqrt(fast.size)

    some = place_um[:, fast[:: max(fast.size // SOME, 1)]]

    def mean_speed(theta: FloatArray) -> FloatArray:
        speed = velocity_at(fit.section, theta, fit.reference_x_um, some)
        return np.array((along @ speed).mean())

    value, error = with_errors(fit, mean_speed)
    sigma = math.hypot(own, float(error) / max(abs(float(value)), 1e-300))
    return abs(float(np.median(ratio)) - 1.0) > max(CHANGED, SIGNIFICANCE * sigma)
