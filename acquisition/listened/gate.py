"""Decides which messages of other programs are frames of the run: one sender, one size, numbers that rise. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acquisition.foreign_notes import ForeignNotes
from acquisition.listened.header import (
    EndHeader,
    ImageHeader,
    OtherHeader,
    Said,
    image_of,
    read_header,
)
from acquisition.listened.numbers import FrameOrder, Verdict
from acquisition.listened.sender_clock import CLOCKS, SenderClock
from acquisition.listened.volume import volume_of, without_missing
from acquisition.recorded_volumes.z_scale import AGREE
from stream.errors import WireError
from stream.messages import ImageArray
from stream.volume_info import VolumeInfo

SAME = 1e-6  # relative difference of two pixel sizes that are the same, written as text


@dataclass(frozen=True, slots=True)
class ImageKind:
    """Size and type of the images of a run, and what its first frame says about their scale.

    `shape` is (H, W), or (Z, H, W) for volumes. `volume` is how the first one was taken; None for images, and where
    its heights are not known.
    """

    shape: tuple[int, ...]
    dtype: str
    pixel_size_um: float
    source: str
    volume: VolumeInfo | None = None

    @property
    def depth(self) -> int:
        """Slices of a volume; 1 for an image."""
        return self.shape[0] if len(self.shape) == 3 else 1


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A frame that belongs to the run: its image, our number and time of it, and what its sender says.

    `volume` says how a volume was taken, None for an image.
    """

    image: ImageArray
    number: int
    time_s: float
    arrived_ns: int
    said: Said
    volume: VolumeInfo | None = None


