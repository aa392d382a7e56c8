"""The ring of the recorder: which frames it keeps around events, in the frames' own times."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.recorder.events.book import MOST_OPEN, EventBook
from acquisition.recorder.events.keeper import HOLD_S, EventKeeper
from acquisition.recorder.events.marks import MarkedFrames
from acquisition.recorder.events.ring import FrameRing, slots_for
from acquisition.recorder.frame_table import EventBegan, EventEnded, Lost
from acquisition.recorder.keeper import Keep, Kept
from acquisition.recorder.requests import Asked, asked_by
from acquisition.safety.limits import CommandRefused
from stream.messages import Command, CommandKind, Frame, FrameInfo

SHAPE = (3, 5)


def frame(number: int, time_s: float) -> Frame:
    """A frame whose pixels say its number."""
    info = FrameInfo("run", number, number, time_s, round(1e9 * time_s), time_s)
    return Frame(info, np.full(SHAPE, number % 65536, np.uint16))


@dataclass
class Clock:
    """A clock that tests move."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Recorder:
    """A keeper of events with a writer that takes `per_frame` frames for each that comes (None: all)."""

    before_s: float
    after_s: float
    slots: int = 1000
    most_s: float = math.inf
    per_frame: int | None = None
    disk_fails: bool = False
    waits: bool = False
    clock: Clock = field(default_factory=Clock)
    log: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    stored: list[tuple[int, int | None]] = field(default_factory=list)
    others: list[Keep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keeper = EventKeeper(
            FrameRing(self.slots, SHAPE, np.uint16),
            EventBook(self.before_s, self.after_s, self.most_s),
            before_s=self.before_s,
            record=lambda _kind, text, facts: self.log.append((text, facts)),
            waits=self.waits,
            clock=self.clock,
        )
        self.room = 0

    def take(self, number: int, time_s: float) -> None:
        """A frame comes, at its own time."""
        self.clock.now_s = max(self.clock.now_s, time_s)
        while self.waits and not self.keeper.has_room:
            self.room += 1
            self.write()
        self._put(self.keeper.take(frame(number, time_s)))
        self.room = 10**9 if self.per_frame is None else self.room + self.per_frame
        self.write()

    def write(self) -> None:
        """Write as much as there is time for."""
        while self.room > 0 and (keeps := self.keeper.poll()):
            self._put(keeps)

    def _put(self, keeps: list[Keep]) -> None:
        for keep in keeps:
            if not isinstance(keep, Kept):
                self.others.append(keep)
                continue
            self.room -= 1
            number = keep.frame.info.frame
            assert (keep.frame.image == number % 65536).all(), "the ring gave another frame's image"
            if not self.disk_fails:
                self.stored.append((number, keep.event))
            keep.release(not self.disk_fails)

    def ask(self, why: str = "", **more: Any) -> int:
        """Somebody asks for an event."""
        return self.keeper.trigger(Asked(why, "somebody", **more))

    def finish(self, missing: int = 0) -> None:
        """The run ends."""
        self._put(list(self.keeper.end(missing)))
        self.room = 10**9
        self.write()

    @property
    def frames(self) -> list[int]:
        """Numbers of the stored frames, in the order in which they were stored."""
        return [number for number, _ in self.stored]

    def lost(self) -> list[int]:
        """Numbers of the frames declared lost."""
        return [
            number
            for keep in self.others
            if isinstance(keep, Lost)
            for number in range(keep.first, keep.last + 1)
        ]

    def ended(self) -> dict[int, EventEnded]:
        """The end of each event."""
        return {keep.event: keep for keep in self.others if isinstance(keep, EventEnded)}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.sampled_from([0.0, 0.01, 0.05, 0.05, 0.05, 0.3, 4.0])),
        st.tuples(st.just("gap"), st.integers(1, 3)),
        st.tuples(st.just("now"), st.sampled_from(["a", "b", "c"])),
        st.tuples(st.just("decided"), st.integers(0, 6)),
        st.tuples(st.just("ahead"), st.floats(-0.2, 1.0)),
    ),
    max_size=120,
)


