"""The flow in a channel, in lines of words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from tracking.physics.channel.parameters import FREE
from tracking.physics.live.findings import FlowFindings

NAMES = {
    "velocity_um_s": ("mean velocity", "µm/s"),
    "width_um": ("width", "µm"),
    "depth_um": ("depth", "µm"),
    "center_y_um": ("middle at y", "µm"),
    "floor_um": ("floor at", "µm"),
    "yaw_deg": ("yaw", "°"),
    "pitch_deg": ("pitch", "°"),
    "roll_deg": ("roll", "°"),
    "slip_um": ("slip length", "µm"),
    "flow_index": ("flow index", ""),
}
DIFFERENT = {
    "smooth": "the flow over the section is not that of this channel",
    "slip_um": "a slip at the walls",
    "flow_index": "a flow index other than 1",
}
WHY = {
    "slip_um": "a slip at the walls",
    "flow_index": "another flow index",
    "either": "slip or flow index; the trajectories do not tell which",
    "other": "neither slip nor flow index: look at the residuals, and for a blocked part or wrong depths",
}
NOT_ANOTHER = "nothing says that the flow is another one"
MOST_CELLS_TOLD = 3


def in_words(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each line, of what `channel_flow` has found."""
    yield "trajectories", _trajectories(found)
    for name, one in found["parameters"].items():
        has_none = name == "roll_deg" and one["standard_error"] == 0  # as a round pipe
        if (name in FREE and not has_none) or one["standard_error"] > 0:
            words, unit = NAMES[name]
            where = f" at x = {found['reference_x_um']:.4g} µm" if name in ("center_y_um", "floor_um") else ""
            unknown = "" if one["told"] else "  (the tracks do not tell)"
            yield words, _number(one, unit) + where + unknown
    rate = found["flow_rate_ul_s"]
    beside = "" if rate["set_point"] is None else f", set-point {rate['set_point']:.5g} µL/s"
    yield "flow rate", _number(rate, "µL/s") + beside
    if "wall_shear_pa" in found:
        shear = found["wall_shear_pa"]
        yield "wall shear", f"mean {_number(shear['mean'], 'Pa')}, at most {_number(shear['maximum'], 'Pa')}"
        yield "pressure falls by", _number(found["pressure_gradient_pa_m"], "Pa/m")
    yield "over time", _over_time(found["over_time"])
    yield "model", _model(found)
    if found["explained_by"] is not None:
        yield "explained by", WHY[found["explained_by"]]
    for one in found["better_with"]:
        words, unit = NAMES[one["parameter"]]
        yield words, f"{_number(one, unit)}, log-likelihood ratio {one['log_likelihood_ratio']:.4g}"


def _over_time(found: dict[str, Any]) -> str:
    pump = ""
    if found["set_points_ul_s"] is not None:
        low, high = found["set_points_ul_s"]
        pump = f"set-point from {low:.4g} to {high:.4g} µL/s"
    if found["steady"] is None:
        return "too short to tell" + (f"; {pump}" if pump else "")
    if found["steady"]:
        return "steady" + (f", held with a {pump}" if pump else "")
    if found["as_pump"]:
        return f"varies as the pump does: {pump}"
    return f"varies; best followed with a memory of {found['memory_s']:.2g} s" + (f"; {pump}" if pump else "")


