"""The marker of a recording that is done: what its result was made from, and what is in it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liveptv import __version__
from liveptv.batch.processing import Processed
from liveptv.batch.recordings.fingerprint import Fingerprint
from liveptv.batch.results.identity import difference, key_of
from liveptv.batch.results.places import Places, put_in_place, read_json, write_json
from tracking.trajectories.inspection import run_of

VERSION = 1
SCHEMA = "liveptv_batch"


@dataclass(frozen=True, slots=True)
class Marker:
    """From which recording, with which settings and model a result was made; and what it holds."""

    recording: str
    fingerprint: Fingerprint
    identity: dict[str, Any]
    processed: Processed
    pieces: int = 1
    seconds: float = 0.0
    worker: str = ""
    run_id: str = ""
    finished: str = ""
    version: str = __version__
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        found = self.processed
        return {
            SCHEMA: VERSION,
            "recording": {"path": self.recording, **self.fingerprint.to_dict()},
            "settings": self.identity,
            "settings_sha256": key_of(self.identity),
            "result": {
                "frames": found.frames,
                "rows": found.rows,
                "tracks": found.tracks,
                "detections": found.detections,
                "frames_lost": found.lost,
                "run_id": self.run_id,
            },
            "pieces": self.pieces,
            "seconds": round(self.seconds, 3),
            "worker": self.worker,
            "finished": self.finished or time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "liveptv": self.version,
            "notes": self.notes,
        }

    @classmethod
    def of(cls, facts: dict[str, Any] | None) -> Marker | None:
        """From what a file holds; None if it is no marker that this version knows."""
        try:
            if facts is None or facts[SCHEMA] != VERSION:
                return None
            result = facts["result"]
            return cls(
                recording=str(facts["recording"]["path"]),
                fingerprint=Fingerprint.read(facts["recording"]),
                identity=dict(facts["settings"]),
                processed=Processed(
                    int(result["frames"]),
                    int(result["rows"]),
                    int(result["tracks"]),
                    int(result["detections"]),
                    int(result["frames_lost"]),
                ),
                pieces=int(facts["pieces"]),
                seconds=float(facts["seconds"]),
                worker=str(facts["worker"]),
                run_id=str(result["run_id"]),
                finished=str(facts["finished"]),
                version=str(facts["liveptv"]),
                notes=[str(note) for note in facts["notes"]],
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def marker_of(places: Places) -> Marker | None:
    """The marker of a result that is there; None without a marker or without the result."""
    if not places.result.is_file():
        return None
    return Marker.of(read_json(places.marker))


def complete(places: Places) -> Marker | None:
    """The marker; if a process was killed after its result had its name and before the marker had, that is done
    now.
    """
    coming = Marker.of(read_json(places.coming_marker))
    if coming is not None and places.result.is_file() and run_of(places.result) == coming.run_id:
        put_in_place(places.coming_marker, places.marker)
    return marker_of(places)


def publish(places: Places, unfinished: Path, marker: Marker) -> None:
    """Give a result its name, and then its marker. Raises `OutputError`."""
    write_json(places.coming_marker, marker.to_dict())
    put_in_place(unfinished, places.result)
    put_in_place(places.coming_marker, places.marker)


def why_not_the_same(marker: Marker, identity: dict[str, Any], is_same_recording: bool) -> str:
    """Why a result is not what would be made now; "" if it is."""
    words = difference(marker.identity, identity)
    if not is_same_recording:
        words = f"another recording{', ' if words else ''}{words}"
    return words