@settings(deadline=None, max_examples=300)
@given(steps, st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 0.1, 0.7]))
def test_kept_is_exactly_the_union_of_the_windows_in_order_each_frame_once(
    happens: list[tuple[str, Any]], before_s: float, after_s: float
) -> None:
    recorder = Recorder(before_s, after_s)
    times: dict[int, float] = {}
    moments: list[float] = []
    number, now_s = 0, 1.0
    for what, value in happens:
        if what == "frame":
            now_s += value
            times[number] = now_s
            recorder.take(number, now_s)
            number += 1
        elif what == "gap":
            number += value
        elif not times:
            continue
        elif what == "now":
            moments.append(now_s)
            recorder.ask(value)
        elif what == "decided":
            recent = [n for n, at_s in times.items() if now_s - at_s < HOLD_S]
            chosen = recent[-1 - min(value, len(recent) - 1)]
            moments.append(times[chosen])
            recorder.ask("decided", frame=chosen)
        else:
            moments.append(now_s + value)
            recorder.ask("ahead", at_time_s=now_s + value)
    recorder.finish()
    union = [n for n, at_s in times.items() if any(m - before_s <= at_s <= m + after_s for m in moments)]
    assert recorder.frames == union
    assert not set(recorder.lost()) & set(times)
    assert len(recorder.ended()) == sum(isinstance(keep, EventBegan) for keep in recorder.others)


@settings(deadline=None, max_examples=200)
@given(
    st.integers(3, 40),
    st.lists(st.integers(0, 199), max_size=12),
    st.sampled_from([0, 1, 2]),
)
def test_with_any_memory_and_disk_each_frame_of_an_event_is_stored_or_declared_lost(
    slots: int, asked_at: list[int], per_frame: int
) -> None:
    recorder = Recorder(before_s=0.095, after_s=0.095, slots=slots, per_frame=per_frame)
    for number in range(200):
        recorder.take(number, 0.01 * number)
        for _ in range(asked_at.count(number)):
            recorder.ask(f"at {number}")
    recorder.finish()
    union = {n for n in range(200) if any(abs(n - at) <= 9 for at in asked_at)}
    assert recorder.frames == sorted(set(recorder.frames))
    assert set(recorder.frames) <= union
    assert set(recorder.frames) | set(recorder.lost()) == union
    assert not set(recorder.frames) & set(recorder.lost())
    for end in recorder.ended().values():
        mine = {n for n in union if end.from_s <= 0.01 * n <= end.to_s}
        assert (end.frames, end.missing) == (
            len(mine & set(recorder.frames)),
            len(mine & set(recorder.lost())),
        )


def run(recorder: Recorder, first: int, last: int, rate_hz: float = 100.0) -> None:
    """Frames `first` to `last` come at `rate_hz`."""
    for number in range(first, last + 1):
        recorder.take(number, number / rate_hz)


def test_overlapping_events_share_their_frames() -> None:
    recorder = Recorder(1.0, 1.0)
    run(recorder, 0, 300)
    recorder.ask("first")
    run(recorder, 301, 350)
    recorder.ask("second")
    run(recorder, 351, 700)
    assert recorder.frames == list(range(200, 451))
    assert [event for _, event in recorder.stored] == [1] * 201 + [2] * 50
    ends = recorder.ended()
    assert (ends[1].first_frame, ends[1].last_frame, ends[1].frames) == (200, 400, 201)
    assert (ends[2].first_frame, ends[2].last_frame, ends[2].frames) == (250, 450, 201)


def test_a_request_during_a_pause_is_about_the_last_frame_before_it() -> None:
    recorder = Recorder(1.0, 1.0)
    run(recorder, 0, 200)
    recorder.ask("during the pause")
    for number in range(201, 300):
        recorder.take(number, 60.0 + 0.01 * number)
    assert recorder.frames == list(range(100, 201))


def test_frames_that_did_not_reach_the_recorder_are_declared_in_events_only() -> None:
    recorder = Recorder(0.5, 0.5)
    run(recorder, 0, 99)
    run(recorder, 110, 200)
    recorder.ask("later")
    run(recorder, 205, 300)
    recorder.finish()
    assert recorder.lost() == [201, 202, 203, 204]
    assert recorder.ended()[1].missing == 4


def test_an_event_that_begins_over_a_gap_declares_it() -> None:
    recorder = Recorder(0.5, 0.5)
    run(recorder, 0, 99)
    run(recorder, 110, 130)
    recorder.ask("soon")
    run(recorder, 131, 300)
    assert recorder.frames == [*range(80, 100), *range(110, 181)]
    assert recorder.lost() == list(range(100, 110))


