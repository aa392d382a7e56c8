"""Volumes from the simulated microscope behind the real core: rates, losses, and whether every loss is declared.

camera thread (draws particles, noise) -> frame queue -> VolumeStream. The camera keeps an absolute schedule; the
drive follows its trigger through loaded positions. `undeclared` is how many images the camera lost, by its own
count, beyond those that volumes say are missing; `out_of_place` how many slices were not taken at the height that
their volume says, by the positions of the simulated drive.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from reporting import device, save

from acquisition.microscope.microscope import Microscope
from acquisition.settings import LimitsSettings, MicroscopeSettings
from acquisition.simulated.properties import shared_world
from acquisition.volumes.settings import VolumeSettings
from acquisition.volumes.stream import VolumeStream
from stream.messages import Frame

CONFIG = """
#py pyDevice,Camera,acquisition.simulated.devices,FluorescenceCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py Property,Camera,Optics,{optics}
#py Property,Camera,Width,{size}
#py Property,Camera,Height,{size}
#py Property,Camera,ChannelDepth_um,10
#py Property,Camera,ParticlesPerVolume,{particles}
#py Property,Camera,FrameRate,{rate}
#py Property,Camera,DropEvery,{drop}
#py Property,Camera,RealTime,{real}
#py Property,Focus,StartPosition_um,3
#py Property,Focus,Lag_s,0
#py Property,Focus,Speed_um_s,100000
#py Property,Focus,SequenceMaxLength,{held}
Property,Core,Initialize,1
#py Property,Camera,Exposure,0.5
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
"""
LOWEST_UM, STEP_UM = 2.0, 0.5
AT_PLACE_UM = 0.1  # um that the simulated drive may be off its slice: a fifth of a step


class Heights:
    """Where the simulated drive was at each exposure, by the time of the exposure."""

    def __init__(self, microscope: Microscope) -> None:
        self.world = shared_world(str(microscope.core.getProperty(microscope.camera, "World")))
        self.at_s: dict[float, float] = {}
        self._particles_at = self.world.particles_at
        self.world.particles_at = self._noting  # type: ignore[method-assign]

    def _noting(self, time_s: float) -> Any:
        particles = self._particles_at(time_s)
        self.at_s[round(time_s, 4)] = self.world.focus.focal_plane_um(time_s)
        return particles


def out_of_place(frames: list[Frame], heights: Heights, first_s: float) -> int:
    """Slices that were not taken where their volume says."""
    wrong = 0
    for frame in frames:
        about = frame.info.volume
        assert about is not None
        for k, (z_um, time_s) in enumerate(zip(about.z_um, about.time_s, strict=True)):
            if k in about.missing:
                continue
            exposed_s = round(frame.info.camera_time_s + time_s + first_s, 4)
            there = [heights.at_s.get(round(exposed_s + d, 4)) for d in (0.0, 1e-4, -1e-4)]
            found = next((height for height in there if height is not None), np.nan)
            wrong += not abs(found - frame.info.focus_um - z_um) < AT_PLACE_UM
    return wrong


def measure(folder: Path, case: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Take volumes for some seconds; returns one row."""
    path = folder / "volumes.cfg"
    path.write_text(CONFIG.format(**case), encoding="utf-8")
    settings = MicroscopeSettings(config=str(path), pixel_size_um=0.2, buffer_mb=512)
    plan = VolumeSettings(
        slices=case["slices"], z_step_um=STEP_UM, start_um=LOWEST_UM, direction=case["direction"]
    )
    microscope = Microscope(settings)
    try:
        heights = Heights(microscope)
        limits = LimitsSettings(min_focus_um=0, max_focus_um=50)
        stream = VolumeStream(microscope, settings, plan, limits, run_id="bench")
        cpu_s, began_s = time.process_time(), time.perf_counter()
        stream.start()
        frames: list[Frame] = []
        while time.perf_counter() - began_s < seconds:
            frame = stream.read(0.05)
            if frame is not None:
                frames.append(frame)
                frame.image.reshape(-1)[::4096].sum()
        elapsed_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        stream.stop()
        while not stream.ended:
            frame = stream.read(0.05)
            if frame is not None:
                frames.append(frame)
        lost = int(float(microscope.core.getProperty(microscope.camera, "FramesLost")))
        counts, account = stream.counts(), stream.account
        first_s = min(heights.at_s) - (frames[0].info.camera_time_s if frames else 0.0)
        wrong = out_of_place(frames, heights, first_s)
        stream.close()
    finally:
        microscope.close()
    wanted = case["rate"] / case["slices"]
    return case | {
        "wanted_per_s": wanted,
        "volumes_per_s": round(len(frames) / elapsed_s, 2),
        "received": counts["received"],
        "partial": account.partial,
        "lost": account.lost,
        "slices_lost": account.slices_lost,
        "camera_lost": lost,
        "undeclared": max(0, lost - account.slices_lost - 1),
        "out_of_place": wrong,
        "cores": round(cpu_s / elapsed_s, 2),
        "volumes_per_core_s": round(len(frames) / cpu_s, 1),
        "mb_per_s": round(sum(frame.image.nbytes for frame in frames) / elapsed_s / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each case")
    parser.add_argument("--size", nargs="+", type=int, default=[256, 512], help="pixels to a side")
    parser.add_argument("--rate", type=float, default=200.0, help="images per second")
    parser.add_argument(
        "--simulated-time",
        action="store_true",
        help="as fast as possible instead of at the rate: volumes_per_core_s holds on a busy computer too",
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    print(device())
    base = {"slices": 10, "rate": options.rate, "particles": 500, "held": 1000, "direction": "both"}
    base["real"] = int(not options.simulated_time)
    cases: list[dict[str, Any]] = []
    for size in options.size:
        for optics, drop in (("confocal", 0), ("confocal", 1000), ("light_sheet", 0)):
            cases.append(base | {"size": size, "optics": optics, "drop": drop})
    cases.append(base | {"size": options.size[0], "optics": "confocal", "drop": 0, "held": 0})
    rows = []
    for case in cases:
        with TemporaryDirectory() as folder:
            row = measure(Path(folder), case, options.seconds)
        rows.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
