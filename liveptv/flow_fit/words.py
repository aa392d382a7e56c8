"""The flow in a channel, in lines of words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tracking.physics.channel.parameters import FREE

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


def in_words(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each line, of what `channel_flow` has found."""
    yield "trajectories", _trajectories(found)
    for name, one in found["parameters"].items():
        if name in FREE or one["standard_error"] > 0:
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
    memory = found["memory_s"]
    yield (
        "over time",
        "steady" if memory is None else f"varies; best followed with a memory of {memory:.2g} s",
    )
    yield "model", _model(found)
    for one in found["better_with"]:
        words, unit = NAMES[one["parameter"]]
        yield words, f"{_number(one, unit)}, log-likelihood ratio {one['log_likelihood_ratio']:.4g}"


def _trajectories(found: dict[str, Any]) -> str:
    shares = found["classes"]
    settled = "" if found["settled"] else "; the fit has not settled"
    return (
        f"{found['trajectories']}, {100 * shares['stuck']:.1f} % stuck, "
        f"{100 * shares['wrong']:.1f} % wrong{settled}"
    )


def _model(found: dict[str, Any]) -> str:
    told = found["misfit"]["told"]
    if not told:
        return "nothing says that the flow is another one"
    largest = max(found["misfit"]["tests"][name]["size"] for name in told)
    return f"told: {', '.join(DIFFERENT[name] for name in told)}; up to {100 * largest:.1f} % of the maximum (rms)"


def _number(one: dict[str, Any], unit: str) -> str:
    return f"{one['value']:.5g} ± {one['standard_error']:.2g} {unit}".rstrip()