def test_what_memory_does_not_hold_is_declared_and_the_rest_is_kept() -> None:
    recorder = Recorder(1.0, 0.2, slots=60)
    run(recorder, 0, 300)
    recorder.ask("long before")
    recorder.write()
    run(recorder, 301, 400)
    assert recorder.frames == list(range(241, 321))
    assert recorder.lost() == list(range(200, 241))
    assert recorder.ended()[1].missing == 41


def test_the_ring_bridges_a_disk_that_is_slower_than_the_camera() -> None:
    recorder = Recorder(1.0, 1.0, slots=400, per_frame=0)
    run(recorder, 0, 300)
    recorder.ask("now")
    run(recorder, 301, 500)
    assert recorder.frames == []
    recorder.finish()
    assert recorder.frames == list(range(200, 401))
    assert recorder.lost() == []


def test_a_run_that_waits_for_the_disk_loses_nothing_of_an_event_that_is_larger_than_the_ring() -> None:
    recorder = Recorder(0.2, 5.0, slots=30, per_frame=0, waits=True)
    run(recorder, 0, 100)
    recorder.ask("now")
    run(recorder, 101, 800)
    recorder.finish()
    assert recorder.frames == list(range(80, 601))
    assert recorder.lost() == []


def test_frames_that_the_disk_refuses_are_counted_as_lost() -> None:
    recorder = Recorder(0.1, 0.1, disk_fails=True)
    run(recorder, 0, 50)
    recorder.ask("now")
    run(recorder, 51, 200)
    assert (recorder.ended()[1].frames, recorder.ended()[1].missing) == (0, 21)


def test_an_event_is_at_the_frame_that_it_was_decided_on_however_late_it_is_asked_for() -> None:
    recorder = Recorder(0.2, 0.2)
    run(recorder, 0, 500)
    assert recorder.ask("late", frame=420) == 400
    run(recorder, 501, 600)
    assert recorder.frames == list(range(400, 441))


def test_a_request_on_a_frame_that_has_not_come_yet_waits_for_it() -> None:
    recorder = Recorder(0.25, 0.25)
    run(recorder, 0, 100)
    assert recorder.ask("early", frame=150) == -1
    run(recorder, 101, 300)
    assert recorder.frames == list(range(125, 176))


def test_earlier_frames_that_are_asked_for_soon_after_an_event_are_stored_before_its_own() -> None:
    recorder = Recorder(0.2, 0.2)
    run(recorder, 0, 200)
    recorder.ask("page")
    run(recorder, 201, 210)
    recorder.ask("condition", frame=195)
    run(recorder, 211, 400)
    assert recorder.frames == list(range(175, 221))


def test_frames_asked_for_after_later_ones_were_stored_are_declared() -> None:
    recorder = Recorder(0.2, 0.2)
    run(recorder, 0, 200)
    recorder.ask("page")
    run(recorder, 201, 300)
    recorder.ask("very late", frame=195)
    run(recorder, 301, 400)
    assert recorder.frames == list(range(180, 221))
    assert recorder.lost() == list(range(175, 180))


def test_a_condition_that_holds_for_ever_prolongs_its_event_and_ends_with_a_word() -> None:
    recorder = Recorder(0.5, 0.5, most_s=2.0)
    refused = []
    for number in range(1000):
        recorder.take(number, 0.01 * number)
        if number >= 100 and number % 20 == 0:
            try:
                recorder.ask("velocity")
            except CommandRefused as error:
                refused.append(str(error))
    assert recorder.frames == list(range(50, 301))
    assert len(recorder.ended()) == 1
    assert "has lasted for 2 s (record.most_s)" in refused[0]


def test_after_its_limit_a_condition_can_ask_again_once_it_was_quiet() -> None:
    recorder = Recorder(0.5, 0.5, most_s=1.0)
    run(recorder, 0, 100)
    for number in range(101, 600):
        recorder.take(number, 0.01 * number)
        if number < 300 and number % 20 == 0:
            with contextlib.suppress(CommandRefused):
                recorder.ask("velocity")
    recorder.ask("velocity")
    run(recorder, 600, 900)
    assert len(recorder.ended()) == 2


def test_other_requests_are_not_held_back_by_one_that_has_reached_its_limit() -> None:
    recorder = Recorder(0.1, 0.1, most_s=0.1)
    run(recorder, 0, 100)
    recorder.ask("a")
    run(recorder, 101, 105)
    recorder.ask("a")
    with pytest.raises(CommandRefused):
        recorder.ask("a")
    recorder.ask("b")
    assert recorder.keeper.counts()["events"] == 2


