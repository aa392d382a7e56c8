"""Nothing that somebody has open for writing is touched, and all readers judge a file alike."""

import json
import subprocess
import sys

import h5py
import numpy as np
import psutil
import pytest
from test_recovery import kill, start_writing
from trajectory_files import tracks, write

from liveptv.workflows.inspect import describe_file
from stream.errors import LivePTVError, OutputError, SourceError
from stream.writer_lock import lock_path
from tracking.export import export
from tracking.trajectories import recovery
from tracking.trajectories import repair_steps as repair
from tracking.trajectories.annotation import adding_to
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter, annotate, read_trajectories
from tracking.trajectories.hdf5_superblock import SIZE, build, parse
from tracking.trajectories.open_elsewhere import who_writes
from tracking.trajectories.recovery import recover

NOTEBOOK = """
import sys
import h5py
file = h5py.File(sys.argv[1], sys.argv[2], **eval(sys.argv[3]))
if sys.argv[2] == "a" and "swmr" in sys.argv[4:]:
    file.swmr_mode = True
print("open", flush=True)
sys.stdin.read()
file.attrs["remark"] = "good run"
file.close()
"""


class Notebook:
    """Another program that has the file open until `close`, when it adds an attribute."""

    def __init__(self, path, mode="a", options="{}", *more):
        command = [sys.executable, "-c", NOTEBOOK, str(path), mode, options, *more]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout.readline() == "open\n"

    def close(self):
        self.process.communicate("")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "tracks.h5", [tracks(frame) for frame in range(4)])


@pytest.fixture
def left_open(tmp_path):
    """A file as a killed writer leaves it."""
    path = tmp_path / "left.h5"
    with TrajectoryWriter(tmp_path / "live.h5", run_id="run", attributes={}) as writer:
        for frame in range(4):
            writer.append(tracks(frame))
            writer.commit()
        path.write_bytes(writer.path.read_bytes())
    return path


only_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere the system does not say who has a file open"
)


@pytest.mark.parametrize(
    "how",
    [
        ("a", "{}"),
        ("r+", "{'libver': 'latest'}"),
        ("a", "{'driver': 'stdio'}"),
        pytest.param(("a", "{'locking': False}"), marks=only_linux),
        pytest.param(("a", "{'libver': 'latest'}", "swmr"), marks=only_linux),
    ],
)
def test_a_file_open_for_writing_in_another_program_is_left_to_it(path, how):
    with Notebook(path, *how) as notebook:
        before, inode = path.read_bytes(), path.stat().st_ino
        if "swmr" not in how:
            with pytest.raises(SourceError, match=r"open for writing in another program.*close it there"):
                describe_file(path)
        with pytest.raises(SourceError, match=r"open for writing in another program.*close it there"):
            recover(path)
        assert (path.read_bytes(), path.stat().st_ino) == (before, inode)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        notebook.close()
    assert describe_file(path)["remark"] == "good run"
    assert recover(path).already_whole