def region_words(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each line, of what `region_flow` has found."""
    yield "trajectories", f"{_trajectories(found)}; in {found['pieces']} pieces"
    for name, rate in found["inflow_ul_s"].items():
        yield f"in at {name}", _number(rate, "µL/s")
    if "wall_shear_pa" in found:
        shear = found["wall_shear_pa"]
        x, y, z = shear["maximum_at_um"]
        most = f"at most {_number(shear['maximum'], 'Pa')} at {x:.4g}, {y:.4g}, {z:.4g} µm"
        yield "wall shear", f"mean {_number(shear['mean'], 'Pa')}, {most}"
        *others, last = found["pressure_pa"]
        for name in others:
            yield f"pressure at {name}", _number(found["pressure_pa"][name], "Pa") + f" above {last}"
    told = [cell for cell in found["cells"] if cell["told"]]
    yield "model", f"differs in {len(told)} of {len(found['cells'])} cells" if told else NOT_ANOTHER
    for cell in sorted(told, key=lambda one: -one["chi_square"])[:MOST_CELLS_TOLD]:
        low, high = cell["low_um"], cell["high_um"]
        where = ", ".join(f"{axis} {a:.4g} to {b:.4g}" for axis, a, b in zip("xyz", low, high, strict=True))
        by = ", ".join(f"{one:.3g}" for one in cell["residual_um_s"])
        yield "differs at", f"{where} µm: by {by} µm/s"


def live_words(flow: FlowFindings) -> Iterator[tuple[str, str]]:
    """The same of a fit during a run."""
    beside = "" if flow.set_point_ul_s is None else f", set-point {flow.set_point_ul_s:.5g} µL/s"
    yield "mean velocity", _parameter(flow, "velocity_um_s")
    yield "flow rate", with_error(flow.flow_rate_ul_s.value, flow.flow_rate_ul_s.error, "µL/s") + beside
    mean, most, fall = flow.mean_shear_pa, flow.max_shear_pa, flow.pressure_gradient_pa_m
    if mean is not None and most is not None and fall is not None:
        shear = with_error(mean.value, mean.error, "Pa"), with_error(most.value, most.error, "Pa")
        yield "wall shear", f"mean {shear[0]}, at most {shear[1]}"
        yield "pressure falls by", with_error(fall.value, fall.error, "Pa/m")
    yield "floor at", _parameter(flow, "floor_um")
    yield "middle at y", _parameter(flow, "center_y_um")
    for name in ("width_um", "depth_um", "slip_um", "flow_index"):
        if flow.parameters[name].error > 0:
            yield NAMES[name][0], _parameter(flow, name)
    yield "model", _told(flow.told, [flow.tests[name].size for name in flow.told])
    yield (
        "from",
        f"{flow.tracks} trajectories since {max(flow.from_s, 0.0):.0f} s, {100 * flow.stuck:.1f} % stuck, "
        f"{100 * flow.wrong:.1f} % wrong",
    )


def _parameter(flow: FlowFindings, name: str) -> str:
    one = flow.parameters[name]
    return with_error(one.value, one.error, NAMES[name][1]) + (
        "" if one.told else "  (the tracks do not tell)"
    )


def _trajectories(found: dict[str, Any]) -> str:
    shares = found["classes"]
    settled = "" if found["settled"] else "; the fit has not settled"
    since = (
        "" if found.get("from_s") is None else f" since {found['from_s']:.1f} s, when the pump had changed"
    )
    return (
        f"{found['trajectories']}{since}, {100 * shares['stuck']:.1f} % stuck, "
        f"{100 * shares['wrong']:.1f} % wrong{settled}"
    )


def _model(found: dict[str, Any]) -> str:
    told = found["misfit"]["told"]
    return _told(told, [found["misfit"]["tests"][name]["size"] for name in told])


def _told(told: Sequence[str], sizes: Sequence[float]) -> str:
    if not told:
        return NOT_ANOTHER
    what = ", ".join(DIFFERENT[name] for name in told)
    return f"told: {what}; up to {100 * max(sizes):.1f} % of the maximum (rms)"


def _number(one: dict[str, Any], unit: str) -> str:
    return f"{one['value']:.5g} ± {one['standard_error']:.2g} {unit}".rstrip()


def with_error(value: float, error: float, unit: str) -> str:
    """A value to two digits of its standard error."""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g} {unit}".rstrip()
    digits = 1 - math.floor(math.log10(error))
    if 0 <= digits <= 5:
        return f"{value:.{digits}f} ± {error:.{digits}f} {unit}".rstrip()
    shown = max(digits + math.floor(math.log10(max(abs(value), error))) + 1, 2)
    return f"{value:.{shown}g} ± {error:.2g} {unit}".rstrip()