def test_so_many_events_at_once_are_refused() -> None:
    recorder = Recorder(0.1, 10.0)
    run(recorder, 0, 10)
    for number in range(MOST_OPEN):
        recorder.ask(f"reason {number}")
    with pytest.raises(CommandRefused, match="events are open"):
        recorder.ask("one more")


def test_an_event_may_keep_longer_what_follows_but_not_beyond_the_limit() -> None:
    recorder = Recorder(0.1, 0.1, most_s=3.0)
    run(recorder, 0, 100)
    recorder.ask("long", after_s=2.0)
    run(recorder, 101, 400)
    assert recorder.frames == list(range(90, 301))
    with pytest.raises(CommandRefused, match="at most 3 s"):
        recorder.ask("longer", after_s=4.0)


def test_the_event_log_has_begin_and_end_of_an_event_with_what_is_kept() -> None:
    recorder = Recorder(0.1, 0.1)
    run(recorder, 0, 100)
    recorder.ask("a bubble")
    run(recorder, 101, 200)
    (begun, first), (ended, last) = recorder.log
    assert begun == "event 1 (somebody, a bubble): frames from 0.900 s to 1.100 s are kept"
    assert ended == "event 1 (somebody, a bubble) has ended: 21 frames are kept, 90 to 110"
    assert (first["ended"], last["ended"], last["frames"], last["frame"]) == (False, True, 21, 100)


def test_a_run_that_ends_during_an_event_keeps_what_has_come_and_ends_the_event() -> None:
    recorder = Recorder(0.1, 10.0)
    run(recorder, 0, 100)
    recorder.ask("last")
    run(recorder, 101, 105)
    recorder.finish(missing=2)
    assert recorder.frames == list(range(90, 106))
    assert recorder.lost() == [106, 107]
    assert recorder.ended()[1].frames == 16


def test_where_every_frame_is_kept_a_request_marks_them() -> None:
    log: list[str] = []
    keeper = MarkedFrames(
        EventBook(0.1, 0.1), before_s=0.1, record=lambda _kind, text, _facts: log.append(text)
    )
    keeps: list[Keep] = []
    for number in range(300):
        if number == 200:
            keeper.trigger(Asked("a bubble", "page"))
        for keep in (*keeper.take(frame(number, 0.01 * number)), *keeper.poll()):
            keeps.append(keep)
            if isinstance(keep, Kept):
                keep.release(True)
    kept = [(keep.frame.info.frame, keep.event) for keep in keeps if isinstance(keep, Kept)]
    assert [number for number, _ in kept] == list(range(300))
    assert [number for number, event in kept if event == 1] == list(range(200, 210))
    (ended,) = [keep for keep in keeps if isinstance(keep, EventEnded)]
    assert (ended.first_frame, ended.last_frame, ended.frames) == (189, 209, 21)
    assert len(log) == 2


@pytest.mark.parametrize(
    ("value", "name", "why", "after_s"),
    [
        (None, "", "", math.nan),
        ("a bubble", "", "a bubble", math.nan),
        (12.5, "a bubble", "a bubble", 12.5),
        (0, "", "", 0.0),
        ("two\nlines", "", "two lines", math.nan),
    ],
)
def test_a_command_says_why_or_for_how_long(
    value: float | str | None, name: str, why: str, after_s: float
) -> None:
    asked = asked_by(Command(CommandKind.RECORD, value, property=name, sender="page", decided_on_frame=7))
    assert (asked.why, asked.sender, asked.frame) == (why, "page", 7)
    assert asked.after_s == pytest.approx(after_s, nan_ok=True)


def test_a_command_of_another_kind_or_a_negative_time_is_refused() -> None:
    with pytest.raises(CommandRefused, match="send set_flow to the acquisition"):
        asked_by(Command(CommandKind.SET_FLOW, 1.0))
    with pytest.raises(CommandRefused, match="0 s or more"):
        asked_by(Command(CommandKind.RECORD, -1.0))


def test_memory_is_as_much_as_the_seconds_take_within_its_limit() -> None:
    assert slots_for(100, 2**20, 10.0, 5.0) == 51
    assert slots_for(100, 2**20, 60.0, 5.0) == 100
    assert slots_for(100, 2**20, 0.0, 5.0) == 100
    assert slots_for(1, 2**30, 60.0, 5.0) == 1
