"""Detection in one piece of a recording, and tracking of all pieces as one recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from acquisition.recorded_run.source import RecordedRun
from acquisition.recording import Recording
from liveptv.batch.one_thread import Links, build, step_all
from liveptv.batch.pieces.detections_file import DetectionsFile, write_detections, write_facts
from liveptv.batch.pieces.plan import Piece
from liveptv.batch.processing import (
    Notebook,
    Processed,
    acquire_stage,
    open_noted,
    track_detections,
)
from liveptv.config import Experiment
from liveptv.session.link_rules import wants_predictions
from liveptv.session.plan import ImageFormat
from liveptv.session.supervisor import new_run_id
from stream.errors import SourceError
from stream.messages import Detections, Frame, Message
from stream.stage import Stage


def uses_predictions(experiment: Experiment) -> bool:
    """Whether the detections in a frame may depend on the frames before it, through the tracker's predictions."""
    model = experiment.detector.model
    is_network = model is not None and model.suffix.lower() == ".onnx"
    return wants_predictions(experiment) and is_network and experiment.detector.refine


def detect_piece(experiment: Experiment, piece: Piece, is_last: bool, file: BinaryIO, run_id: str) -> None:
    """Write the detections in the frames of a piece into `file`.

    Where detection uses predictions, a tracker follows the piece from `piece.warm` on; what it finds is not kept.
    The last piece is read to the end of the recording, so that what is wrong there is told. Raises a `LivePTVError`
    if the recording or the model cannot be used.
    """
    notebook = Notebook()
    links = Links(run_id)
    found = Counter[str]()
    predicted = uses_predictions(experiment)
    warm = piece.warm if predicted else piece.first
    before: set[int] = set()
    """Numbers of the frames that are read for the tracker only; a recorded run has numbers of its own."""

    def count(message: Message) -> None:
        if not isinstance(message, Frame):
            return
        if len(before) < piece.first - warm:
            before.add(message.info.frame)
        else:
            found["received"] += 1

    def keep(message: Message) -> None:
        if isinstance(message, Detections) and message.info.frame not in before:
            write_detections(file, message)
            found["sent"] += 1
            found["particles"] += len(message)

    links.hear("acquire", "detect", count)
    links.hear("detect", "track", keep)
    with ExitStack() as stack:
        opened = open_noted(experiment, run_id, notebook, stack)
        if not isinstance(opened.source, Recording | RecordedRun):
            raise SourceError(
                f"{opened.source.info.name} cannot be read from its middle; leave out --piece-frames"
            )
        opened.source.skip_to(warm)
        images = opened.image_format
        frames = None if is_last and experiment.run.frames is None else piece.stop - warm
        stages: dict[str, Stage] = {"acquire": acquire_stage(opened.source, links, experiment, stack, frames)}
        for name in ("track", "detect") if predicted else ("detect",):
            stages[name] = build(name, experiment, run_id, links, images, notebook.record, stack)
        opened.source.start()
        sink = links.between("track", "write") if predicted else links.between("detect", "track")
        step_all(
            {name: stages[name] for name in ("acquire", "detect", "track") if name in stages}, links, sink
        )
        counts = {name: stages[name].counts() for name in ("acquire", "detect")}
    counts["detect"] |= found
    write_facts(file, {"images": asdict(images), "counts": counts, "notes": notebook.entries})


def join_pieces(experiment: Experiment, paths: Sequence[Path], output: Path, notebook: Notebook) -> Processed:
    """Track the detections of all pieces, in order, into the file `output`: the tracks of the whole recording.

    Raises `SourceError` if a piece is damaged or pieces do not belong together.
    """
    files = [DetectionsFile(path) for path in paths]
    last = -1

    def messages() -> Iterator[Detections]:
        nonlocal last
        for file in files:
            for message in file.messages():
                if message.info.frame <= last:
                    raise SourceError(f"frame {message.info.frame} is in two pieces; start the batch again")
                last = message.info.frame
                yield message

    facts, run_id = _first_facts(files[0])
    images = ImageFormat(**facts["images"])

    def counted() -> dict[str, dict[str, int]]:
        for kind, text, more in (entry for file in files for entry in file.facts["notes"]):
            notebook.record(kind, text, more)
        every = [file.facts["counts"] for file in files]
        detect = Counter[str]()
        for one in every:
            detect.update(one["detect"])
        acquire = dict(every[-1]["acquire"]) | dict.fromkeys(("sent", "received"), detect["received"])
        return {"acquire": acquire, "detect": dict(detect)}

    return track_detections(experiment, output, images, messages(), counted, notebook, run_id)


def _first_facts(file: DetectionsFile) -> tuple[dict[str, Any], str]:
    """What is known of the images, and the id of the run that the detections belong to."""
    run_id = new_run_id()
    for message in file.messages():
        run_id = message.info.run_id
    return file.facts, run_id
