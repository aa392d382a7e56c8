"""Makes the keeper of a run: the ring for its images, as large as wanted and as memory allows."""

from __future__ import annotations

import math
from collections.abc import Callable

import psutil

from acquisition.recorder.events.account import Record
from acquisition.recorder.events.book import EventBook
from acquisition.recorder.events.keeper import HOLD_S, EventKeeper
from acquisition.recorder.events.marks import MarkedFrames
from acquisition.recorder.events.ring import FrameRing, slots_for
from acquisition.recorder.image_writer import ImageFacts
from acquisition.recorder.keeper import Keeper
from acquisition.recorder.settings import RecordSettings
from stream.errors import ConfigurationError

SPARE_S = 2.0
"""What the ring holds beyond an event, s: for the frames that come while the first ones wait for the disk to begin.
Less loses frames on a disk that stalls, more takes memory; `record.memory_mb` bounds it."""
MOST_OF_FREE = 0.5
"""Part of the free memory that the ring may take at most: the detector and the page need some too."""
MB = 2**20


def open_keeper(
    settings: RecordSettings,
    images: ImageFacts,
    say: Callable[[str], None],
    record: Record,
    *,
    waits: bool = False,
) -> Keeper:
    """The keeper for `record.mode`; `say` is told what the ring holds, and whether that is less than `before_s`.

    `waits`: the run waits for the disk.

    Raises `ConfigurationError` if the memory cannot be allocated.
    """
    book = EventBook(settings.before_s, settings.after_s, settings.most_s)
    if settings.mode == "all":
        return MarkedFrames(book, before_s=settings.before_s, record=record)
    rate_hz = images.frame_rate_hz if math.isfinite(images.frame_rate_hz) else 0.0
    seconds = settings.before_s + settings.after_s + HOLD_S + SPARE_S
    memory_mb = min(settings.memory_mb, MOST_OF_FREE * psutil.virtual_memory().available / MB)
    slots = slots_for(memory_mb, images.nbytes, rate_hz, seconds)
    say(what_it_holds(settings, slots, images.nbytes, rate_hz))
    try:
        ring = FrameRing(slots, images.shape, images.dtype)
    except MemoryError as error:
        needed_mb = slots * images.nbytes / MB
        raise ConfigurationError(
            f"the computer has not the {needed_mb:.0f} MB of memory for the frames of record.before_s; lower "
            "record.memory_mb"
        ) from error
    return EventKeeper(ring, book, before_s=settings.before_s, record=record, waits=waits)


def what_it_holds(settings: RecordSettings, slots: int, image_bytes: int, rate_hz: float) -> str:
    """One line: what the ring holds, and, where that is less than `before_s`, what to do."""
    memory_mb = slots * image_bytes / MB
    if rate_hz <= 0:
        return f"events: {slots} frames are held in {memory_mb:.0f} MB; the camera's rate is not known"
    held_s = slots / rate_hz
    text = f"events: the last {held_s:.1f} s ({slots} frames) are held in {memory_mb:.0f} MB"
    needed_s = settings.before_s + HOLD_S
    if held_s >= needed_s:
        return text
    needed_mb = math.ceil(needed_s * rate_hz) * image_bytes / MB
    return (
        f"{text}, less than record.before_s ({settings.before_s:g} s) needs, and the rest of an event will be "
        f"declared lost; {_advice(settings, math.ceil(needed_mb))}"
    )


def _advice(settings: RecordSettings, needed_mb: int) -> str:
    if settings.memory_mb < needed_mb:
        return f"set record.memory_mb to {needed_mb} or more"
    return f"{needed_mb} MB are needed, and at most half of the free memory is taken: free some"
