"""Follows a run's flow beside its other work: takes in every frame, and fits in a thread of its own."""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from stream.messages import FrameInfo, Tracks
from tracking.physics.channel.fit import ChannelFit
from tracking.physics.channel.parameters import VELOCITY, Prior
from tracking.physics.live.channel import Batch, LiveChannel, moves
from tracking.physics.live.findings import FlowFindings, Number
from tracking.physics.live.running_diffusion import LOOKS, RunningDiffusion
from tracking.physics.live.telling import Look, findings_of, look_at
from tracking.physics.sections.shapes import Section

PERIOD_S = 1.0
"""Time between two fits, s. Shorter costs in proportion (12 CPU-ms a fit) and says little more: a fit is of the
flow of seconds."""
OLD_S = 20.0
"""Since when a flow must be counted for a fit every second time only: one more second then changes its standard
error by 2 %."""
LOOK_S = 3.0
"""Time between two looks at whether the flow is another one than the model's, s, which cost as much as a fit. One
is made of the first fit, and after each change of the flow: what is wrong with a channel is told at once, what
comes to be wrong with it so much later."""
LONG_PERIOD_S = 10.0
"""Time between two longer looks, s, which only say whether errors along y last; each costs 8 CPU-ms."""
WITHOUT_DIFFUSION_S, WITHOUT_DIFFUSION_FRAMES = 2.0, 12
"""How long to wait for the first diffusion coefficient, s and frames of a slow camera; then tracks are taken in
with 0 until it is known. It is in the weights only, and a quarter or four times of it is as good (after
9 s errors are 0.98 to 1.04 of the stated ones, 24 seeds; after 2 s 1.2, as tracks are few); but with 0 the few
longest tracks decide: 1.3, and 1.17 after 9 s."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveFlow:
    """The newest fit, at the present set-point, and all that follows from it."""

    fit: ChannelFit
    findings: FlowFindings
    viscosity_pa_s: float | None
    refraction_factor: float = 1.0


class FlowFollower:
    """Give it every frame's tracks; `poll` gives each new fit once.

    Taking in a frame costs 0.7 ms with 2,000 tracks alive; the fit, its tests and what follows run in a thread, for
    which nothing waits. `in_thread=False`: fits at once, for runs in simulated time.
    """

    def __init__(
        self,
        section: Section,
        prior: Prior,
        *,
        viscosity_pa_s: float | None = None,
        refraction_factor: float = 1.0,
        memory_s: float = math.inf,
        settle_s: float = 0.0,
        in_thread: bool = True,
    ) -> None:
        self._viscosity_pa_s, self._factor = viscosity_pa_s, refraction_factor
        self._channel = LiveChannel(
            section, prior, 0.0, refraction_factor=refraction_factor, memory_s=memory_s, settle_s=settle_s
        )
        self._diffusion = RunningDiffusion(refraction_factor, long_period_s=LONG_PERIOD_S)
        self._channel.warmup()
        self._diffusion.warmup()
        self._knows_diffusion = False
        # Across the flow: along it, particles that diffuse between layers of different velocity spread more, by a
        # part of (shear rate * time)^2 / 3 of D, as much as D itself near a wall.
        self._diffusion_um2_s = math.nan, math.nan
        self._y_um: tuple[float, float] | None = None
        self._began_s = self._due_s = math.nan
        self._frames = 0
        self._info: FrameInfo | None = None
        self._looked: Look | None = None
        self._looked_from_s = self._look_s = math.nan
        self._worker = ThreadPoolExecutor(1, "liveptv-flow") if in_thread else None
        self._running: Future[LiveFlow | None] | None = None
        self._found: LiveFlow | None = None

    def take_in(self, tracks: Tracks) -> None:
        """Take in the tracks of one frame, and begin a fit when one is due. What went wrong in one is raised."""
        info = self._info = tracks.info
        if math.isnan(self._began_s):
            self._began_s, self._due_s = info.time_s, info.time_s + PERIOD_S
        self._frames += 1
        self._diffusion.update(tracks)
        waited = info.time_s - self._began_s > WITHOUT_DIFFUSION_S and self._frames > WITHOUT_DIFFUSION_FRAMES
        if self._knows_diffusion or waited:
            self._channel.take_in(tracks)
        self._take_result()
        if info.time_s >= self._due_s and self._running is None:
            old = info.time_s - self._channel.from_s > OLD_S
            self._due_s = info.time_s + (2.0 if old else 1.0) * PERIOD_S
            self._widen(tracks)
            self._begin(info)

    def poll(self) -> LiveFlow | None:
        """The fit that was made since the last call, if there is one."""
        self._take_result()
        found, self._found = self._found, None
        return found

    def finish(self) -> LiveFlow | None:
        """The last fit, with all that has come in; waits for it."""
        if self._info is not None:
            if self._running is not None:
                self._running.result()
            self._take_result()
            self._begin(self._info, looks=1)
            if self._running is not None:
                self._running.result()
        return self.poll()

    def close(self) -> None:
        """End the thread; a fit that is being made is not waited for. Idempotent."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)

    def _begin(self, info: FrameInfo, *, looks: int = LOOKS) -> None:
        batch = self._channel.collect()
        pump = self._channel.pump
        factor, set_point = pump.factor, pump.now_ul_s
        work = partial(self._renew, batch, info, factor, set_point, looks)
        if self._worker is None:
            self._found = work() or self._found
        else:
            self._running = self._worker.submit(work)

    def _take_result(self) -> None:
        if self._running is not None and self._running.done():
            done, self._running = self._running, None
            self._found = done.result() or self._found

    def _widen(self, tracks: Tracks) -> None:
        """Note over which y there are tracks."""
        y = tracks.y_um[np.isfinite(tracks.y_um)]
        if y.size:
            low, high = self._y_um or (math.inf, -math.inf)
            self._y_um = min(low, float(y.min())), max(high, float(y.max()))

    def _renew(
        self, batch: Batch, info: FrameInfo, factor: float, set_point_ul_s: float, fresh_looks: int
    ) -> LiveFlow | None:
        """Fit, test, and tell. In the thread."""
        looks = self._diffusion.renewed(fresh_looks)
        if looks is not None:
            across = self._diffusion.along_y(looks)
            self._diffusion_um2_s = across.um2_s, across.error_um2_s
            if math.isfinite(across.in_weights_um2_s):
                self._knows_diffusion = True
                self._channel.follow_diffusion(across.in_weights_um2_s)
        d, error = self._diffusion_um2_s
        fit = self._channel.renew(batch)
        if fit is None or self._y_um is None or not moves(fit):
            return None
        from_s = self._channel.from_s
        if self._looked is None or self._looked_from_s != from_s or info.time_s >= self._look_s:
            self._looked, self._looked_from_s, self._look_s = look_at(fit), from_s, info.time_s + LOOK_S
        now = at_flow(fit, factor)
        findings = findings_of(
            now,
            self._looked,
            self._viscosity_pa_s,
            self._y_um,
            told=lambda name: self._channel.told(fit, name),
            frame=info.frame,
            time_s=info.time_s,
            from_s=from_s,
            tracks=self._channel.tracks,
            set_point_ul_s=set_point_ul_s if math.isfinite(set_point_ul_s) else None,
            diffusion_um2_s=Number(d, error) if math.isfinite(d) and math.isfinite(error) else None,
        )
        return LiveFlow(now, findings, self._viscosity_pa_s, self._factor)


def at_flow(fit: ChannelFit, factor: float) -> ChannelFit:
    """The fit of a flow that is so many times faster, with its errors; residuals are as they were."""
    theta, covariance = fit.theta.copy(), fit.covariance.copy()
    theta[VELOCITY] *= factor
    covariance[VELOCITY] *= factor
    covariance[:, VELOCITY] *= factor
    return replace(fit, theta=theta, covariance=covariance)
