"""A live run on the GPU: the simulated microscope through the whole program, every frame accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acquisition.configuration import config_path
from liveptv.config import Experiment, build_experiment
from liveptv.session.link_rules import default_age_limit_ms

Row = dict[str, Any]


def live(
    model: Path,
    detector: Row,
    shape: tuple[int, int],
    particles: int,
    rate_hz: float,
    seconds: float,
    home: Path,
    *,
    rehearse: bool = False,
) -> Row:
    """Run for `seconds`; what became of the frames, and how old the results were. A GPU that fails ends the run."""
    from never_late import ages, balance, measure

    settings = _experiment(model, detector, shape, particles, rate_hz, seconds, home, rehearse)
    outcome, frames, memory = measure(settings)
    limit_ms = default_age_limit_ms(rate_hz)
    counts = outcome.result.counts.get("detect", {})
    wanted = ("received", "sent", "dropped", "reduced", "refined", "left_out_crowded", "left_out_no_light")
    return (
        {"camera_hz": rate_hz, "seconds": seconds, "shape": list(shape), "particles": particles}
        | ages(frames, limit_ms)
        | balance(outcome)
        | {"detect": {name: counts[name] for name in wanted if name in counts}}
        | memory.row()
    )


def _experiment(
    model: Path,
    detector: Row,
    shape: tuple[int, int],
    particles: int,
    rate_hz: float,
    seconds: float,
    home: Path,
    rehearse: bool,
) -> Experiment:
    """The demonstration's microscope with another camera."""
    lines = config_path().read_text(encoding="utf-8").splitlines()
    camera = {"Width": shape[1], "Height": shape[0], "FrameRate": rate_hz, "ParticlesPerFrame": particles}
    for name, value in camera.items():
        lines = [
            f"#py Property,Camera,{name},{value:g}" if f",Camera,{name}," in line else line for line in lines
        ]
    config = home / "live.cfg"
    config.write_text("\n".join(lines), encoding="utf-8")
    data: dict[str, Any] = {
        "run": {"output": str(home / "tracks.h5"), "overwrite": True, "seconds": seconds},
        "microscope": {"config": str(config), "properties": {"Camera.Exposure": min(0.55, 500 / rate_hz)}},
        "limits": {"max_flow_ul_s": 0.1, "min_focus_um": 0.0, "max_focus_um": 300.0},
        "channel": {"width_um": 1000.0, "depth_um": 300.0},
        "detector": {"model": str(model), "on_failure": "stop", **detector},
    }
    if rehearse:  # in one process, which starts sooner
        data |= {"session": {"mode": "threads"}, "link": {"transport": "inproc"}}
    return build_experiment(data, "the benchmark")
