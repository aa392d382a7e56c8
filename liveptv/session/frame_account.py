"""The account of a run's frames: exposed = in the file + lost, and where each frame was lost.

It combines the counts of the stages with the contents of the file. The counts of a killed stage end with its last
report: numbers that depend on them are then lower bounds, and the account says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracking.trajectories.schema import RecordArray

Counts = Mapping[str, Mapping[str, int]]

TOO_LATE = "too old when the detector got them"
NOT_IN_THE_RUN = "not tracked in the run that is replayed either"
NOT_RECORDED = "not in the recording"
DETECTOR_FAILED = "in which the detector failed"
DROPS = (
    (NOT_IN_THE_RUN, "acquire", "not_in_the_run"),
    (NOT_RECORDED, "acquire", "not_recorded"),
    ("before the detector", "acquire", "to_detect.dropped"),
    (TOO_LATE, "detect", "dropped_late"),
    (DETECTOR_FAILED, "detect", "failed_frames"),
    ("before the tracker", "detect", "to_track.dropped"),
    ("before the writer", "track", "to_write.dropped"),
    ("in an earlier file, which was spoilt", "write", "in_spoilt_file"),
)
FINAL = "account.final"
"""Set by a stage that accepts nothing more (it drains, or ended with an error): its counts are complete."""
IN_CAMERA = "in the camera"
IN_RECORDING = "in the recording"
AT_SENDER = "at the sender or on the way from it"
IN_FOLDER = "missing in the folder"
SOURCES = {
    IN_CAMERA: "lost_in_camera",
    IN_RECORDING: "lost_in_recording",
    AT_SENDER: "lost_at_sender",
    IN_FOLDER: "lost_in_folder",
}
"""Where frames are lost before a run has them, and the count of the acquisition that says so."""
IN_BUFFER = "in the camera's buffer, never read"
IN_THE_FILE = "in the trajectory file, which cannot be read"
ON_THE_WAY = "on their way when the run ended"


@dataclass(frozen=True, slots=True)
class FileContents:
    """The frames of a trajectory file. `last_frame` is -1 if there are none.

    `lost_in_camera` counts the gaps in the camera's own numbers between the first and the last frame of the file.
    `readable`: whether the file could be read at the end.
    """

    frames: int = 0
    last_frame: int = -1
    lost_in_camera: int = 0
    readable: bool = True

    @classmethod
    def of(cls, frames: RecordArray) -> FileContents:
        """From the committed entries of `/frames` (FRAME)."""
        if len(frames) == 0:
            return cls()
        number, camera = frames["frame"].astype(np.int64), frames["camera_frame"]
        gaps = np.diff(camera) - np.diff(number)
        return cls(len(frames), int(number[-1]), int(gaps[gaps > 0].sum()))


@dataclass(frozen=True, slots=True)
class FrameAccount:
    """How many frames the camera exposed during the run, and what became of them.

    `exposed` = `in_file` + the sum of `lost`, always. If `not_known` is not empty it says why there may be more,
    and `exposed` is a lower bound. `after_the_end` counts images taken after the last requested frame; they are not
    part of the account.
    """

    exposed: int
    in_file: int
    lost: dict[str, int] = field(default_factory=dict)
    not_known: tuple[str, ...] = ()
    after_the_end: int = 0

    @property
    def total_lost(self) -> int:
        """All frames lost, at least."""
        return sum(self.lost.values())

    def in_words(self) -> str:
        """Where frames were lost, for a user; "none" if no frame was lost."""
        words = "; ".join(f"{count} {_place(where, count)}" for where, count in self.lost.items())
        if not self.not_known:
            return words or "none"
        return f"at least {self.total_lost}{f': {words}' if words else ''}; {'; '.join(self.not_known)}"

    def to_dict(self) -> dict[str, Any]:
        """As it is stored in the file's attribute `account`."""
        return {
            "exposed": self.exposed,
            "exposed_is_at_least": bool(self.not_known),
            "in_file": self.in_file,
            "lost": dict(self.lost),
            "not_known": list(self.not_known),
            "after_the_end": self.after_the_end,
        }


def loss_in_words(where: str, count: int, unit: str = "frame") -> str:
    """How many frames were lost at one of the places of an account, as a sentence; `unit` names a frame."""
    frames = f"1 {unit} was" if count == 1 else f"{count} {unit}s were"
    return f"{frames} {'dropped:' if where == TOO_LATE else 'lost'} {_place(where, count)}"


