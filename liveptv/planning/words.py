"""A plan in lines of words, and as a `[protocol]` in TOML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

NAMES = {
    "profile": ("velocity profile", ""),
    "flow_rate": ("flow rate", "µL/s"),
    "wall_shear": ("mean wall shear", "Pa"),
    "pressure_gradient": ("pressure gradient", "Pa/m"),
    "diffusion": ("D", "µm²/s"),
    "floor_um": ("floor", "µm"),
    "ceiling_um": ("ceiling", "µm"),
    "depth_um": ("depth", "µm"),
    "width_um": ("width", "µm"),
    "center_y_um": ("middle in y", "µm"),
}
MARKS = {"good": "good", "caution": "caution", "fails": "FAILS"}
WORTH_TELLING = 0.95
"""Time over that of the plan from which a change helps too little."""
EVEN = 1e-3
"""Difference in spacing below which slices count as equally spaced: positions are rounded to nanometres."""


def in_words(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each line, of what `plan_of` has found."""
    slices = found["slices"]
    yield "slices", f"{len(slices)} at focus positions {_positions([one['focus_um'] for one in slices])}"
    yield "frames", _frames([one["frames"] for one in slices])
    yield "time", _time(found)
    yield "trajectories", f"{found['tracks']:.0f}, of {found['detections_a_track']:.0f} detections on average"
    for name, error in found["errors"].items():
        words, _ = NAMES[name]
        yield words, _error(found, name, error)
    if not found["reached"]:
        yield "note", "these frames do not give the errors that are wanted"
    yield "error is from", ", ".join(_cause(one) for one in found["causes"] if one["share"] >= 0.01)
    for one in found["helps"]:
        if one["time"] < WORTH_TELLING:
            yield "would help", f"{one['change']}: {one['time']:.2g} times the time"
    for one in found["findings"]:
        yield one["what"], f"{MARKS[one['level']]}: {one['text']}"


def _positions(foci: list[float]) -> str:
    if len(foci) <= 4:
        return ", ".join(f"{focus:.6g}" for focus in foci) + " µm"
    return f"{foci[0]:.6g} to {foci[-1]:.6g} µm"


def _frames(frames: list[float]) -> str:
    total = f"{sum(frames):.0f} in all"
    if len(frames) == 1:
        return total
    each = f"{frames[0]:.0f} each" if max(frames) == min(frames) else ", ".join(f"{n:.0f}" for n in frames)
    return f"{each}, {total}"


def _time(found: dict[str, Any]) -> str:
    pauses = len(found["slices"]) - 1
    moves = f"{pauses} move{'s' if pauses > 1 else ''}"
    beside = f", with {moves} of {found['settle_s']:g} s" if pauses else ""
    return f"{_seconds(found['seconds'])} at {found['frame_rate_hz']:g} Hz{beside}"


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def _error(found: dict[str, Any], name: str, error: float) -> str:
    _, unit = NAMES[name]
    wanted = found["wanted"].get(name)
    if name.endswith("_um"):
        text = f"± {error:.2g} µm"
        beside = "" if wanted is None else f", wanted {wanted:g} µm"
    else:
        text = f"± {100 * error:.2g} %"
        value = found["values"].get(name)
        text += " of the maximum" if name == "profile" else ""
        text += "" if value is None else f" of {value:.4g} {unit}"
        beside = "" if wanted is None else f", wanted {100 * wanted:g} %"
    decides = " (this one decides)" if name == found["hardest"] and len(found["wanted"]) > 1 else ""
    return text + beside + decides


def _cause(one: dict[str, Any]) -> str:
    where = f" {one['where']}" if one["where"] else ""
    return f"{one['name']}{where} {100 * one['share']:.0f} %"


def protocol_text(found: dict[str, Any]) -> str:
    """A `[protocol]` section that takes the plan's slices."""
    slices = found["slices"]
    groups: list[list[dict[str, Any]]] = []
    for one in slices:
        if groups and groups[-1][0]["frames"] == one["frames"]:
            groups[-1].append(one)
        else:
            groups.append([one])
    lines = ["[protocol]"]
    for group in groups:
        foci = [float(one["focus_um"]) for one in group]
        lines += ["", "[[protocol.steps]]", f"focus_um = {_foci_text(foci)}"]
        if found["flow_ul_s"] is not None:
            lines.append(f"flow_ul_s = {found['flow_ul_s']:g}")
        lines += [f"settle_s = {float(found['settle_s']):g}", f"frames = {group[0]['frames']:.0f}"]
    return "\n".join(lines) + "\n"


def _foci_text(foci: list[float]) -> str:
    gaps = [b - a for a, b in pairwise(foci)]
    if len(foci) > 4 and max(gaps) - min(gaps) < 2 * EVEN:
        return f"{{ first_um = {foci[0]:.6g}, last_um = {foci[-1]:.6g}, count = {len(foci)} }}"
    return json.dumps([round(focus, 3) for focus in foci])