class Gate:
    """Judges each message of `connection`s (a number each); everything refused is counted in `notes`, and told.

    The first valid frame decides size, type and sender (its connection and its `source`). Another sender is refused
    until the connection of the first one is `gone`; its successor must send the same kind of images.
    """

    def __init__(
        self,
        notes: ForeignNotes,
        *,
        name: str | None,
        frame_rate_hz: float | None,
        z_step_um: float | None = None,
    ) -> None:
        """`name`: take only this `source`.

        `frame_rate_hz` takes precedence over the sender's times, `z_step_um` over the heights of slices.
        """
        self._notes = notes
        self._name = name
        self._rate_hz = frame_rate_hz
        self._z_step_um = z_step_um
        self._volume: VolumeInfo | None = None
        self._owner: tuple[int, str, str] | None = None
        self._gone: set[int] = set()
        self._clock = SenderClock(frame_rate_hz)
        self._pixel_size_um = math.nan
        self.order = FrameOrder()
        self.kind: ImageKind | None = None
        self.ended = False
        self.paused = False

    def begin_again(self) -> None:
        """Forget the numbers and times so far: the run starts with the next frame."""
        self.order = FrameOrder()
        self._clock = SenderClock(self._rate_hz)

    def gone(self, connection: int) -> None:
        """A connection was closed: the next sender may take its place."""
        if self._owner is not None and self._owner[0] == connection:
            self._gone.add(connection)

    def take(self, parts: Sequence[memoryview], connection: int, arrived_ns: int) -> Taken | None:
        """Judge one message (its first parts); None if it is no frame of the run."""
        try:
            header = self._header(parts)
            if isinstance(header, ImageHeader):
                return self._frame(header, parts[1], connection, arrived_ns)
        except WireError as error:
            self._notes.tell("malformed", f"a message was refused: {error}")
            return None
        if isinstance(header, EndHeader):
            self._end(header, connection)
        else:
            self._notes.count("other_messages")
        return None

    def _header(self, parts: Sequence[memoryview]) -> ImageHeader | EndHeader | OtherHeader:
        header = read_header(parts[0])
        expected = 2 if isinstance(header, ImageHeader) else len(parts)
        if len(parts) != expected or len(parts) > 2:
            count = "more than 2" if len(parts) > 2 else f"{len(parts)}"
            raise WireError(f"{count} parts; a frame has exactly 2, header and pixels")
        return header

    def _frame(
        self, header: ImageHeader, payload: memoryview, connection: int, arrived_ns: int
    ) -> Taken | None:
        if self._name is not None and header.source != self._name:
            self._notes.tell(
                "other_source",
                f"frames of the source {header.source!r} are skipped (source.name = {self._name!r})",
            )
            return None
        who = (connection, header.source, header.sender)
        if not self._may_send(who) or not self._has_the_kind(header):
            return None
        image = image_of(header, payload)
        volume = None
        if header.depth > 1:
            volume = volume_of(header.slices, header.depth, self._z_step_um, self._volume)
            if not self._has_the_step(header, volume):
                return None
        if volume is not None:
            image = without_missing(image, volume)
        if not self.order.fits(header.number):
            had = (
                "no number, but those before had one"
                if header.number is None
                else "a number, but the first had none"
            )
            self._notes.tell("malformed", f"a frame was refused: it has {had}")
            return None
        anew = self._owner is not None and (who != self._owner or connection in self._gone)
        if self.kind is None:
            self.kind = ImageKind(
                header.shape,
                np.dtype(header.dtype.name).name,
                header.said.pixel_size_um,
                header.source,
                volume,
            )
            self._pixel_size_um = header.said.pixel_size_um
        if self._owner is not None and who[0] != self._owner[0]:
            self._gone.clear()
        self._owner = who
        self._volume = volume
        return self._in_order(header, image, volume, arrived_ns, anew=anew)

    def _in_order(
        self,
        header: ImageHeader,
        image: ImageArray,
        volume: VolumeInfo | None,
        arrived_ns: int,
        *,
        anew: bool,
    ) -> Taken | None:
        before = self.order.number
        verdict = self.order.take(header.number, anew=anew, counts=not self.paused)
        if verdict is Verdict.REPEATED:
            self._notes.tell("repeated", f"frame {header.number} came again; it is not taken a second time")
            return None
        if verdict is Verdict.LATE:
            self._notes.tell("late", f"frame {header.number} came after its successors; it counts as lost")
            return None
        if verdict is Verdict.RESTARTED:
            self._gone.clear()  # not before: frames of a closed connection may still have been under way
            self._notes.tell(
                "sender_restarts",
                f"the sender began again at frame {header.number}, after frame {before} of the run: what was lost "
                "between is not known",
            )
        if self.paused:
            self._notes.count("while_paused")
            return None
        self._listen_to(header)
        odd, clock = self._clock.odd, self._clock
        time_s = clock.take(
            header.said.time_s, self.order.number, arrived_ns, restarted=verdict is Verdict.RESTARTED
        )
        if clock.odd > odd:
            self._notes.tell(
                "odd_times",
                f"the time of frame {header.number} is missing or not after the one before: arrival is used",
            )
        return Taken(image, self.order.number, time_s, arrived_ns, header.said, volume)

    def _listen_to(self, header: ImageHeader) -> None:
        """Tell what the sender says that cannot be used, and a pixel size that changes."""
        for name in header.ignored:
            self._notes.tell(
                f"unusable_{name}", f"{name} of frame {header.number} is no usable number: ignored"
            )
        size_um = header.said.pixel_size_um
        if math.isfinite(size_um) and not math.isclose(size_um, self._pixel_size_um, rel_tol=SAME):
            if math.isfinite(self._pixel_size_um):
                self._notes.tell(
                    "pixel_size_changes",
                    f"from frame {header.number} on, the sender says {size_um:g} um per pixel, before "
                    f"{self._pixel_size_um:g}",
                )
            self._pixel_size_um = size_um

    def _may_send(self, who: tuple[int, str, str]) -> bool:
        owner = self._owner
        if owner is None or who == owner or who[0] in self._gone or owner[0] in self._gone:
            return True
        if who[0] != owner[0]:
            self._notes.tell(
                "second_sender",
                f"a second program sends frames ({who[1]!r}); they are refused while the first is connected",
            )
            return False
        if who[1] != owner[1]:
            self._notes.tell(
                "other_source",
                f"frames of the source {who[1]!r} are skipped, those of {owner[1]!r} taken: source.name chooses",
            )
            return False
        return True  # the same source in a new process behind the same connection

    def _has_the_kind(self, header: ImageHeader) -> bool:
        kind = self.kind
        if kind is None or (header.shape, header.dtype.name) == (kind.shape, kind.dtype):
            return True
        size = " x ".join(map(str, kind.shape))
        self._notes.tell(
            "other_size",
            f"frame {header.number} is {header.in_words}, the run has {size} {kind.dtype}: it is refused; start "
            "another run for another size",
        )
        return False

    def _has_the_step(self, header: ImageHeader, volume: VolumeInfo | None) -> bool:
        """Whether the slices are as far apart as those of the first volume, for which the detector was opened."""
        first = None if self.kind is None else self.kind.volume
        if first is None or volume is None:
            return True
        now_um, before_um = volume.z_step_um, first.z_step_um
        if math.isclose(now_um, before_um, rel_tol=AGREE):
            return True
        self._notes.tell(
            "other_step",
            f"the slices of frame {header.number} are {now_um:g} um apart, those of the run {before_um:g} um: it "
            "is refused; start another run for another distance",
        )
        return False

    def _end(self, header: EndHeader, connection: int) -> None:
        owner = self._owner
        if owner is None or owner[0] != connection or header.source not in {"", owner[1]}:
            self._notes.tell(
                "other_ends", "an end marker came that is not of the sender of the frames: ignored"
            )
            return
        self.order.end(header.number)
        self.ended = True

    @property
    def clock_in_words(self) -> str:
        """Where the times of the frames are from; "" before the first frame."""
        return CLOCKS.get(self._clock.kind or "", "")
