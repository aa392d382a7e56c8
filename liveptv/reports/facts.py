"""The numbers of a report and of the summary at the end of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from liveptv.reports.profile import FlowProfile
from liveptv.reports.sides import sides_of
from liveptv.session.frame_account import FrameAccount, account_of, loss_in_words
from liveptv.session.prediction_account import prediction_in_words
from liveptv.volumes.account import VolumeAccount, unit_of
from stream.messages import TrackFlag
from tracking.trajectories.file import Trajectories
from tracking.trajectories.schema import RecordArray

LEAST_NOT_FITTED = 0.005
"""Part of the positions from which it is said that they were not fitted. Fewer change no result that is shown."""
WHILE_COMPILING, FOR_WANT_OF_TIME = "as the fit was still being compiled", "for want of time"
STAGE_ORDER = ("acquire", "detect", "track", "write", "control", "record")


def facts(trajectories: Trajectories, profile: FlowProfile) -> list[dict[str, str]]:
    """The main results of a run, as `name` and `value`."""
    attributes = trajectories.attributes
    statistics = attributes.get("statistics", {})
    frames = trajectories.frames.size
    lengths = np.unique(trajectories.track, return_counts=True)[1]
    account = account_of(attributes, trajectories.frames)
    unit, volumes = unit_of(attributes), VolumeAccount.of(trajectories.frames, attributes)
    found = [
        (f"{unit}s", f"{frames}" if volumes is None else volumes.in_words()),
        (f"{unit}s lost", _lost(account)),
        *([("images kept", images)] if (images := images_in_words(attributes)) else []),
        ("duration", f"{statistics.get('duration_s', float('nan')):.1f} s"),
        ("trajectories", f"{lengths.size}"),
        ("median length", f"{np.median(lengths) if lengths.size else 0:.0f} {unit}s"),
        (f"particles per {unit}", f"{len(trajectories) / max(frames, 1):.1f}"),
    ]
    if not_fitted := not_fitted_in_words(trajectories):
        found.append(("not fitted", not_fitted))
    if (sides := sides_of(trajectories)) is not None:
        found.append(("side of focus", sides.in_short()))
    if predicted := prediction_in_words(attributes.get("accounts", {}).get("detect", {})):
        found.append(("predicted", predicted))
    if profile.theory is not None and np.isfinite(profile.deviation):
        found.append(
            ("largest deviation from laminar flow", f"{100 * profile.deviation:.1f} % of its maximum")
        )
    return [{"name": name, "value": value} for name, value in found]


def images_in_words(attributes: dict[str, Any]) -> str:
    """What was kept of the camera's images; "" if none were asked for."""
    found = attributes.get("recording")
    if not isinstance(found, dict) or not isinstance(found.get("stored"), int):
        return ""
    lost = sum(count for count in found.get("lost", {}).values() if isinstance(count, int))
    return f"{found['stored']}, {lost} lost" if lost else f"{found['stored']}"


def not_fitted_in_words(trajectories: Trajectories) -> str:
    """Which part of the positions was not fitted, and why; "" for less than `LEAST_NOT_FITTED`."""
    if not len(trajectories):
        return ""
    share = np.count_nonzero(trajectories.flags & TrackFlag.REDUCED) / len(trajectories)
    if share < LEAST_NOT_FITTED:
        return ""
    counts = trajectories.attributes.get("accounts", {}).get("detect", {})
    compiling = min(1.0, counts.get("not_compiled", 0) / max(1, counts.get("reduced", 0)))
    whys = {WHILE_COMPILING: share * compiling, FOR_WANT_OF_TIME: share * (1 - compiling)}
    parts = [(part, why) for why, part in whys.items() if part >= LEAST_NOT_FITTED]
    if len(parts) < 2:
        (why,) = [why for _, why in parts] or [max(whys, key=lambda why: whys[why])]
        return f"{100 * share:.1f} % of positions, {why}"
    return f"{100 * share:.1f} % of positions: " + ", ".join(
        f"{100 * part:.1f} % {why}" for part, why in parts
    )


def _lost(account: FrameAccount | None) -> str:
    if account is None:
        return "not known"
    return f"at least {account.total_lost}" if account.not_known else f"{account.total_lost}"


def problems(attributes: dict[str, Any], frames: RecordArray) -> list[str]:
    """Failures, lost frames, an unfinished file: to be known before the numbers are used."""
    lines = [str(line) for line in attributes.get("failures", [])]
    account = account_of(attributes, frames)
    if account is not None:
        unit = unit_of(attributes)
        lines += [loss_in_words(where, count, unit) for where, count in account.lost.items()]
        lines += account.not_known
    if "end_reason" not in attributes:
        lines.append("the run has not ended, or its file was not finished; `liveptv recover` finishes it")
    return lines
