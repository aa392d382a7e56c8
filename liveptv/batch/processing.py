"""Processes one recording in one thread: detection, tracking and the finished trajectory file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acquisition.source import Source
from acquisition.stage import AcquireStage
from liveptv.batch.one_thread import Links, build, step_all
from liveptv.config import Experiment
from liveptv.session.frame_account import FileContents, close_account
from liveptv.session.plan import ImageFormat
from liveptv.session.self_check import checks_of
from liveptv.session.sources import OpenedSource, open_source
from liveptv.session.supervisor import new_run_id
from liveptv.volumes.projections import flattened
from liveptv.workflows.run import KEPT_AS, KEPT_EVENTS
from stream.messages import Detections, Frame, Message
from stream.stage import Stage
from tracking.trajectories.compression import pack
from tracking.trajectories.file import TrajectoryFile, annotate
from tracking.trajectories.snapshot import store_snapshot

DONE = "done"


@dataclass(frozen=True, slots=True)
class Processed:
    """What a finished trajectory file holds: frames, rows, trajectories that count, detections, frames lost."""

    frames: int
    rows: int
    tracks: int
    detections: int
    lost: int


class Notebook:
    """The lines that the stages have for the user, each once, with what they belong to."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, dict[str, Any]]] = []

    def record(self, kind: str, text: str, facts: dict[str, Any]) -> None:
        """Keep an entry."""
        if all(text != known for _, known, _ in self.entries):
            self.entries.append((kind, text, facts))

    @property
    def notes(self) -> list[str]:
        """The lines that a user should see."""
        return [text for kind, text, _ in self.entries if kind in {"note", "recording"}]


class LastPicture:
    """Keeps the last frame together with its detections, for the report."""

    def __init__(self) -> None:
        self._frames: dict[int, Frame] = {}
        self.best: tuple[Frame, Detections] | None = None

    def hear(self, message: Message) -> None:
        """Take a frame, or the detections in one; both come in order."""
        if isinstance(message, Frame):
            self._frames[message.info.frame] = message
        elif isinstance(message, Detections):
            frame = self._frames.pop(message.info.frame, None)
            if frame is not None:
                self.best = frame, message


def process_recording(experiment: Experiment, output: Path, notebook: Notebook) -> Processed:
    """Detect and track a recording into the file `output`, which is finished and packed when this returns.

    The rows are those of `liveptv replay` with the same settings. Raises a `LivePTVError` if the recording, the
    model or the output cannot be used.
    """
    run_id = new_run_id()
    links, picture = Links(run_id), LastPicture()
    links.hear("acquire", "detect", picture.hear)
    links.hear("detect", "track", picture.hear)
    with ExitStack() as stack:
        opened = open_noted(experiment, run_id, notebook, stack)
        images = opened.image_format
        stages: dict[str, Stage] = {"acquire": acquire_stage(opened.source, links, experiment, stack)}
        for name in ("track", "detect", "write"):  # the tracker makes the link that the detector asks for
            stages[name] = build(
                name, _writing_to(experiment, output), run_id, links, images, notebook.record, stack
            )
        opened.source.start()
        step_all({name: stages[name] for name in ("acquire", "detect", "track", "write")}, links)
        counts = {name: stage.counts() for name, stage in stages.items()}
        checks = checks_of([stages["detect"].gauges(), stages["track"].gauges()])
    return finish(output, counts, notebook, picture, checks)


def track_detections(
    experiment: Experiment,
    output: Path,
    images: ImageFormat,
    messages: Iterable[Detections],
    counted: Callable[[], dict[str, dict[str, int]]],
    notebook: Notebook,
    run_id: str,
) -> Processed:
    """Track detections, in order, into the file `output`, as `process_recording` would have.

    `counted` gives the counts of the stages before, once all `messages` are taken.
    """
    links = Links(run_id)
    sender = links.between("detect", "track").sender
    with ExitStack() as stack:
        detector = experiment.detector.model_copy(update={"prediction": "off"})
        alone = experiment.model_copy(update={"detector": detector})  # nobody waits for predictions
        stages = {
            "track": build("track", alone, run_id, links, images, notebook.record, stack),
            "write": build(
                "write", _writing_to(experiment, output), run_id, links, images, notebook.record, stack
            ),
        }
        for message in messages:
            sender.send(message)
            while links.between("detect", "track").unread:
                stages["track"].step(0.0)
            while links.between("track", "write").unread:
                stages["write"].step(0.0)
        sender.end(DONE)
        step_all(stages, links)
        counts = counted() | {name: stage.counts() for name, stage in stages.items()}
        checks = checks_of([stages["track"].gauges()])
    return finish(output, counts, notebook, LastPicture(), checks)


def acquire_stage(
    source: Source, links: Links, experiment: Experiment, stack: ExitStack, frames: int | None = None
) -> AcquireStage:
    """The stage that reads a recording; `frames` of it, else as many as the settings say."""
    stage = AcquireStage(
        source,
        [links.between("acquire", "detect").sender],
        frames=frames or experiment.run.frames,
        seconds=experiment.run.seconds,
    )
    stack.callback(stage.close)
    return stage


def open_noted(experiment: Experiment, run_id: str, notebook: Notebook, stack: ExitStack) -> OpenedSource:
    """Open the recording, with what had to be assumed or decided noted; it is closed with `stack`."""
    opened = open_source(experiment, run_id, lambda text: notebook.record("note", text, {}))
    stack.callback(opened.close)
    for text in opened.remarks:
        notebook.record("recording", text, {})
    return opened


def _writing_to(experiment: Experiment, output: Path) -> Experiment:
    run = experiment.run.model_copy(update={"output": output.absolute(), "overwrite": True})
    return experiment.model_copy(update={"run": run})


def finish(
    output: Path,
    counts: dict[str, dict[str, int]],
    notebook: Notebook,
    picture: LastPicture,
    checks: dict[str, float],
) -> Processed:
    """Add the account of the frames, what was noted and the picture to a file, and pack it."""
    with TrajectoryFile(output) as file:
        contents = FileContents.of(file.frames)
        statistics: dict[str, float] = file.attributes["statistics"]
    account = close_account(counts, contents)
    facts: dict[str, Any] = {
        "accounts": counts,
        "account": account.to_dict(),
        "session_end_reason": DONE,
        "failures": [],
        "batch_notes": [{"kind": kind, "text": text} | extra for kind, text, extra in notebook.entries],
    }
    facts |= {
        KEPT_AS[kind]: {key: extra.get(key) for key in KEPT_EVENTS[kind]}
        for kind, _, extra in notebook.entries
        if kind in KEPT_EVENTS
    }
    if checks:
        facts["self_check"] = checks
    annotate(output, facts)
    if picture.best is not None:
        frame, detections = picture.best
        flat, sides = flattened(frame)
        store_snapshot(output, flat, detections, sides)
    pack(output)
    return Processed(
        contents.frames,
        int(statistics["rows"]),
        int(statistics["tracks_counted"]),
        counts.get("detect", {}).get("particles", 0),
        account.total_lost,
    )
