"""What a trajectory file says of its channel, its liquid and its pump."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from liveptv.config import ChannelSettings
from tracking.physics.diffusion.settings import DiffusionSettings
from tracking.physics.live.pump_history import ANOTHER_FLOW
from tracking.physics.live.settings import FlowSettings
from tracking.trajectories.file import Trajectories

PA_S_PER_MPA_S = 1e-3
STEADY = (
    1e-3  # relative range of the pump's set-point within which a run had one flow: its rounding, not a change
)


def channel_of(attributes: dict[str, Any]) -> ChannelSettings | None:
    """The channel in the configuration that the file contains."""
    channel = attributes.get("configuration", {}).get("channel")
    return ChannelSettings.model_validate(channel) if channel else None


def flow_settings_of(attributes: dict[str, Any]) -> FlowSettings:
    """What the configuration in the file says of the fit of the flow."""
    return FlowSettings.model_validate((attributes.get("configuration") or {}).get("flow") or {})


def viscosity_of(attributes: dict[str, Any]) -> float | None:
    """Viscosity of the liquid by the configuration in the file, mPa s; None where it says nothing."""
    known = DiffusionSettings.model_validate((attributes.get("configuration") or {}).get("diffusion") or {})
    return flow_settings_of(attributes).viscosity_mpa_s or known.known_viscosity_mpa_s


def steady_flow_ul_s(trajectories: Trajectories, since_s: float = -math.inf) -> float | None:
    """The pump's set-point, uL/s, if it was known and constant since a time; else None."""
    flow = trajectories.frames["flow_ul_s"][trajectories.frames["time_s"] >= since_s]
    if flow.size == 0 or not np.isfinite(flow).all() or np.ptp(flow) > STEADY * np.abs(flow).max():
        return None
    return float(np.median(flow))


def last_change_s(trajectories: Trajectories) -> float:
    """Time of the first frame at the present flow of the pump; -inf where it did not change.

    Changes of less than `ANOTHER_FLOW`, such as the corrections of a controller, do not count.
    """
    flow, time_s = trajectories.frames["flow_ul_s"], trajectories.frames["time_s"]
    known = np.isfinite(flow)
    flow, time_s = flow[known], time_s[known]
    if not flow.size:
        return -math.inf
    other = np.flatnonzero(np.abs(flow - flow[-1]) > ANOTHER_FLOW * np.maximum(np.abs(flow), abs(flow[-1])))
    return float(time_s[other[-1] + 1]) if other.size else -math.inf
