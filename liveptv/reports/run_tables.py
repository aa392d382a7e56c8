"""Tables of a run's report: pipeline stages, profile, events, what went wrong, main settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from liveptv.files import RunFiles
from liveptv.reports.facts import STAGE_ORDER
from liveptv.reports.profile import FlowProfile
from liveptv.session.events import read_events
from liveptv.session.frame_account import account_of
from liveptv.session.result_age import ResultAge
from liveptv.volumes.account import VolumeAccount, unit_of
from tracking.trajectories.schema import RecordArray

QUIET = {"measured", "flow", "answer", "command", "process", "monitor", "commands", "start", "report"}
WRONG = {"lost", "kill", "policy", "finish", "recovered"}
MOST_EVENTS = 200  # in the table; the file has all of them
SHOWN_COUNTS = ("received", "sent", "dropped")


def stages_table(attributes: dict[str, Any]) -> list[dict[str, str]]:
    """A row per stage: frames `received`, `sent`, `dropped`, and `rest`, its other counts that are not 0."""
    accounts: dict[str, dict[str, int]] = attributes.get("accounts", {})
    order = [
        stage for stage in (*STAGE_ORDER, *sorted(set(accounts) - set(STAGE_ORDER))) if stage in accounts
    ]
    rows = []
    for stage in order:
        counts = accounts[stage]
        rest = ", ".join(
            f"{name.replace('_', ' ')} {count}"
            for name, count in counts.items()
            if count and name not in SHOWN_COUNTS and "." not in name
        )
        shown = {name: f"{counts.get(name, 0)}" for name in SHOWN_COUNTS}
        rows.append({"stage": stage, **shown, "rest": rest})
    return rows


def losses_in_words(attributes: dict[str, Any], frames: RecordArray) -> str:
    """Where frames were lost, by the account of the run, and how old its results were."""
    account = account_of(attributes, frames)
    if account is None:
        return ""
    age = ResultAge.stored(attributes, frames)
    then = "" if age is None else f" Results were {age.in_words()}."
    unit, volumes = unit_of(attributes), VolumeAccount.of(frames, attributes)
    then = f" Volumes in the file: {volumes.in_words()}.{then}" if volumes is not None else then
    if not account.lost and not account.not_known:
        return f"No {unit} was lost.{then}"
    taken = f"The camera took {account.exposed} {unit}s, {account.in_file} are in the file."
    return f"{taken} Lost: {account.in_words()}.{then}"


def profile_table(profile: FlowProfile) -> list[dict[str, str]]:
    """A row per bin: `place` (um), `velocity` and its standard `error` (um/s), `tracks`, the laminar `theory`."""
    measured, theory = profile.measured, profile.theory
    rows = []
    for i, place in enumerate(measured.height_um):
        expected = "" if theory is None else f"{np.interp(place, theory.height_um, theory.velocity_um_s):.2f}"
        rows.append(
            {
                "place": f"{place:.1f}",
                "velocity": f"{measured.velocity_um_s[i]:.2f}",
                "error": f"{measured.standard_error_um_s[i]:.2f}",
                "tracks": f"{measured.tracks[i]}",
                "theory": expected,
            }
        )
    return rows


def run_events(files: RunFiles, in_file: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events of the log beside the file and of the file itself, in order, without routine ones."""
    events = read_events(files.events) if files.events.is_file() else []
    told = {(event.get("kind"), event.get("text")) for event in events}
    events += [event for event in in_file if (event.get("kind"), event.get("text")) not in told]
    events = [event for event in events if event.get("kind") not in QUIET and event.get("text")]
    return sorted(events, key=lambda event: float(event.get("wall_s", 0.0)))


def events_table(events: list[dict[str, Any]], began_s: float) -> list[dict[str, str]]:
    """`time` since the first frame, `kind` and `text`; of more than 200 events the first and last 100."""
    if len(events) > MOST_EVENTS:
        left_out = len(events) - MOST_EVENTS
        gap = {
            "wall_s": events[MOST_EVENTS // 2]["wall_s"],
            "kind": "note",
            "text": f"... {left_out} more ...",
        }
        events = [*events[: MOST_EVENTS // 2], gap, *events[-MOST_EVENTS // 2 :]]
    return [
        {
            "time": f"{float(event['wall_s']) - began_s:+.1f} s",
            "kind": str(event["kind"]),
            "text": str(event["text"]).split("\n", maxsplit=1)[0],
        }
        for event in events
    ]


def went_wrong(events: list[dict[str, Any]]) -> list[str]:
    """A line for each stage lost, controller failed and command refused."""
    lines = []
    for event in events:
        kind, text = event.get("kind"), str(event["text"]).split("\n", maxsplit=1)[0]
        failed_controller = kind == "controller" and "on" not in event
        if kind in WRONG or failed_controller or (kind == "wish" and event.get("accepted") is False):
            lines.append(text)
    return lines


def _policy_in_words(attributes: dict[str, Any]) -> str:
    policy, limit_ms = attributes.get("link_policy", ""), attributes.get("age_limit_ms")
    return f"{policy}, results at most {limit_ms:g} ms old" if policy and limit_ms else str(policy)


def _volume_in_words(attributes: dict[str, Any]) -> str:
    """Slices of a volume and their distance; "" for images."""
    told = attributes.get("volume")
    if not isinstance(told, dict):
        return ""
    return f"{told.get('slices')} slices, {float(told.get('z_step_um', np.nan)):g} µm apart"


def main_settings(attributes: dict[str, Any]) -> list[dict[str, str]]:
    """The main settings, as `name` and `value`."""
    configuration = attributes.get("configuration") or {}
    rows, columns = attributes.get("image_shape") or (0, 0)
    model = attributes.get("model") or {}
    controller = configuration.get("controller") or {}
    named = [name for name, value in controller.items() if value and name != "options"]
    if configuration.get("protocol"):
        named.append("protocol")
    channel = configuration.get("channel")
    unit = unit_of(attributes)
    found = [
        ("source", str(attributes.get("source", ""))),
        ("image", f"{columns} x {rows} px of {attributes.get('pixel_size_um', 0):g} µm" if rows else ""),
        ("volume", _volume_in_words(attributes)),
        (f"{unit} rate", f"{attributes['frame_rate_hz']:g} Hz" if attributes.get("frame_rate_hz") else ""),
        (f"{unit}s", _policy_in_words(attributes)),
        ("detector", f"{model.get('kind', '')} {model.get('file', '')}".strip() or "classical, in 2D"),
        ("channel", f"{channel['width_um']:g} x {channel['depth_um']:g} µm" if channel else ""),
        ("controller", ", ".join(named).replace("_", " ")),
        ("notes", str(attributes.get("notes") or "")),
    ]
    return [{"name": name, "value": value} for name, value in found if value]
