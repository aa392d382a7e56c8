"""Hold what follows from the fit of the flow, flow rate or wall shear, with the loop of hold_flow."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from stream.errors import ConfigurationError
from stream.messages import Command, Tracks
from tracking.control.controllers.hold_flow import BEGIN_S, HoldFlow
from tracking.control.controllers.measuring import FloatArray, heights_um
from tracking.control.settings import HoldFlowRateSettings, HoldShearSettings, PumpLoopSettings
from tracking.physics.channel.derived import UM3_PER_UL
from tracking.physics.channel.model import axes_of, flow_of, in_section, section_of
from tracking.physics.channel.parameters import INDEX, VELOCITY
from tracking.physics.live.follower import LiveFlow

FAST = 0.5
"""Only tracks where the flow has at least this part of its maximum count: nearer to a wall an error of depth, or
of where the wall is, weighs more. Of a parabola these are the middle 70 %."""
SAME_TARGET = 0.02
"""Relative change of the velocity that belongs to the target, as the walls become better known, which the loop
corrects by itself; a larger one is a new target, with feed-forward."""


class HoldFitted(HoldFlow, ABC):
    """The loop of `HoldFlow` on the mean velocity over the section, U.

    The fit says where the walls are, and so the velocity F at each place over U. Each track then gives U at this
    moment as its own velocity over F, and their weighted median is held: the fit may be a memory of a minute, what
    the loop sees is as young as for hold_flow, and its margins are the same. The target becomes one of U by what
    the fit says of the section: a new fit changes where the target is, never what is measured at once.

    Before the first fit the pump is left alone, or, if it stands still, set to the middle of its limits: there is
    nothing to fit without a flow.
    """

    def __init__(self, settings: PumpLoopSettings, target: float, watchdog_s: float) -> None:
        self._begin_loop(settings, math.nan, watchdog_s)
        self.target = target
        self._flow: LiveFlow | None = None
        self._waits_since_s = math.nan

    def flow_fitted(self, flow: LiveFlow) -> None:
        """Take the walls, and what the target means, from a new fit."""
        self._flow = flow
        self._aim(self._target_velocity(flow))

    def retarget(self, target: float) -> None:
        """Change the target."""
        self.target = target
        if self._flow is not None:
            super().retarget(self._target_velocity(self._flow))

    @abstractmethod
    def _target_velocity(self, flow: LiveFlow) -> float:
        """Mean velocity over the section, um/s, that belongs to the target."""

    def _aim(self, target_um_s: float) -> None:
        if abs(target_um_s - self.target_um_s) <= SAME_TARGET * abs(target_um_s):
            self.target_um_s = target_um_s
        else:
            super().retarget(target_um_s)

    def _share(self) -> float:
        """The measured velocity over that of the target."""
        return self.velocity_um_s / self.target_um_s if self.target_um_s else math.nan

    def _velocities(self, tracks: Tracks) -> tuple[FloatArray, FloatArray]:
        assert self._flow is not None
        fit = self._flow.fit
        velocity = np.stack([tracks.vx_um_s, tracks.vy_um_s, np.nan_to_num(tracks.vz_um_s)])
        chosen = tracks.counted & np.isfinite(velocity.sum(axis=0)) & np.isfinite(tracks.z_um)
        height = self._flow.refraction_factor * heights_um(tracks)
        place = np.stack([tracks.x_um, tracks.y_um, height])[:, chosen]
        local = in_section(fit.theta, fit.reference_x_um, place)
        profile = flow_of(fit.section, fit.theta).at(local[1], local[2])
        fast = profile >= FAST * max(float(profile.max(initial=0.0)), 1e-300)
        speed = axes_of(fit.theta)[:, 0] @ velocity[:, chosen]
        return speed[fast] / profile[fast], tracks.sigma_vx_um_s[chosen][fast] / profile[fast]

    def update(self, tracks: Tracks) -> list[Command]:
        """Measure, and return a new set-point when one is due."""
        if self._flow is not None:
            return super().update(tracks)
        info = tracks.info
        self._delay.see(info)
        if info.flow_ul_s != 0.0:
            self._waits_since_s = math.nan
            return []
        if math.isnan(self._waits_since_s):
            self._waits_since_s = info.time_s
        if self._limit.refuses(self._delay.age_s) or info.time_s - self._waits_since_s < BEGIN_S:
            return []
        return self._set((self._settings.min_flow_ul_s + self._settings.max_flow_ul_s) / 2.0, info.time_s)


class HoldFlowRate(HoldFitted):
    """Holds the flow rate: mean velocity times the area of the section."""

    name = "hold_flow_rate"

    def __init__(self, settings: HoldFlowRateSettings, watchdog_s: float = math.inf) -> None:
        """As for `HoldFlow`."""
        super().__init__(settings, settings.target_ul_s, watchdog_s)

    def _target_velocity(self, flow: LiveFlow) -> float:
        return self.target * UM3_PER_UL / section_of(flow.fit.section, flow.fit.theta).area_um2

    def measured(self) -> dict[str, float]:
        """The last measured flow rate and velocity, and the last commanded flow."""
        found = super().measured()
        return {"flow_rate_ul_s": self._share() * self.target, "target_ul_s": self.target, **found}


class HoldShear(HoldFitted):
    """Holds the shear stress at the wall, its mean or its maximum over the section.

    Of a liquid with the flow index m it is K (|U| s)^m, where s is the shear rate at a mean velocity of 1.
    """

    name = "hold_shear"

    def __init__(self, settings: HoldShearSettings, watchdog_s: float = math.inf) -> None:
        """As for `HoldFlow`."""
        super().__init__(settings, settings.target_pa, watchdog_s)
        self._of = settings.of
        self._index = 1.0

    def _target_velocity(self, flow: LiveFlow) -> float:
        fit = flow.fit
        if flow.viscosity_pa_s is None:
            raise ConfigurationError("hold_shear needs the viscosity of the liquid; set flow.viscosity_mpa_s")
        self._index = index = float(fit.theta[INDEX])
        wall = flow_of(fit.section, fit.theta).wall()
        rate = wall.shear_per_um**index
        stress = float(rate.max() if self._of == "maximum" else np.average(rate, weights=wall.length_um))
        speed = (self.target / (flow.viscosity_pa_s * stress)) ** (1.0 / index)
        return math.copysign(speed, fit.theta[VELOCITY])

    def measured(self) -> dict[str, float]:
        """The last measured shear stress and velocity, and the last commanded flow."""
        share = self._share()
        shear = math.copysign(abs(share) ** self._index, share) * self.target
        return {"wall_shear_pa": shear, "target_pa": self.target, **super().measured()}
