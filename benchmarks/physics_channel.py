"""The flow fitted to the tracks of a straight channel, against the truth: actual and stated errors, and cost.

Tracks are simulated with the errors that a detector has (no images): particles diffuse, leave the image, and are
seen with Gaussian errors. `profile` has the protocol of Franchini & Krevor (2020): 21 depths 150 um apart, 452
frames each, a channel of 7 x 3 mm with 2.3 mL/h, 200 particles in the image, errors as benchmarks/channel.py
measured. `errors` compares the actual with the stated errors over many seeds in a tilted channel of 400 x 100 um
of unknown size. `told` runs live for 60 s: how soon is a flow that is not the model told, and is a clean one.
`named` says what explains it, from 200 and 500 tracks, and fits slip and flow index together.
`enough` ends runs when a quantity is known as well as asked. `trapezoid` compares with another method. `cost` is
processor time with 2,000 tracks alive.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking" / "physics"))
from channel_tracks import Channel, run_of, velocities
from harmonic_series import HarmonicSeries

from tracking.analysis.velocity import per_track_summary, velocity_profile
from tracking.control.controllers.sufficiency import QUANTITIES, Sufficiency
from tracking.control.protocol_settings import Enough
from tracking.physics.channel.derived import (
    flow_rate_ul_s,
    pressure_gradient_pa_m,
    velocity_along,
    wall_shear,
)
from tracking.physics.channel.extended import explanation
from tracking.physics.channel.fit import ChannelFit, fit_channel
from tracking.physics.channel.misfit import misfit
from tracking.physics.channel.model import flow_of, velocity_at
from tracking.physics.channel.parameters import INDEX, SLIP, UNKNOWN, VELOCITY, Known, prior_of
from tracking.physics.live.channel import LiveChannel
from tracking.physics.live.findings import FlowFindings
from tracking.physics.live.follower import FlowFollower, LiveFlow
from tracking.physics.live.running_diffusion import RunningDiffusion
from tracking.physics.sections.choice import profile_of
from tracking.physics.sections.shapes import Rectangle, polygon
from tracking.physics.tracks.velocities import track_velocities

VISCOSITY_PA_S = 1e-3
DEPTHS, SPACING_UM, FRAMES, RATE_HZ = 21, 150.0, 452, 24.0
PAPER = Channel(
    section=Rectangle(7000.0, 3000.0), velocity_um_s=2300.0 / 3600.0 * 1e9 / (7000.0 * 3000.0),
    image_um=(1660.0, 930.0), frame_rate_hz=RATE_HZ, longest=FRAMES, sigma_um=(0.18, 0.17, 1.9),
    diffusion_um2_s=0.0002,
)  # fmt: skip
HALF_RANGE_UM = 60.0
BINS = 15
TILTED = Channel(
    center_y_um=7.0, floor_um=12.0, yaw_deg=1.0, pitch_deg=0.5, roll_deg=-0.4, stuck=0.02, wrong=0.02
)
TRAPEZOID = [(-150.0, 0.0), (150.0, 0.0), (80.0, 60.0), (-80.0, 60.0)]
BLOCKED = polygon([(-200, 0), (120, 0), (120, 40), (200, 40), (200, 100), (-200, 100)])
LIVE = replace(TILTED, stuck=0.0, wrong=0.0, frame_rate_hz=RATE_HZ, image_um=(500.0, 380.0))
CASES = {
    "clean": LIVE,
    "slip of 5 um": replace(LIVE, slip_um=5.0),
    "shear thinning, flow index 0.8": replace(LIVE, flow_index=0.8),
    "corner of 80 x 40 um blocked": replace(LIVE, flows_through=BLOCKED),
}


def profile(seed: int) -> dict[str, Any]:
    """The velocity over height by binning and by the fit, from the same tracks."""
    rows: list[np.ndarray] = []
    for depth in range(DEPTHS):
        middle = depth * SPACING_UM
        low, high = max(middle - HALF_RANGE_UM, 0.0), min(middle + HALF_RANGE_UM, 3000.0)
        seen = replace(PAPER, heights_um=(low, high))
        for message in run_of(seen, 200, FRAMES / RATE_HZ, 1000 * seed + depth):
            name = message.track + 1e6 * depth
            when = np.full(len(message), message.info.time_s)
            rows.append(np.stack([name, when, *(getattr(message, column) for column in COLUMNS)]))
    table = np.hstack(rows)
    places, sigma = table[2:5], table[5:8]
    begun = time.process_time()
    tracks = track_velocities(table[0], table[1], places, sigma, min_length=10)
    fit = fit_channel(
        tracks, PAPER.section, prior_of(PAPER.section, {"pitch_deg": Known(0.0)}), reference_x_um=0.0
    )
    seconds = time.process_time() - begun

    summary = per_track_summary(table[0], table[1], *places, min_length=10)
    edges = np.linspace(0.0, 3000.0, BINS + 1)
    binned = velocity_profile(summary.z_um, summary.velocity_um_s[0], summary.sigma_um_s[0], edges)
    position = np.stack([summary.x_um, summary.y_um, summary.z_um])[:, binned.used]
    weights = summary.sigma_um_s[0, binned.used]
    most = float(
        PAPER.theta[VELOCITY] * flow_of(PAPER.section, PAPER.theta).at(np.zeros(1), np.array([1500.0]))[0]
    )

    def averaged(section: Any, theta: np.ndarray) -> np.ndarray:
        speed = velocity_at(section, theta, 0.0, position)[0]
        return velocity_profile(position[2], speed, weights, edges, clip=None).velocity_um_s

    true = averaged(PAPER.section, PAPER.theta)
    by_bins = np.sqrt(np.mean((binned.velocity_um_s - true) ** 2)) / most
    by_fit = np.sqrt(np.mean((averaged(PAPER.section, fit.theta) - true) ** 2)) / most
    return {
        "case": "profile", "seed": seed, "tracks": len(tracks), "binned_rms": by_bins, "fit_rms": by_fit,
        "fit_over_binned": by_fit / by_bins, "fit_cpu_s": seconds, "settled": fit.settled,
    }  # fmt: skip


COLUMNS = ("x_um", "y_um", "z_um", "sigma_x_um", "sigma_y_um", "sigma_z_um")


def quantities(fit: ChannelFit) -> dict[str, tuple[float, float]]:
    """Values and standard errors of what is asked of a fit."""
    shear = wall_shear(fit, VISCOSITY_PA_S)
    rate, gradient = flow_rate_ul_s(fit), pressure_gradient_pa_m(fit, VISCOSITY_PA_S)
    places = np.array([[0.0, 100.0], [7.0, 60.0], [62.0, 25.0]])
    (speed, *_), (error, *_) = velocity_along(fit, places)
    ceiling = fit.covariance[np.ix_([2, 4], [2, 4])].sum() ** 0.5
    return {
        "velocity_in_the_middle_um_s": (speed[0], error[0]),
        "velocity_near_the_floor_um_s": (speed[1], error[1]),
        "flow_rate_ul_s": (rate.value, rate.standard_error),
        "mean_shear_pa": (shear.mean.value, shear.mean.standard_error),
        "maximum_shear_pa": (shear.maximum.value, shear.maximum.standard_error),
        "pressure_gradient_pa_m": (gradient.value, gradient.standard_error),
        "floor_um": (fit.value("floor_um"), fit.standard_error("floor_um")),
        "ceiling_um": (fit.value("floor_um") + fit.value("depth_um"), ceiling),
        "width_um": (fit.value("width_um"), fit.standard_error("width_um")),
        "center_y_um": (fit.value("center_y_um"), fit.standard_error("center_y_um")),
        "yaw_deg": (fit.value("yaw_deg"), fit.standard_error("yaw_deg")),
        "pitch_deg": (fit.value("pitch_deg"), fit.standard_error("pitch_deg")),
        "roll_deg": (fit.value("roll_deg"), fit.standard_error("roll_deg")),
    }


def errors(seeds: int, tracks: int) -> list[dict[str, Any]]:
    """Actual over stated errors over seeds, one row for each quantity."""
    known = {"width_um": Known(390.0, UNKNOWN), "depth_um": Known(105.0, UNKNOWN)}
    prior = prior_of(TILTED.section, known)
    found = []
    for seed in range(seeds):
        fit = fit_channel(velocities(TILTED, tracks, seed), TILTED.section, prior, reference_x_um=0.0)
        found.append(quantities(fit))
    perfect = replace(fit, theta=TILTED.theta)
    truth = {name: value for name, (value, _) in quantities(perfect).items()}
    rows = []
    for name, true in truth.items():
        values = np.array([one[name] for one in found])
        off = values[:, 0] - true
        rms = float(np.sqrt(np.mean(off**2)))
        stated = float(np.sqrt(np.mean(values[:, 1] ** 2)))
        rows.append(
            {
                "case": "errors", "quantity": name, "seeds": seeds, "tracks": tracks, "true": true,
                "rms_error": rms, "stated": stated, "actual_over_stated": rms / stated,
                "mean_over_stated": float(off.mean()) / stated,
                "largest_error": float(np.abs(off).max()),
            }
        )  # fmt: skip
    return rows


def told(case: str, seed: int, alive: int = 300, seconds: float = 60.0) -> dict[str, Any]:
    """When a live run says that the flow is another one."""
    channel = CASES[case]
    live = LiveChannel(channel.section, prior_of(channel.section), channel.diffusion_um2_s)
    first: dict[str, float] = {}
    least = 1.0
    for message in run_of(channel, alive, seconds, 100 + seed):
        live.take_in(message)
        if message.info.frame % int(RATE_HZ) == int(RATE_HZ) - 1:
            live.update()
            found = live.misfit()
            if found is not None:
                least = min(least, *(one.p for one in found.tests.values()))
                for name in found.told:
                    first.setdefault(name, message.info.time_s)
    return {
        "case": "told", "flow": case, "seed": seed, "alive": alive, "tracks": live.tracks,
        "told_after_s": min(first.values(), default=None), "by": first, "least_p": least,
    }  # fmt: skip


def named(case: str, tracks: int, seeds: int) -> dict[str, Any]:
    """How often which explanation is given of a flow."""
    channel = CASES[case]
    reasons: Counter[str] = Counter()
    for seed in range(seeds):
        found = velocities(channel, tracks, seed)
        fit = fit_channel(found, channel.section, prior_of(channel.section), reference_x_um=0.0)
        why = explanation(fit, misfit(fit))
        reasons["nothing told" if why is None else why.reason] += 1
    return {"case": "named", "flow": case, "tracks": tracks, "seeds": seeds, "reasons": dict(reasons)}


def both(case: str, tracks: int, seeds: int) -> dict[str, Any]:
    """Slip and flow index fitted together: what is found, actual and stated errors, and how they go together."""
    channel = CASES[case]
    prior = prior_of(channel.section, {"slip_um": Known(0.0, UNKNOWN), "flow_index": Known(1.0, UNKNOWN)})
    rows = []
    for seed in range(seeds):
        found = velocities(channel, tracks, seed)
        fit = fit_channel(found, channel.section, prior, reference_x_um=0.0)
        own = fit.covariance[np.ix_([SLIP, INDEX], [SLIP, INDEX])]
        together = own[0, 1] / np.sqrt(own[0, 0] * own[1, 1])
        rows.append([*fit.theta[[SLIP, INDEX]], *np.sqrt(np.diag(own)), together])
    slip, index, slip_error, index_error, together = np.array(rows).T
    return {
        "case": "both", "flow": case, "tracks": tracks, "seeds": seeds, "slip_um": float(slip.mean()),
        "slip_rms_error_um": float(np.sqrt(np.mean((slip - channel.slip_um) ** 2))),
        "slip_stated_um": float(np.sqrt(np.mean(slip_error**2))), "flow_index": float(index.mean()),
        "index_rms_error": float(np.sqrt(np.mean((index - channel.flow_index) ** 2))),
        "index_stated": float(np.sqrt(np.mean(index_error**2))), "correlation": float(together.mean()),
    }  # fmt: skip


def ends(seed: int, alive: int = 100, most_s: float = 40.0) -> dict[str, dict[str, float]]:
    """When a measurement ends that asks for an error (`ASKED`), and what its error is then, of each quantity.

    `expected_end_s` is the end that was expected when the error was 1.5 times the asked one.
    """
    follower = FlowFollower(
        LIVE.section, prior_of(LIVE.section), viscosity_pa_s=VISCOSITY_PA_S, in_thread=False
    )
    judges = {name: Sufficiency(Enough(**{f"{name}_percent": percent})) for name, percent in ASKED.items()}
    true = truths()
    newest: LiveFlow | None = None
    found: dict[str, dict[str, float]] = {name: {} for name in ASKED}
    for message in run_of(LIVE, alive, most_s, 1000 + seed):
        follower.take_in(message)
        flow = follower.poll()
        newest = flow or newest
        for name, judge in judges.items():
            if "end_s" in found[name]:
                continue
            if flow is not None:
                judge.flow_fitted(flow.findings)
            over = judge.update(message)
            stated = judge.flow_percent[name]
            if (
                "expected_end_s" not in found[name]
                and stated <= 1.5 * ASKED[name]
                and np.isfinite(judge.left_s)
            ):
                found[name]["expected_end_s"] = message.info.time_s + judge.left_s
            if over:
                last = follower.finish() or newest
                assert last is not None
                found[name] |= {
                    "end_s": message.info.time_s,
                    "stated_percent": last.findings.percent(QUANTITIES[name]),
                    "error_percent": actual_percent(name, last.fit, last.findings, true),
                }
        if all("end_s" in one for one in found.values()):
            break
    return found


ASKED = {"profile": 0.022, "flow_rate": 0.032, "wall_shear": 0.032, "diffusion": 5.0}
"""Standard errors asked for by `ends`, %: with 100 tracks alive they take 15 to 20 s."""


def truths() -> dict[str, float]:
    """The true values in the channel of `ends`."""
    liquid = LIVE.liquid()
    wall = liquid.wall()
    return {
        "flow_rate": LIVE.velocity_um_s * LIVE.section.area_um2 / 1e9,
        "wall_shear": VISCOSITY_PA_S
        * LIVE.velocity_um_s
        * float(np.average(wall.shear_per_um, weights=wall.length_um)),
        "diffusion": LIVE.diffusion_um2_s,
    }


def actual_percent(name: str, fit: ChannelFit, findings: FlowFindings, true: dict[str, float]) -> float:
    """How far a quantity is from the truth, %; of the profile, rms over the section, % of the maximum."""
    if name == "profile":
        y, z = (one.ravel() for one in np.meshgrid(np.linspace(-195, 195, 40), np.linspace(1, 99, 40)))
        shape = LIVE.liquid().at(y, z)
        off = fit.value("velocity_um_s") - LIVE.velocity_um_s
        return 100.0 * float(np.sqrt(np.mean((off * shape) ** 2)) / (LIVE.velocity_um_s * shape.max()))
    number = getattr(findings, QUANTITIES[name])
    return 100.0 * float("nan" if number is None else number.value / true[name] - 1.0)


def enough(seeds: int, first_seed: int = 0) -> list[dict[str, Any]]:
    """`ends` over seeds, a row for each quantity: rms error at the end over the one asked for."""
    return of_ends([ends(first_seed + seed) for seed in range(seeds)], first_seed)


def of_ends(runs: list[dict[str, dict[str, float]]], first_seed: int) -> list[dict[str, Any]]:
    """The rows of runs that `ends` has made."""
    rows = []
    for name, asked in ASKED.items():
        over = [one[name] for one in runs if "end_s" in one[name]]
        errors = np.array([one["error_percent"] for one in over])
        end = np.array([one["end_s"] for one in over])
        stated = [one["stated_percent"] for one in over]
        expected = np.array([one.get("expected_end_s", np.nan) for one in over])
        rows.append(
            {
                "case": "enough", "quantity": name, "asked_percent": asked, "seeds": len(runs),
                "first_seed": first_seed, "ended": len(over),
                "end_s": float(np.median(end)), "stated_percent": float(np.mean(stated)),
                "rms_error_percent": float(np.sqrt(np.mean(errors**2))),
                "actual_over_asked": float(np.sqrt(np.mean(errors**2))) / asked,
                "actual_over_stated": float(np.sqrt(np.mean((errors / np.array(stated)) ** 2))),
                "mean_error_percent": float(errors.mean()),
                "expected_end_over_end": float(np.nanmedian(expected / end)),
            }
        )  # fmt: skip
    return rows


def trapezoid() -> dict[str, Any]:
    """Finite elements against harmonic functions fitted at the wall."""
    section, series = polygon(TRAPEZOID), HarmonicSeries(np.array(TRAPEZOID))
    rng = np.random.default_rng(0)
    y, z = rng.uniform(-150, 150, 20_000), rng.uniform(0, 60, 20_000)
    found = profile_of(section)
    velocity = found.at(y, z)
    inside = velocity > 0
    mean = series.mean_um2()
    off = velocity[inside] - series.phi(np.stack([y, z], axis=1)[inside]) / mean
    return {
        "case": "trapezoid", "resistance_off": found.resistance * mean - 1.0,
        "velocity_rms_over_max": float(np.sqrt(np.mean(off**2)) / velocity.max()),
        "velocity_max_over_max": float(np.abs(off).max() / velocity.max()), "series_error": float(series.error),
    }  # fmt: skip


def cost(alive: int = 2000, seconds: int = 40, settled_s: int = 20) -> dict[str, Any]:
    """Processor time of all that a run does live for flow and diffusion, a second of it; means from `settled_s` on.

    In the control stage: taking in the frames, D across the flow, the fit, its tests, and what follows from it. In
    the page's: D of each axis with longer looks, and as asked for its map.
    """
    follower = FlowFollower(
        LIVE.section, prior_of(LIVE.section), viscosity_pa_s=VISCOSITY_PA_S, in_thread=False
    )
    page = RunningDiffusion(with_map=True)
    page.warmup()
    spent = dict.fromkeys(("frames", "fits", "page_frames", "page_diffusion"), 0.0)
    fits = 0

    def add(part: str, begun: float) -> None:
        spent[part] += time.process_time() - begun

    for message in run_of(LIVE, alive, seconds, 0):
        if message.info.time_s <= settled_s:
            spent, fits = dict.fromkeys(spent, 0.0), 0
        begun = time.process_time()
        follower.take_in(message)
        fitted = follower.poll() is not None
        add("fits" if fitted else "frames", begun)
        fits += fitted
        begun = time.process_time()
        page.update(message)
        add("page_frames", begun)
        begun = time.process_time()
        page.facts()
        add("page_diffusion", begun)
    a_second = {part: 1e3 * one / (seconds - settled_s) for part, one in spent.items()}
    return {
        "case": "cost", "alive": alive, "frame_rate_hz": RATE_HZ, "fits": fits,
        "flow_cpu_ms_a_second": a_second["frames"] + a_second["fits"],
        "page_diffusion_cpu_ms_a_second": a_second["page_frames"] + a_second["page_diffusion"],
        "of_them_ms": a_second,
    }  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    cases = ["trapezoid", "cost", "errors", "told", "named", "enough", "profile"]
    parser.add_argument("--only", choices=cases, action="append")
    parser.add_argument("--seeds", type=int, default=100, help="of `errors`")
    parser.add_argument("--tracks", type=int, default=500, help="of `errors`")
    parser.add_argument("--profiles", type=int, default=3, help="seeds of `profile`")
    parser.add_argument("--clean", type=int, default=20, help="clean runs of `told`")
    parser.add_argument(
        "--others", type=int, default=3, help="runs of `told` for each flow that is not the model"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--names", type=int, default=20, help="seeds of `named`")
    parser.add_argument("--ends", type=int, default=60, help="seeds of `enough`")
    parser.add_argument("--first-end", type=int, default=0, help="first seed of `enough`")
    options = parser.parse_args()
    chosen = options.only or cases
    rows: list[dict[str, Any]] = []
    if "trapezoid" in chosen:
        rows.append(trapezoid())
    if "cost" in chosen:
        rows.append(cost())
    if "errors" in chosen:
        rows += errors(options.seeds, options.tracks)
    if "told" in chosen:
        for case in CASES:
            runs = options.clean if case == "clean" else options.others
            rows += [told(case, seed) for seed in range(runs)]
    if "named" in chosen:
        rows += [named(case, tracks, options.names) for tracks in (200, 500) for case in CASES]
        rows += [both(case, 500, options.names // 4) for case in list(CASES)[:3]]
    if "enough" in chosen:
        rows += enough(options.ends, options.first_end)
    if "profile" in chosen:
        rows += [profile(seed) for seed in range(options.profiles)]
    for row in rows:
        print(
            "  ".join(
                f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                for name, value in row.items()
            )
        )
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
