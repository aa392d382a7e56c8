"""The recording stage with a keeper of events: real files, a real link, a disk that stands still."""

import threading
import time
import uuid

import pytest
from recorded import facts, frame, wrong_in

from acquisition.recorder.events.opening import open_keeper, what_it_holds
from acquisition.recorder.frame_table import read_frame_table
from acquisition.recorder.opening import open_output
from acquisition.recorder.settings import RecordSettings
from acquisition.recorder.stage import RecordStage
from acquisition.recorder.writer_thread import WriterThread
from stream.commands import CommandClient, CommandServer
from stream.links import open_receiver, open_sender
from stream.messages import Command, CommandKind

RATE_HZ = 50


class StallingImages:
    """Image files on a disk that takes nothing while it stands still."""

    def __init__(self, output):
        self._images = output._images
        self.goes = threading.Event()
        self.goes.set()
        output._images = self

    def __getattr__(self, name):
        return getattr(self._images, name)

    def append(self, *args, **named):
        assert self.goes.wait(240)
        self._images.append(*args, **named)


class Recorder:
    """A stage with a keeper of events, fed by hand, and a client that asks."""

    def __init__(self, folder, **settings):
        self.settings = RecordSettings(
            **{"mode": "events", "before_s": 0.5, "after_s": 0.5, "keep_free_mb": 0, **settings}
        )
        self.folder, self.said, self.log = folder, [], []
        self.images = None
        self.sender = open_sender(
            f"inproc://{uuid.uuid4().hex}", run_id="a run", source="test", slot_bytes=100, slots=4, credits=3
        )
        self.server = CommandServer("tcp://127.0.0.1:0")
        self.client = CommandClient(self.server.address)
        keeper = open_keeper(self.settings, facts(), self.said.append, lambda *entry: self.log.append(entry))
        self.stage = RecordStage(
            open_receiver(self.sender.address), keeper, WriterThread(self.open), self.server
        )

    def open(self):
        output = open_output(self.settings, facts(), self.folder / "tracks.h5", self.said.append)
        self.images = StallingImages(output)
        return output

    def frames(self, first, last):
        for number in range(first, last + 1):
            self.sender.send(frame(number))
            until_s = time.monotonic() + 240
            while self.stage.counts()["received"] <= number:
                assert time.monotonic() < until_s
                self.stage.step(0.01)

    def ask(self, **command):
        asked = Command(CommandKind.RECORD, **command)
        self.client.send(asked)
        until_s = time.monotonic() + 240
        while not (replies := self.client.replies()):
            assert time.monotonic() < until_s
            self.stage.step(0.001)
        return replies[0]

    def finish(self):
        self.sender.end()
        until_s = time.monotonic() + 240
        while self.stage.step(0.01):
            assert time.monotonic() < until_s
        table = read_frame_table(self.folder / "tracks.frames.jsonl")
        assert wrong_in(self.folder / "tracks.frames.ome.zarr", table) == ""
        return table, [row.info.frame for row in table.rows]

    def close(self):
        self.stage.close()
        self.client.close()
        self.server.close()
        self.sender.close()


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path)
    yield made
    made.close()


def test_the_files_have_the_frames_around_each_event_and_the_answer_names_the_first(recorder):
    recorder.frames(0, 99)
    assert recorder.ask(value="a bubble", sender="page").first_frame == 74
    recorder.frames(100, 199)
    assert recorder.ask(value=1.0, property="another", decided_on_frame=180).first_frame == 155
    recorder.frames(200, 299)
    table, frames = recorder.finish()
    assert frames == [*range(74, 125), *range(155, 231)]
    assert [row.event for row in table.rows] == [1] * 51 + [2] * 76
    assert [(event.why, event.sender, event.frame) for event in table.events] == [
        ("a bubble", "page", 99),
        ("another", "", 180),
    ]
    assert [(end.event, end.frames, end.missing) for end in table.ended] == [(1, 51, 0), (2, 76, 0)]
    logged = sorted((entry["event"], entry["ended"]) for kind, _, entry in recorder.log if kind == "event")
    assert logged == [(1, False), (1, True), (2, False), (2, True)]


def test_a_disk_that_stands_still_during_an_event_costs_nothing_and_holds_nobody_up(recorder):
    recorder.frames(0, 49)
    until_s = time.monotonic() + 240
    while recorder.images is None:
        assert time.monotonic() < until_s
        recorder.stage.step(0.01)
    recorder.images.goes.clear()
    recorder.ask(value="while the disk stands still")
    recorder.frames(50, 90)
    assert recorder.sender.flush(240.0), "frames wait for the disk in the link"
    assert recorder.ask(value="once more").accepted
    recorder.images.goes.set()
    table, frames = recorder.finish()
    assert frames == list(range(24, 91))
    assert not table.lost


def test_an_end_in_the_middle_of_an_event_loses_nothing(recorder):
    recorder.frames(0, 49)
    recorder.ask(value="at the end")
    recorder.frames(50, 54)
    table, frames = recorder.finish()
    assert frames == list(range(24, 55))
    assert table.ended[0].frames == 31


def test_what_is_no_request_is_refused_with_the_reason(recorder):
    recorder.frames(0, 9)
    reply = recorder.ask(value=-1.0)
    assert not reply.accepted
    assert "0 s or more" in reply.reason


def test_where_every_frame_is_kept_an_event_is_a_mark(tmp_path):
    recorder = Recorder(tmp_path, mode="all")
    try:
        recorder.frames(0, 99)
        assert recorder.ask(value="a bubble").first_frame == 74
        recorder.frames(100, 149)
        table, frames = recorder.finish()
        assert frames == list(range(150))
        assert [row.event for row in table.rows] == [None] * 100 + [1] * 25 + [None] * 25
        assert (table.ended[0].first_frame, table.ended[0].last_frame, table.ended[0].frames) == (74, 124, 51)
    finally:
        recorder.close()


def test_what_memory_holds_is_said_at_the_start_and_what_would_be_enough():
    enough = RecordSettings(mode="events", before_s=2.0, memory_mb=100)
    assert what_it_holds(enough, 200, 2**20, 60.0).startswith("events: the last 3.3 s (200 frames) are held")
    short = RecordSettings(mode="events", before_s=5.0, memory_mb=100)
    line = what_it_holds(short, 100, 2**20, 60.0)
    assert "less than record.before_s (5 s) needs" in line
    assert line.endswith("set record.memory_mb to 330 or more")
    busy = RecordSettings(mode="events", before_s=5.0, memory_mb=1000)
    assert "free some" in what_it_holds(busy, 100, 2**20, 60.0)
    assert "rate is not known" in what_it_holds(enough, 100, 2**20, 0.0)
