"""The recording stage and the acquisition beside it: every frame is stored or declared, whatever the disk does."""

import errno
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import facts, frame, info, wrong_in
from test_acquire_stage import FakeSender, FakeSource, LiveSender

from acquisition.recorder import output as output_module
from acquisition.recorder.closing import NOT_WRITTEN, close_table, undeclared
from acquisition.recorder.compression_choice import CompressionChoice
from acquisition.recorder.disk_rate import measure_disk
from acquisition.recorder.frame_table import FrameRow, FrameTable, Lost, head_line, read_frame_table, write
from acquisition.recorder.keeper import NOT_IN_TIME, EveryFrame, Kept
from acquisition.recorder.opening import open_output
from acquisition.recorder.packing import Packed
from acquisition.recorder.settings import RecordSettings
from acquisition.recorder.stage import RecordStage
from acquisition.recorder.writer_thread import WriterThread
from acquisition.stage import AcquireStage
from stream.errors import OutputError
from stream.link import Policy
from stream.links import open_receiver, open_sender


def opened(tmp_path, tell=lambda text: None, **settings):
    asked = RecordSettings(mode="all", **{"keep_free_mb": 0, **settings})
    return open_output(asked, facts(), tmp_path / "tracks.h5", tell)


def table_in(folder):
    return read_frame_table(folder / "tracks.frames.jsonl")


def images(folder):
    return folder / "tracks.frames.ome.zarr"


class Disk:
    """Lets an image writer fail as long as it has an `error`."""

    def __init__(self, writer):
        self._writer, self.error = writer, None

    def __getattr__(self, name):
        if self.error is not None and name in {"append", "commit"}:
            return self._fail
        return getattr(self._writer, name)

    def _fail(self, *_args, **_named):
        raise OSError(self.error, "as the test wants it")


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """An output on a disk that can fail, and what it told."""
    monkeypatch.setattr(output_module, "AGAIN_S", 0.0)
    told = []
    out = opened(tmp_path, told.append)
    out._images = Disk(out._images)
    out.told = told
    yield out
    out.close()


def everything(folder, count):
    """Every frame is stored or declared lost, once, and the images are right."""
    table = table_in(folder)
    assert wrong_in(images(folder), table) == ""
    stored = [row.info.frame for row in table.rows]
    lost = [number for each in table.lost for number in range(each.first, each.last + 1)]
    assert sorted(stored + lost) == list(range(count))
    return stored, table.lost


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_takes_nothing_for_a_while_costs_the_frames_of_that_while(tmp_path, disk, error):
    for number in range(30):
        disk._images.error = error if 10 <= number < 20 else None
        if number == 20:
            disk._room_bytes = 0
        disk.put(Kept(frame(number)))
        disk.commit()
    disk.finish()
    stored, lost = everything(tmp_path, 30)
    assert stored == [*range(10), *range(20, 30)]
    assert sum(each.count for each in lost) == 10
    assert len(disk.told) == 2


def test_a_commit_that_fails_declares_what_it_should_have_shown(tmp_path, disk):
    for number in range(6):
        disk.put(Kept(frame(number)))
        if number == 2:
            disk.commit()
    disk._images.error = errno.EIO
    disk.commit()
    disk._images.error = None
    for number in range(6, 9):
        disk.put(Kept(frame(number)))
    disk.finish()
    stored, lost = everything(tmp_path, 9)
    assert stored == [0, 1, 2, 6, 7, 8]
    assert "as the test wants it" in lost[0].why


def test_a_run_that_shall_stop_is_stopped_with_what_was_stored_in_its_place(tmp_path):
    out = opened(tmp_path, when_full="stop")
    out._images = Disk(out._images)
    out.put(Kept(frame(0)))
    out._images.error = errno.ENOSPC
    with pytest.raises(OutputError, match="the disk is full"):
        out.put(Kept(frame(1)))
    out.close()


def test_the_room_that_is_to_be_kept_free_is_not_taken(tmp_path):
    told = []
    out = opened(tmp_path, told.append, keep_free_mb=1e9)
    out.put(Kept(frame(0)))
    out.finish()
    assert "record.keep_free_mb" in told[0]
    assert everything(tmp_path, 1)[0] == []


class SlowImages(Disk):
    """Takes 20 ms for each image."""

    def __getattr__(self, name):
        if name == "append":
            time.sleep(0.02)
        return getattr(self._writer, name)


@pytest.mark.parametrize("policy", [Policy.BLOCK, Policy.DROP_NEWEST])
def test_a_stage_behind_a_ring_stores_or_declares_every_frame(tmp_path, policy):
    """A ring that lets the source wait loses nothing; one that drops declares each frame, also the last ones."""

    def opener():
        out = opened(tmp_path)
        out._images = SlowImages(out._images)
        return out

    sender = open_sender(
        "inproc://record-stage", run_id="a run", source="test", slot_bytes=48, slots=4, policy=policy
    )
    stage = RecordStage(open_receiver("inproc://record-stage"), EveryFrame(), WriterThread(opener))
    for number in range(40):
        while policy is Policy.BLOCK and not sender.wait_for_room(0.0):
            stage.step(0.01)
        sender.send(frame(number), 0.0)
        stage.step(0.0)
    sender.end()
    while stage.step(0.05):
        pass
    assert sender.flush(240.0)
    assert sender.account.balanced
    counts = stage.counts()
    stage.close()
    sender.close()
    stored, lost = everything(tmp_path, 40)
    assert (counts["sent"], counts["lost"]) == (len(stored), 40 - len(stored))
    if policy is Policy.BLOCK:
        assert not lost
    else:
        assert {each.why for each in lost} == {NOT_IN_TIME}


