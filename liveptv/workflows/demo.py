"""The demonstration: prepares an experiment on the simulated microscope in its own folder."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liveptv.config import Experiment, apply_override, build_experiment
from liveptv.files import RunFiles, claimed
from liveptv.models import SHIPPED_MODEL
from stream.errors import OutputError

FOLDER = "liveptv-demo"
MODEL = "model.onnx"
SETTINGS = "experiment.toml"
CONFIG = "simulated"

EXPERIMENT = """\
# The experiment of `liveptv demo`. Run it again with: liveptv run {settings} -o NAME.h5

[run]
seconds = {seconds:g}

[microscope]
config = "simulated"          # the simulated microscope; yours is the .cfg of Micro-Manager

[limits]                      # limits for commands of the live page and of controllers
max_flow_ul_s = {max_flow_ul_s:g}
min_focus_um = {min_focus_um:g}
max_focus_um = {max_focus_um:g}

[channel]                     # for the analytical velocity profile in the report
width_um = {width_um:g}
depth_um = {depth_um:g}

[detector]
model = "{model}"             # the network that comes with the program, trained for these optics
"""


@dataclass(frozen=True, slots=True)
class PreparedDemo:
    """The experiment of `liveptv demo`, and its files."""

    experiment: Experiment
    files: RunFiles


def prepare_demo(
    folder: Path | None,
    seconds: float,
    overrides: Iterable[str],
    *,
    overwrite: bool,
    say: Callable[[str], None],
) -> PreparedDemo:
    """Create the folder, the model and the experiment file of the demonstration.

    Without `folder` a new one is created in the current folder. With another microscope (`--set
    microscope.config=...`) there is no model and no channel: particles are tracked in 2D.
    """
    home = _make_folder(folder)
    files = RunFiles.within(home)
    files.check(overwrite)
    with claimed(files.tracks, "a demonstration"):
        experiment = _prepare(home, files, seconds, overrides, overwrite, say)
    return PreparedDemo(experiment, files)


def _prepare(
    home: Path,
    files: RunFiles,
    seconds: float,
    overrides: Iterable[str],
    overwrite: bool,
    say: Callable[[str], None],
) -> Experiment:
    channel = {"width_um": 1000.0, "depth_um": 300.0}
    limits = {"max_flow_ul_s": 0.1, "min_focus_um": 0.0, "max_focus_um": 300.0}
    data: dict[str, Any] = {
        "run": {"seconds": seconds, "output": str(files.tracks), "overwrite": overwrite},
        "microscope": {"config": CONFIG},
    }
    for override in overrides:
        apply_override(data, override)
    if data["microscope"].get("config") == CONFIG:
        model = home / MODEL
        try:
            shutil.copyfile(SHIPPED_MODEL, model)
        except OSError as error:
            raise OutputError(f"cannot write {model}: {error.strerror}; pass --output") from error
        data.setdefault("detector", {}).setdefault("model", str(model))
        data.setdefault("channel", channel)
        data.setdefault("limits", limits)
        text = EXPERIMENT.format(
            settings=home / SETTINGS, seconds=seconds, model=model.absolute().as_posix(), **channel, **limits
        )
        try:
            (home / SETTINGS).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {home / SETTINGS}: {error.strerror}; pass --output") from error
    else:
        say(
            f"{data['microscope'].get('config')} is not the simulated microscope: particles are tracked in 2D"
        )
    return build_experiment(data, "the settings of the demo")


def make_width_curve(path: Path, say: Callable[[str], None]) -> None:
    """Write the width curve of the simulated microscope's optics, kept in the user's cache folder."""
    import platformdirs

    from acquisition.physics.optics import IMAGE_MODEL_VERSION, OpticsModel
    from calibration.width_curve import width_curve_from_optics
    from engines.classical.widths import WidthCurve
    from liveptv import __version__
    from stream.errors import LivePTVError

    kept = platformdirs.user_cache_path("liveptv") / f"width-curve-{IMAGE_MODEL_VERSION}-{__version__}.h5"
    try:
        curve = WidthCurve.load(kept)
    except (LivePTVError, OSError):
        say("computing the width curve of the simulated optics (a few seconds, only once)")
        curve = width_curve_from_optics(OpticsModel())
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            curve.save(kept, overwrite=True)
        except (LivePTVError, OSError) as error:
            say(f"the width curve cannot be cached: {error}")
    curve.save(path, overwrite=True)


def _make_folder(folder: Path | None) -> Path:
    given = [] if folder is None else [folder]
    names = itertools.chain([FOLDER], (f"{FOLDER}-{number}" for number in itertools.count(2)))
    for candidate in itertools.chain(given, map(Path, names)):
        try:
            candidate.mkdir(parents=True, exist_ok=folder is not None)
        except FileExistsError as error:
            if folder is None:
                continue  # an earlier demonstration's, or that of one that is being started now
            raise OutputError(f"{folder} is a file; --output must be a folder") from error
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {candidate}: {error.strerror}; pass --output"
            ) from error
        return candidate
    raise OutputError("there is no folder to write to")
