"""Whether the replay of a recorded run must give the run's own result, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from acquisition.recorder.frame_table import FrameTable
from liveptv.config import Experiment
from liveptv.replaying.recorded import INPUTS
from liveptv.session.provenance import describe_inputs, describe_model
from tracking.trajectories.decisions import decisions_of
from tracking.trajectories.provenance import versions
from tracking.trajectories.schema import RecordArray

NO_MATTER = {
    "detector": {*INPUTS, "workers", "backend", "device", "self_check"},
    "tracker": set(),
}
"""Settings by section that do not change a result, or are compared by what they lead to: files by their contents,
the back end by the one that the run had."""
NUMERIC = ("liveptv", "numpy", "numba", "scipy", "onnxruntime")
"""Packages whose version may change a result's last digits, besides the one that ran the network."""


def difference(experiment: Experiment, attributes: Mapping[str, Any]) -> str:
    """What of a replay differs from the run with these `attributes`, in words; "" for nothing that matters."""
    if "begun_in" in attributes:
        return "the run's trajectory file does not begin with the run"
    if "joined" in attributes:
        return "the run's trajectory file joins several runs"
    return (
        _of_model(experiment, attributes) or _of_settings(experiment, attributes) or _of_versions(attributes)
    )


def _of_model(experiment: Experiment, attributes: Mapping[str, Any]) -> str:
    was, now = attributes.get("model"), describe_model(experiment.detector.model)
    was = was if isinstance(was, dict) else {}
    if was.get("sha256") != now["sha256"] or was.get("kind") != now["kind"]:
        return f"the model is {now['file'] or 'none'}, it was {was.get('file') or 'none'} ({_how(was, now)})"
    inputs, given = attributes.get("inputs"), describe_inputs(experiment)
    inputs = inputs if isinstance(inputs, dict) else {}
    for name in sorted(set(inputs) | set(given)):
        if inputs.get(name) != given.get(name):
            return f"the file of detector.{name} is not that of the run"
    return ""


def _how(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return "another file of this name" if was.get("file") == now["file"] else "another file"


def _of_settings(experiment: Experiment, attributes: Mapping[str, Any]) -> str:
    run = attributes.get("configuration")
    if not isinstance(run, dict):
        return "the run's settings are not known"
    now = experiment.resolved()
    for section, left_out in NO_MATTER.items():
        before, after = run.get(section), now[section]
        before = before if isinstance(before, dict) else {}
        for key in sorted((set(before) | set(after)) - left_out):
            if before.get(key) != after.get(key):
                return f"{section}.{key} is {_said(after, key)}, it was {_said(before, key)} in the run"
    recording = experiment.recording
    if recording is not None:
        for key in ("pixel_size_um", "frame_rate_hz"):
            if getattr(recording, key) is not None:
                return f"recording.{key} is given"
    if experiment.link.is_live:
        return 'link.policy is "live", so that late frames are dropped'
    run_limits = experiment.run
    if run_limits.frames is not None or run_limits.seconds is not None:
        return "the replay has another length (run.frames or run.seconds)"
    return ""


def _of_versions(attributes: Mapping[str, Any]) -> str:
    was, now = attributes.get("versions"), versions()
    was = was if isinstance(was, dict) else {}
    engine = attributes.get("engine")
    ran_on = engine.get("backend") if isinstance(engine, dict) else None
    for name in (*NUMERIC, *([ran_on] if ran_on in now else [])):
        if was.get(name) != now.get(name):
            return f"{name} is {now.get(name, 'not there')}, it was {was.get(name, 'not there')} in the run"
    return ""


def what_is_missing(frames: RecordArray, table: FrameTable) -> str:
    """Why the frames of a run's file cannot all be replayed, in words; "" if they can."""
    if not len(frames):
        return "the run's trajectory file has no frames"
    if any(decisions_of(entry) is None for entry in frames):
        return "the run's trajectory file does not say what its detector decided"
    times = {row.info.frame: row.info.time_s for row in table.rows}
    missing = sum(int(number) not in times for number in frames["frame"])
    if missing:
        return f"{missing} of the {len(frames)} frames that the run tracked are not in the recording"
    at = np.array([times[int(number)] for number in frames["frame"]])
    if not np.array_equal(at, frames["time_s"], equal_nan=True):
        return "the frames' times are not those of the run's trajectory file"
    return ""


def _said(section: Mapping[str, Any], key: str) -> str:
    value = section.get(key)
    return "left out" if value is None else str(value)