def test_only_reading_in_another_program_disturbs_nobody(path, left_open):
    with Notebook(path, "r"):
        assert who_writes(path) == ""
        assert len(read_trajectories(path)) == 12
        annotate(path, {"losses": 0})
    with subprocess.Popen(
        [sys.executable, "-c", f"open({str(left_open)!r}); print('open', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout.readline() == "open\n"
        if sys.platform != "win32":
            assert recover(left_open).rows == 12
        reader.kill()


def test_nothing_is_added_to_a_file_that_another_program_writes(path):
    with Notebook(path, "a"), pytest.raises(OutputError, match="another program"):
        annotate(path, {"losses": 0})


@pytest.mark.parametrize(
    "how", [("a", "{}"), pytest.param(("a", "{'libver': 'latest'}", "swmr"), marks=only_linux)]
)
def test_a_file_open_for_writing_in_another_program_is_not_replaced(path, how):
    with Notebook(path, *how):
        before = path.read_bytes()
        with pytest.raises(OutputError, match=r"cannot replace .* open"):
            TrajectoryWriter(path, run_id="new", attributes={}, overwrite=True)
        assert path.read_bytes() == before


@pytest.mark.parametrize("step_s", [5.0, -3600.0, 1e6])
def test_a_clock_that_was_set_does_not_make_a_writer_dead(tmp_path, monkeypatch, step_s):
    path = tmp_path / "tracks.h5"
    began_s = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: began_s(process) + step_s)
    with start_writing(path) as process:
        with pytest.raises(SourceError, match=f"still being written by process {process.pid}"):
            recover(path)
        assert kill(process) >= 0
    assert read_trajectories(path).attributes["run_id"] == "run"


def test_a_live_file_is_known_by_its_lock_even_if_its_attributes_name_another_process(tmp_path):
    path = tmp_path / "tracks.h5"
    with TrajectoryWriter(path, run_id="run", attributes={"writer": {"host": "x", "pid": 1}}) as writer:
        writer.append(tracks(0))
        writer.commit()
        for force in (False, True):
            with pytest.raises(SourceError, match="still being written by"):
                recover(path, force=force)
        writer.append(tracks(1))
    assert len(read_trajectories(path)) == 6


def from_another_computer(left_open):
    path = left_open.with_name("far.h5")
    attributes = {"writer": {"host": "camera-pc", "pid": 4711}}
    with TrajectoryWriter(left_open.with_name("l.h5"), run_id="run", attributes=attributes) as writer:
        writer.append(tracks(0))
        writer.commit()
        path.write_bytes(writer.path.read_bytes())
    return path


def test_a_file_of_another_computer_must_be_forced(left_open):
    path = from_another_computer(left_open)
    before = path.read_bytes()
    with pytest.raises(SourceError, match=r"another computer \(camera-pc\).*--force"):
        recover(path)
    assert path.read_bytes() == before
    assert recover(path, force=True).frames == 1
    assert recover(path).already_whole


def test_the_file_as_it_was_is_kept_beside_the_mended_one(left_open):
    before = left_open.read_bytes()
    report = recover(left_open)
    assert report.kept == left_open.with_name("left.before-recovery.h5")
    assert report.kept.read_bytes() == before
    left_open.write_bytes(before)
    assert recover(left_open).kept.name == "left.before-recovery-2.h5"
    assert not list(left_open.parent.glob("*.part")) + list(left_open.parent.glob("*.lock"))


def test_the_mended_copy_can_be_written_elsewhere(left_open, tmp_path):
    before = left_open.read_bytes()
    output = tmp_path / "mended.h5"
    report = recover(left_open, output=output)
    assert (report.path, report.kept) == (output, left_open)
    assert left_open.read_bytes() == before
    assert len(read_trajectories(output)) == 12
    with pytest.raises(OutputError, match="exists"):
        recover(left_open, output=output)


def test_without_room_for_a_copy_it_is_said_how_much_is_needed(left_open, monkeypatch):
    usage = type(recovery.shutil.disk_usage("."))
    monkeypatch.setattr(recovery.shutil, "disk_usage", lambda _path: usage(10, 10, 0))
    before = left_open.read_bytes()
    with pytest.raises(OutputError, match=r"needs \d+ MB of disk space and 0 MB are free.*--output"):
        recover(left_open)
    assert left_open.read_bytes() == before


def damaged_attribute(path):
    """A configuration whose text lies in a part of the file that was written over."""
    data = path.read_bytes()
    at = data.index(b"marker")
    heap = data.rindex(b"GCOL", 0, at) if b"GCOL" in data[:at] else at
    return data[:heap] + bytes(4096) + data[heap + 4096 :]


def judgements(path):
    """What each of them says of a file: whether it is whole."""

    def whole(use):
        try:
            use()
        except LivePTVError:
            return False
        return True

    return {
        "info": whole(lambda: describe_file(path)),
        "recover": whole(lambda: recover(path)),
        "export": whole(lambda: export(path, path.with_suffix(".csv"), overwrite=True)),
        "open": whole(lambda: TrajectoryFile(path).close()),
    }


@pytest.mark.parametrize("what", ["attribute", "rows", "cut", "superblock", "flags of nobody"])
def test_all_commands_agree_on_what_is_whole(tmp_path, what):
    frames = [tracks(frame, 40) for frame in range(20)]
    path = write(tmp_path / "tracks.h5", frames, attributes={"notes": "marker" * 3000})
    assert set(judgements(path).values()) == {True}
    data = path.read_bytes()
    if what == "attribute":
        data = damaged_attribute(path)
    elif what == "rows":
        at = data.index(np.array([7, 7], "<u4").tobytes())  # track 7 in frame 7
        data = data[:at] + b"\xff" * 8 + data[at + 8 :]
    elif what == "cut":
        data = data[: len(data) // 2]
    elif what == "superblock":
        data = data[:30] + bytes([data[30] ^ 1]) + data[31:]
    elif what == "flags of nobody":
        block = parse(data[:SIZE])
        data = data + bytes(64)
        assert build(block) == data[:SIZE]
    path.write_bytes(data)
    found = judgements(path)
    if what == "rows":
        del found["open"]  # rows are judged when they are read
    assert set(found.values()) == {what == "flags of nobody"}, found


def test_an_unreadable_picture_does_not_cost_the_tracks(left_open):
    data = left_open.read_bytes()
    left_open.write_bytes(build(parse(data[:SIZE]).repaired(len(data))) + data[SIZE:])
    with h5py.File(left_open, "r+", libver=("v110", "v110")) as file:
        picture = file.create_dataset("snapshot/image", data=np.arange(10_000), compression="gzip")
        at = picture.id.get_chunk_info(0).byte_offset
    data = left_open.read_bytes()
    left_open.write_bytes(data[:at] + b"\xff" * 100 + data[at + 100 :])
    with pytest.raises(SourceError):
        describe_file(left_open)
    assert recover(left_open).rows == 12
    assert describe_file(left_open)["end_reason"] == repair.END_REASON


def test_a_lock_left_by_a_killed_writer_hinders_nobody(tmp_path):
    path = tmp_path / "tracks.h5"
    with start_writing(path) as process:
        kill(process)
    assert lock_path(path, ".writer.lock").exists()
    recover(path)
    assert not lock_path(path, ".writer.lock").exists()
    with TrajectoryWriter(path, run_id="next", attributes={}, overwrite=True) as writer:
        writer.append(tracks(0))
    assert json.loads(h5py.File(path).attrs["writer"])["pid"]
    with adding_to(path, 0):
        pass


def test_info_says_who_writes_a_file_that_is_not_finished_and_that_nobody_does(tmp_path):
    path = tmp_path / "tracks.h5"
    with start_writing(path) as process:
        assert f"still being written by process {process.pid}" in describe_file(path)["state"]
        kill(process)
    assert "`liveptv recover`" in describe_file(path)["state"]
    recover(path)
    assert "state" not in describe_file(path)
