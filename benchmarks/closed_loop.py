"""How well the controllers of the files in examples/ do, on the simulated microscope, beside what is true.

Simulated time: nothing depends on the speed of the machine. Rows: `flow` (seconds until the measured velocity
stays within 3 % after a doubled target, and after the pump's gain fell by 30 %), `focus` (error of the focal plane
while it drifts by 1 um/s), `slices` (frames until the profile is known as well as after 452 frames a slice),
`pulses` (particles hit within one frame of their true entry, and false pulses).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from reporting import device, save
from scipy.optimize import linear_sum_assignment

from acquisition.configuration import config_path
from acquisition.physics.channel_flow import channel_velocity_um_s
from liveptv.config import load_experiment
from liveptv.workflows.demo import make_width_curve
from tracking.analysis.velocity import velocity_profile
from tracking.control.controllers.sufficiency import profile_error_um_s
from tracking.physics.sections.choice import profile_of
from tracking.physics.sections.shapes import Rectangle

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "liveptv"))
from rehearsal import Rehearsal

EXAMPLES = Path(__file__).parents[1] / "examples"
EVERY = 6
PAPER_FLOW_UL_S = 0.63889


@contextmanager
def rehearsal(
    example: str, config: Path, home: Path, replace: dict[str, object], *settings: str, **load: int
) -> Iterator[Rehearsal]:
    """An example on a copy of a configuration with other properties of the camera; `load` as for `Rehearsal`."""
    lines = config.read_text(encoding="utf-8").splitlines()
    for name, value in replace.items():
        lines = [
            f"#py Property,Camera,{name},{value}" if f",Camera,{name}," in line else line for line in lines
        ]
    copy = home / f"{example}.cfg"
    copy.write_text("\n".join(lines), encoding="utf-8")
    own = (f'detector.model="{(home / "curve.h5").as_posix()}"', f'microscope.config="{copy.as_posix()}"')
    one = Rehearsal(load_experiment(EXAMPLES / example, [*own, *settings]), **load)
    try:
        yield one
    finally:
        one.close()


def settled_s(
    time_s: np.ndarray, velocity: np.ndarray, target: float, since_s: float, until_s: float
) -> float:
    """Time after `since_s` from which on the velocity stays within 3 % of the target."""
    inside = (time_s >= since_s) & (time_s < until_s)
    off = np.flatnonzero(np.abs(velocity[inside] / target - 1) > 0.03)
    return float(time_s[inside][min(off[-1] + 1, inside.sum() - 1)] - since_s) if len(off) else 0.0


def flow(home: Path, seed: int) -> dict[str, Any]:
    more = (
        "protocol.steps=[{target=75,seconds=12},{target=150,seconds=40}]",
        "microscope.properties={'Pump.Lag_s'=0.3}",
    )
    with rehearsal("hold_flow.toml", config_path(), home, {"Seed": seed}, *more) as one:
        history, doubled_s, changed_s = [], np.nan, np.nan
        while not one.stopped:
            one.step()
            now_s, measured = one.stream.now_s(), one.controller.measured()
            if np.isnan(doubled_s) and measured["target_um_s"] == 150:
                doubled_s = now_s
            if np.isnan(changed_s) and now_s > doubled_s + 20:
                one.microscope.set_property("Pump", "Gain", 0.7)
                changed_s = now_s
            history.append((now_s, measured["velocity_um_s"]))
    time_s, velocity = np.array(history).T
    held = (time_s > doubled_s + 10) & (time_s < changed_s)
    return {
        "case": "flow",
        "seed": seed,
        "settled_after_step_s": round(settled_s(time_s, velocity, 150, doubled_s, changed_s), 2),
        "largest_deviation_from_10_s_on": round(float(np.abs(velocity[held] / 150 - 1).max()), 4),
        "settled_after_disturbance_s": round(settled_s(time_s, velocity, 150, changed_s, time_s[-1]), 2),
    }


def shear(home: Path, seed: int, of: str = "mean") -> dict[str, Any]:
    """As `flow`, for the shear stress at the wall; `true_` columns are of the flow that the pump really has."""
    low, high = 0.0012, 0.0024
    more = (
        f"controller.hold_shear.of={of}",
        f"protocol.steps=[{{target={low},seconds=15}},{{target={high},seconds=40}}]",
        "microscope.properties={'Pump.Lag_s'=0.3}",
    )
    with rehearsal("hold_shear.toml", config_path(), home, {"Seed": seed}, *more) as one:
        liquid = profile_of(Rectangle(1000.0, 300.0))
        wall = liquid.wall()
        rate = (
            wall.shear_per_um.max()
            if of == "maximum"
            else np.average(wall.shear_per_um, weights=wall.length_um)
        )
        history, doubled_s, changed_s = [], np.nan, np.nan
        while not one.stopped:
            one.step()
            now_s, measured = one.stream.now_s(), one.controller.measured()
            if np.isnan(doubled_s) and measured["target_pa"] == high:
                doubled_s = now_s
            if np.isnan(changed_s) and now_s > doubled_s + 20:
                one.microscope.set_property("Pump", "Gain", 0.7)
                changed_s = now_s
            true = float(one.microscope.core.getProperty("Pump", "ActualFlow_uL_s")) * 1e9 / 3e5 * rate * 1e-3
            history.append((now_s, measured["wall_shear_pa"], true))
        fits = [
            entry["mean_shear_pa" if of == "mean" else "max_shear_pa"] for entry in one.record.of_kind("flow")
        ]
    time_s, shown, true = np.array(history).T
    held = (time_s > doubled_s + 10) & (time_s < changed_s)
    row: dict[str, Any] = {"case": f"shear, {of}", "seed": seed, "fits": len(fits), "last_fit": fits[-1]}
    for name, values in (("", shown), ("true_", true)):
        row |= {
            f"{name}settled_after_step_s": round(settled_s(time_s, values, high, doubled_s, changed_s), 2),
            f"{name}largest_deviation_from_10_s_on": round(float(np.abs(values[held] / high - 1).max()), 4),
            f"{name}settled_after_disturbance_s": round(
                settled_s(time_s, values, high, changed_s, time_s[-1]), 2
            ),
        }
    return row | {"true_mean_off": round(float(true[held].mean() / high - 1), 4)}


def focus(home: Path, seed: int, reference: str) -> dict[str, Any]:
    setting = f"controller.hold_focus.reference={reference}"
    with rehearsal("hold_focus.toml", config_path(), home, {"Seed": seed}, setting) as one:
        world, errors = one.stream.world, []
        start_um = world.focus.focal_plane_um(world.time_s)
        if reference != "wall":
            one.controller.retarget(float("nan"))  # hold what is seen when control begins
        while one.stream.now_s() < 60:
            one.step()
            errors.append(world.focus.focal_plane_um(world.time_s) - start_um)
        moves = len(one.record.of_kind("command"))
    off = np.array(errors)
    row = {"case": "focus", "reference": reference, "seed": seed, "drift_um": 60.0, "moves": moves}
    return row | {
        "largest_error_um": round(float(np.abs(off).max()), 2),
        "rms_um": round(float(np.sqrt((off**2).mean())), 2),
    }


def deviation_um_s(
    depth_um: np.ndarray, velocity_um_s: np.ndarray, focus_um: float, bin_um: float
) -> list[float]:
    """Of the profile's points from the simulated flow at their heights."""
    first, last = np.floor(depth_um.min() / bin_um), np.floor(depth_um.max() / bin_um) + 1
    found = velocity_profile(depth_um, velocity_um_s, bins=bin_um * np.arange(first, last + 1))
    good = found.tracks >= 5
    height_um = focus_um + found.height_um[good]
    true = channel_velocity_um_s(np.zeros(len(height_um)), height_um, 7000.0, 3000.0, PAPER_FLOW_UL_S)
    return list(found.velocity_um_s[good] - true)


