"""One process at a time has a recording, on whichever computer, and a dead one loses it."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from liveptv.batch.results.lease import STALE_S, BusyError, Lease
from stream.writer_lock import Holder, lock_path, read_holder

HOLD = """
import sys, time
from pathlib import Path
from liveptv.batch.results.lease import Lease
lease = Lease(Path(sys.argv[1]), "test")
print("held", flush=True)
time.sleep(600)
"""


def left_by_another_computer(output, age_s):
    """What a process of another computer leaves: a file that names it, last renewed `age_s` ago."""
    lock = lock_path(output)
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(" " + json.dumps(asdict(Holder("another-computer", 17, "liveptv batch", "long ago"))))
    then_s = time.time() - age_s
    os.utime(lock, (then_s, then_s))
    return lock


def test_who_is_second_is_told_who_has_it(tmp_path):
    with Lease(tmp_path / "a", "first"), pytest.raises(BusyError, match=f"process {os.getpid()}"):
        Lease(tmp_path / "a", "second")


def test_what_is_released_leaves_nothing_and_can_be_had_again(tmp_path):
    for _ in range(2):
        lease = Lease(tmp_path / "folder" / "a", "work")
        lease.release()
        lease.release()
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_killed_process_loses_its_lock_at_once(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=f"process {holder.pid}"):
        Lease(tmp_path / "a", "work")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    Lease(tmp_path / "a", "work").release()


def test_a_lock_that_another_computer_renews_is_respected(tmp_path):
    lock = left_by_another_computer(tmp_path / "a", STALE_S / 2)
    with pytest.raises(BusyError, match="process 17 on another-computer"):
        Lease(tmp_path / "a", "work")
    assert read_holder(lock).pid == 17


def test_a_lock_that_another_computer_does_not_renew_is_taken_over(tmp_path):
    lock = left_by_another_computer(tmp_path / "a", 2 * STALE_S)
    with Lease(tmp_path / "a", "work"):
        assert read_holder(lock).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_renewed_while_it_is_held(tmp_path):
    with Lease(tmp_path / "a", "work", beat_s=0.02):
        lock = lock_path(tmp_path / "a")
        os.utime(lock, (1.0, 1.0))
        until_s = time.monotonic() + 240
        while lock.stat().st_mtime < 2.0 and time.monotonic() < until_s:
            time.sleep(0.01)
        assert lock.stat().st_mtime > 2.0