def test_the_recorder_gets_every_frame_of_a_live_run_and_the_detector_what_it_wants():
    detector, recorder = LiveSender(wanted=1), FakeSender()
    stage = AcquireStage(FakeSource(10), [detector], newest_only=True, recorder=recorder)
    for _ in range(50):
        if not stage.step(0.0):
            break
    assert recorder.sent == list(range(10))
    assert len(detector.sent) < 10
    assert recorder.reason == detector.reason == "done"


def test_a_run_that_waits_waits_for_the_recorder_too():
    detector, recorder = FakeSender(), FakeSender(room=3)
    stage = AcquireStage(FakeSource(10), [detector], recorder=recorder)
    for _ in range(30):
        stage.step(0.0)
    assert recorder.sent == [0, 1, 2]
    assert len(detector.sent) == 4
    recorder.room = 1000
    for _ in range(30):
        stage.step(0.0)
    assert recorder.sent == detector.sent == list(range(10))


@pytest.mark.parametrize("live", [False, True])
def test_without_its_recorder_a_run_goes_on_and_ends(live):
    detector, recorder = (
        (LiveSender(wanted=100) if live else FakeSender()),
        FakeSender(room=3, acknowledges=False),
    )
    stage = AcquireStage(
        FakeSource(10), [detector], newest_only=live, recorder=recorder if not live else FakeSender()
    )
    for _ in range(5):
        stage.step(0.0)
    stage.give_up_recorder()
    for _ in range(30):
        if not stage.step(0.0):
            break
    assert detector.sent[-1] == 9
    assert stage.state == "done"


PIECES = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12)


@given(PIECES, st.integers(0, 30))
def test_what_a_lost_recorder_left_out_is_found(pieces, received):
    """Numbers 0 to `received` - 1 are stored, declared, or found as undeclared; none twice."""
    rows, lost, number = [], [], 0
    for gap, is_stored in pieces:
        number += gap
        if is_stored:
            rows.append(FrameRow(len(rows), None, info(number)))
        else:
            lost.append(Lost(number, number, "x"))
        number += 1
    found = undeclared(FrameTable({}, tuple(rows), tuple(lost)), received)
    known = {row.info.frame for row in rows} | {each.first for each in lost}
    missing = [at for each in found for at in range(each.first, each.last + 1)]
    assert missing == [at for at in range(received) if at not in known]


def test_the_table_of_a_lost_recorder_is_completed(tmp_path):
    path = tmp_path / "t.jsonl"
    write(
        path,
        head_line("a run", "t.h5", "t.ome.zarr", mode="all"),
        [FrameRow(0, None, info(0)), Lost(1, 2, "full")],
    )
    with path.open("ab") as file:
        file.write(b'{"index":1,"ev')
    account = close_table(path, "a run", 6)
    assert (account.stored, account.lost) == (1, {"full": 2, NOT_WRITTEN: 3})
    assert close_table(path, "a run", 6) == account
    with pytest.raises(OutputError, match="of the run a run"):
        close_table(path, "another run", 6)


COST_S = {Packed.LZ4: 0.003, Packed.ZSTD: 0.008, Packed.NONE: 0.0}


def choice_with(left):
    """After 60 images a second where `left` processors are idle without compression."""
    now, busy = [0.0], [0.0, 0.0]

    def idle():
        used, lasted_s = busy[0], now[0] - busy[1]
        busy[:] = 0.0, now[0]
        return left - used / lasted_s

    choice = CompressionChoice("auto", idle=idle, now=lambda: now[0])
    for _ in range(100):
        level = choice.next(hurried=False)
        choice.took(level, COST_S[level])
        busy[0] += COST_S[level]
        now[0] += 1 / 60
    return choice


@pytest.mark.parametrize(("left", "level"), [(4.0, Packed.ZSTD), (0.8, Packed.LZ4), (0.4, Packed.NONE)])
def test_images_are_compressed_as_far_as_processors_are_idle(left, level):
    """60 images a second: LZ4 takes 18 % of a processor, zstd 48 %."""
    assert choice_with(left).next(hurried=False) is level


def test_images_behind_which_others_wait_are_compressed_only_where_that_is_faster():
    choice = choice_with(4.0)
    assert choice.next(hurried=True) is Packed.NONE
    for _ in range(30):
        choice.wrote(0.5, 0.02)  # half an image takes 20 ms, more than to compress it
    assert choice.next(hurried=True) is Packed.LZ4


def test_measuring_the_disk_leaves_nothing(tmp_path):
    found = measure_disk(tmp_path, seconds=0.05)
    assert found.bytes_per_s > 0 or "not" in found.how or "little" in found.how
    assert not list(tmp_path.iterdir())


def test_lz4_is_refused_for_tiff():
    with pytest.raises(ValueError, match="lz4"):
        RecordSettings(mode="all", format="ome-tiff", compression="lz4")