def slices(home: Path, seed: int, height_px: int) -> list[dict[str, Any]]:
    """452 frames of each slice; when would it have been enough, for several standard errors?"""
    particles = round(200 * height_px / 1440)
    size = {"Height": height_px, "ParticlesPerFrame": particles, "Seed": seed}
    more = ("controller.until_enough.standard_error_um_s=1e-9",)
    stays: dict[int, list[tuple[int, float, list[float]]]] = {}
    started: dict[int, int] = {}
    with rehearsal("until_enough.toml", config_path("paper"), home, size, *more) as one:
        run: Any = one.controller
        while not one.stopped:
            one.step()
            judge = run._sufficiency
            if judge is None or run._now is None or run._first_frame < 0:
                continue
            stay = stays.setdefault(run._now.index, [])
            frames = one.frames - started.setdefault(run._now.index, one.frames) + 1
            depth_um, velocity_um_s = judge.profile()
            if frames % EVERY or not len(depth_um):
                continue
            off = deviation_um_s(depth_um, velocity_um_s, run._now.focus_um, judge._enough.bin_um)
            error = profile_error_um_s(depth_um, velocity_um_s, judge._enough.bin_um)
            stay.append((frames, error, off))
    fixed = np.array([stay[-1][1] for stay in stays.values()])
    wanted = float(np.sqrt(np.nanmean(fixed**2)))
    rows = [_row("fixed", seed, height_px, [stay[-1] for stay in stays.values()])]
    for target in (0.2, 0.25, 0.3, 0.35, 0.4):
        ends = [next((s for s in stay if s[1] <= target), stay[-1]) for stay in stays.values()]
        rows.append(_row(f"until {target:g} um/s", seed, height_px, ends))
        rows[-1]["frames_of_fixed"] = round(rows[-1]["frames"] / rows[0]["frames"], 3)
        rows[-1]["as_good_as_fixed"] = bool(rows[-1]["standard_error_um_s"] <= wanted)
    return rows


