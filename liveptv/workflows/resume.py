"""Continues an interrupted protocol: skips the slices that were measured and joins the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from liveptv.config import Experiment
from liveptv.files import RunFiles
from liveptv.workflows.run import add_control_record
from stream.errors import ConfigurationError
from tracking.control.controllers.protocol_run import slices_of
from tracking.control.protocol_settings import Enough, ProtocolSettings, StepSettings
from tracking.trajectories.concatenation import join
from tracking.trajectories.control_record import read_control
from tracking.trajectories.recovery import recover


@dataclass(frozen=True, slots=True)
class Resumed:
    """The rest of an experiment, the file with what was measured (`part`, or None), and how many slices that is."""

    experiment: Experiment
    part: Path | None
    done: int


def protocol_of(experiment: Experiment) -> ProtocolSettings | None:
    """The slices of an experiment as a protocol, also where `until_enough` goes through them."""
    controller = experiment.controller
    if controller is None or controller.until_enough is None:
        return experiment.protocol
    settings = controller.until_enough
    enough = Enough(**settings.model_dump(include=set(Enough.model_fields)))
    return ProtocolSettings(
        steps=[StepSettings(focus_um=settings.slices, settle_s=settings.settle_s, until=enough)]
    )


def prepare_to_resume(experiment: Experiment, files: RunFiles) -> Resumed:
    """Set aside what has been measured and determine what remains.

    The slice in which it stopped is measured again from its start; its first part stays in the file.
    Raises `ConfigurationError` if there is no protocol, or nothing is left to measure.
    """
    protocol = protocol_of(experiment)
    if protocol is None:
        raise ConfigurationError("only a protocol can be resumed; add [[protocol.steps]] or until_enough")
    part = files.tracks.with_name(f"{files.tracks.stem}.part.h5")
    complete = f"{files.tracks} is complete: every slice has been measured"
    if files.tracks.exists():
        _complete(files)
        if part.exists():
            join(part, files.tracks, part)
            files.tracks.unlink()
        elif slices_done(files.tracks) >= len(slices_of(protocol)):
            raise ConfigurationError(complete)
        else:
            files.tracks.replace(part)
        _put_aside(files.events, _events_of(part))
        files.clear()
    if not part.exists():
        return Resumed(experiment, None, 0)
    done = slices_done(part)
    left = protocol.model_copy(update={"resume_at": done})
    controller = experiment.controller
    if controller is not None and controller.steers_the_run:
        controller = None  # its slices are in the protocol now
    resumed = experiment.model_copy(update={"protocol": left, "controller": controller})
    return Resumed(resumed, part, done)


def finish_resumed(resumed: Resumed, files: RunFiles) -> None:
    """Join what was measured before with what has been measured now, in the experiment's own files."""
    part = resumed.part
    if part is None or not files.tracks.exists():
        return
    join(part, files.tracks, files.tracks)
    part.unlink()
    _join_events(part, files)


def give_back(resumed: Resumed, files: RunFiles) -> None:
    """After a run without a measurement: give the earlier files their names back."""
    part = resumed.part
    if part is None or files.tracks.exists():
        return
    part.replace(files.tracks)
    _join_events(part, files)


def _join_events(part: Path, files: RunFiles) -> None:
    earlier = _events_of(part)
    if earlier.exists():
        later = files.events.read_text(encoding="utf-8") if files.events.exists() else ""
        files.events.write_text(earlier.read_text(encoding="utf-8") + later, encoding="utf-8")
        earlier.unlink()


def _events_of(part: Path) -> Path:
    return part.with_suffix(".events.jsonl")


def _put_aside(events: Path, aside: Path) -> None:
    if events.exists():
        with aside.open("a", encoding="utf-8") as file:
            file.write(events.read_text(encoding="utf-8"))


def _complete(files: RunFiles) -> None:
    """Repair the trajectory file, and add its control record from the event log if the session could not."""
    recover(files.tracks, locked=True)
    add_control_record(files)


def slices_done(tracks: Path) -> int:
    """How many slices have been measured, from the first on, by the record in a trajectory file."""
    found = {entry["slice"] for entry in read_control(tracks) if entry["kind"] == "slice" and entry["done"]}
    done = 0
    while done in found:
        done += 1
    return done