def _place(where: str, count: int) -> str:
    """The place as it is said of `count` frames."""
    return where.replace("got them", "got it").replace("on their way", "on its way") if count == 1 else where


def close_account(
    counts: Counts, contents: FileContents, *, lost_stages: Collection[str] = (), as_asked: bool = True
) -> FrameAccount:
    """The account of a run. `counts`: the stages' last totals; `lost_stages`: those killed, hung or failed.

    `as_asked`: the run reached its planned end, so that later images of the camera are not missing.
    """
    acquire = counts.get("acquire", {})
    blind = not acquire or _was_cut_off(counts, lost_stages)
    lost = lost_before_the_run(acquire)
    if blind:
        where = next((place for place in (AT_SENDER, IN_FOLDER) if SOURCES[place] in acquire), IN_CAMERA)
        lost[where] = max(lost[where], contents.lost_in_camera)
    left = acquire.get("left_in_buffer", 0)
    lost[IN_BUFFER] = 0 if as_asked and not blind else left
    lost |= {where: counts.get(stage, {}).get(name, 0) for where, stage, name in DROPS}
    dropped = sum(lost[where] for where, _, _ in DROPS)
    # a recorded run keeps its numbers: what its source skipped is among the dropped, and never came
    numbered = acquire.get("received", 0) + acquire.get("not_in_the_run", 0) + acquire.get("not_recorded", 0)
    for where in (TOO_LATE, DETECTOR_FAILED) if not blind else ():
        # a detector that was started again may find a frame too old whose detections the tracker has, or fail again
        twice = min(lost[where], max(0, contents.frames + dropped - numbered))
        lost[where] -= twice
        dropped -= twice
    received = max(numbered, contents.last_frame + 1, contents.frames + dropped)
    lost[_where_the_rest_is(contents, lost_stages)] = received - contents.frames - dropped
    lost = {where: count for where, count in lost.items() if count}
    return FrameAccount(
        exposed=contents.frames + sum(lost.values()),
        in_file=contents.frames,
        lost=lost,
        not_known=tuple(_not_known(counts, lost_stages)),
        after_the_end=left if as_asked and not blind else 0,
    )


def lost_before_the_run(acquire: Mapping[str, int]) -> dict[str, int]:
    """Frames lost before the run had them, by where, from the counts of the acquisition."""
    return {where: acquire.get(name, 0) for where, name in SOURCES.items()}


def _where_the_rest_is(contents: FileContents, lost_stages: Collection[str]) -> str:
    if not contents.readable:
        return IN_THE_FILE
    order = ("acquire", "detect", "track", "write")
    names = [name for name in order if name in lost_stages]
    return f"on their way when {' and '.join(names)} ended before time" if names else ON_THE_WAY


def _was_cut_off(counts: Counts, lost_stages: Collection[str]) -> bool:
    """Whether the acquisition ended without reporting its final counts."""
    return "acquire" in lost_stages and not counts.get("acquire", {}).get(FINAL)


def _not_known(counts: Counts, lost_stages: Collection[str]) -> list[str]:
    words = []
    if _was_cut_off(counts, lost_stages):
        words.append("acquisition was lost: how many frames the camera took until then is not known")
    elif "acquire" not in counts:
        words.append("how many frames the camera took is not known")
    resets = counts.get("acquire", {}).get("counter_resets", 0)
    if resets:
        words.append(f"the camera's counter fell back {resets} times: what it lost then is not known")
    restarts = counts.get("acquire", {}).get("sender_restarts", 0)
    if restarts:
        times = "once" if restarts == 1 else f"{restarts} times"
        words.append(f"the sender of the frames began again {times}: what was lost then is not known")
    return words


def account_of(attributes: Mapping[str, Any], frames: RecordArray) -> FrameAccount | None:
    """The account in a file's attributes, or computed from its counts if it has none; None without counts."""
    stored = attributes.get("account")
    if isinstance(stored, dict):
        return FrameAccount(
            exposed=int(stored["exposed"]),
            in_file=int(stored["in_file"]),
            lost={str(where): int(count) for where, count in stored["lost"].items()},
            not_known=tuple(map(str, stored["not_known"])),
            after_the_end=int(stored.get("after_the_end", 0)),
        )
    accounts = attributes.get("accounts", {})
    if "write" not in accounts and "acquire" not in accounts:
        return None
    return close_account(accounts, FileContents.of(frames), as_asked=not attributes.get("failures"))