def _row(case: str, seed: int, height_px: int, ends: list[tuple[int, float, list[float]]]) -> dict[str, Any]:
    errors = np.array([end[1] for end in ends])
    off = np.concatenate([end[2] for end in ends])
    return {
        "case": f"slices, {case}",
        "seed": seed,
        "picture_px": [height_px, 2560],
        "slices": len(ends),
        "frames": int(sum(end[0] for end in ends)),
        "standard_error_um_s": round(float(np.sqrt(np.nanmean(errors**2))), 4),
        "largest_standard_error_um_s": round(float(np.nanmax(errors)), 4),
        "true_deviation_rms_um_s": round(float(np.sqrt((off**2).mean())), 4),
    }


def adaptive(home: Path, seed: int, height_px: int) -> dict[str, Any]:
    """The example as it is, by itself."""
    particles = round(200 * height_px / 1440)
    size = {"Height": height_px, "ParticlesPerFrame": particles, "Seed": seed}
    with rehearsal("until_enough.toml", config_path("paper"), home, size) as one:
        frames = 0
        while not one.stopped:
            one.step()
            frames += 1
        done = [entry for entry in one.record.of_kind("slice") if entry["done"]]
    errors = np.array([entry["standard_error_um_s"] for entry in done])
    return {
        "case": "slices, until_enough by itself",
        "seed": seed,
        "picture_px": [height_px, 2560],
        "slices": len(done),
        "frames_measured": sum(entry["last_frame"] - entry["first_frame"] + 1 for entry in done),
        "frames_with_moves": frames,
        "reached": sum(entry["reached"] for entry in done),
        "standard_error_um_s": round(float(np.sqrt(np.nanmean(errors**2))), 4),
    }


def pulses(home: Path, seed: int) -> dict[str, Any]:
    with rehearsal("pulse_on_entry.toml", EXAMPLES / "pulsed.cfg", home, {"Seed": seed}) as one:
        world, before, entered = one.stream.world, {}, []
        while one.stream.now_s() < 60:
            one.step()
            p = world.particles_at(world.time_s - 1 / 60)
            counts = (p.height_um >= 100) & (p.height_um <= 200) & (p.y_um >= 0) & (p.y_um <= 408)
            for identity, x, v, inside in zip(p.identity, p.x_um, p.vx_um_s, counts, strict=True):
                if inside and before.get(identity, np.inf) < 200 <= x:
                    entered.append(p.time_s - 1 / 60 - (x - 200) / v)
            before = dict(zip(p.identity, p.x_um, strict=True))
        times = str(one.microscope.core.getProperty("Laser", "PulseTimes_s")).split()
    true, fired = np.array(entered), np.array(times, float)
    true, fired = true[true > 2], fired[fired > 2 - 1 / 60]
    off = np.abs(fired[None, :] - true[:, None])
    cost = np.where(off <= 1.001 / 60, off, 1e3)
    rows, columns = linear_sum_assignment(cost)
    hit = int(np.count_nonzero(cost[rows, columns] < 1e3))
    return {
        "case": "pulses",
        "seed": seed,
        "entered": len(true),
        "pulses": len(fired),
        "hit": round(hit / len(true), 4),
        "false": round(1 - hit / len(fired), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--height", type=int, default=720, help="rows of the picture of the 21 slices")
    parser.add_argument("--only", nargs="+", choices=("flow", "shear", "focus", "pulses", "slices"))
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    wanted = options.only or ("flow", "shear", "focus", "pulses", "slices")
    print(device())
    rows: list[dict[str, Any]] = []

    def add(*new: dict[str, Any]) -> None:
        for row in new:
            rows.append(row)
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_width_curve(home / "curve.h5", print)
        for seed in range(1, options.seeds + 1):
            if "flow" in wanted:
                add(flow(home, seed))
            if "shear" in wanted:
                add(shear(home, seed))
            if "focus" in wanted:
                add(*(focus(home, seed, reference) for reference in ("tracks", "wall")))
            if "pulses" in wanted:
                add(pulses(home, seed))
        if "slices" in wanted:
            add(*slices(home, 1, options.height), adaptive(home, 1, options.height))
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
