import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stream import writer_lock as claims
from stream.errors import OutputError
from stream.writer_lock import RUN, WRITER, Claim, Holder, holder_of, lock_path

ROOT = Path(__file__).parents[2]

HOLD = """
import sys
from pathlib import Path
from stream.writer_lock import Claim
claim = Claim(Path(sys.argv[1]), "run 7")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "tracks.h5"


@pytest.fixture
def other(output):
    """Another process that holds the output until it is killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_an_output_belongs_to_one_at_a_time_and_leaves_nothing_behind(output):
    with Claim(output, "run 1"):
        with pytest.raises(OutputError, match=rf"is being written by process {os.getpid()} \(run 1, since"):
            Claim(output, "run 2")
        with Claim(output, "run 1", WRITER):
            assert holder_of(output, RUN).what == holder_of(output, WRITER).what == "run 1"
    assert holder_of(output) is None
    assert list(output.parent.iterdir()) == []


def test_another_process_is_named_and_its_death_frees_the_output(output, other):
    with pytest.raises(OutputError, match=f"process {other.pid} "):
        Claim(output, "run 8")
    assert holder_of(output).pid == other.pid
    other.kill()
    other.wait()
    assert holder_of(output) is None
    with Claim(output, "run 8"):
        assert holder_of(output).what == "run 8"
    assert not lock_path(output).exists()


def test_a_link_to_the_output_is_the_same_output(output):
    output.write_text("x")
    link = output.with_name("link.h5")
    try:
        link.symlink_to(output)
    except OSError:
        pytest.skip("this user may not make links")
    with Claim(output, "run 1"), pytest.raises(OutputError, match="run 1"):
        Claim(link, "run 2")


def test_who_asks_for_the_holder_changes_nothing(output, other):
    before = lock_path(output).read_bytes()
    for _ in range(3):
        holder_of(output)
    assert lock_path(output).read_bytes() == before
    assert holder_of(output.with_name("other.h5")) is None
    assert sorted(path.name for path in output.parent.iterdir()) == ["tracks.h5.lock"]


def test_what_another_computer_has_left_is_not_taken_over(output, monkeypatch):
    with Claim(output, "run 1") as claim:
        words = lock_path(output).read_bytes()
        claim.release()
    lock_path(output).write_bytes(words.replace(socket.gethostname().encode(), b"far-away"))
    with pytest.raises(OutputError, match=r"on far-away.*delete .*tracks\.h5\.lock"):
        Claim(output, "run 2")
    assert b"far-away" in lock_path(output).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="a disk of Windows has locks")
@pytest.mark.parametrize("free", [False, True])
def test_on_a_disk_without_locks_the_words_in_the_file_decide(output, monkeypatch, free):
    pid = 2**22 + 1 if free else os.getpid()  # beyond the largest that Linux gives

    def no_locks(_fd, _how):
        raise OSError(claims.errno.ENOLCK, "no locks available")

    with Claim(output, "run 1") as claim:
        words = lock_path(output).read_bytes()
        claim.release()
    lock_path(output).write_bytes(words.replace(f'"pid": {os.getpid()}'.encode(), f'"pid": {pid}'.encode()))
    monkeypatch.setattr(claims.fcntl, "flock", no_locks)
    if free:
        Claim(output, "run 2").release()
    else:
        with pytest.raises(OutputError, match="is being written by"):
            Claim(output, "run 2")


def test_a_folder_that_is_not_there_or_not_writable_is_said_in_one_line(output):
    with pytest.raises(OutputError, match=r"cannot write .*no such file or directory") as caught:
        Claim(output.parent / "nowhere" / "tracks.h5", "run 1")
    assert "\n" not in str(caught.value)


def test_garbage_in_the_file_of_a_lock_is_no_holder(output):
    for garbage in (b"", b" ", b" {}", b"\xff" * 50, b' {"host": 1}', b" [1]"):
        lock_path(output).write_bytes(garbage)
        with Claim(output, "run 1"):
            pass
    assert str(Holder()) == "another process"
