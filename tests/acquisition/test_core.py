import logging
import subprocess
import sys
import threading

import mm_test_adapters
import pytest
from small_microscope import small_config

from acquisition.microscope.core import adapter_paths, close_core, frame_queue, open_core

RUN = """
from acquisition.microscope.core import close_core, open_core
core = open_core({config!r}, buffer_mb=64)
core.startContinuousSequenceAcquisition(0)
while core.getRemainingImageCount() < 3:
    pass
{end}
"""


def run(config, end):
    program = RUN.format(config=str(config), end=end)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("kind", ["simulated", "demo"])
def test_python_ends_cleanly_after_the_core_was_closed_with_a_running_camera(tmp_path, kind):
    config = small_config(tmp_path) if kind == "simulated" else "MMConfig_demo.cfg"
    done = run(config, "close_core(core)")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_core_leaves_no_thread_and_can_be_closed_again(tmp_path):
    before = set(threading.enumerate())
    core = open_core(str(small_config(tmp_path)))
    core.startContinuousSequenceAcquisition(0)
    assert len(set(threading.enumerate()) - before) == 1
    close_core(core)
    close_core(core)
    assert set(threading.enumerate()) == before
    assert core.getLoadedDevices() == ("Core",)


def test_two_microscopes_one_after_the_other_do_not_know_of_each_other(tmp_path):
    for _ in range(2):
        core = open_core(str(small_config(tmp_path)))
        try:
            assert core.getCameraDevice() == "Camera"
        finally:
            close_core(core)


def test_a_burst_that_stops_on_overflow_keeps_the_earliest_frames_whole(tmp_path):
    core = open_core(str(small_config(tmp_path, "Camera,RealTime,0")), buffer_mb=16)
    try:
        fits = 16 * 1024 * 1024 // (320 * 256)
        core.startSequenceAcquisition(fits + 50, 0, True)
        while core.isSequenceRunning():
            pass
        assert core.isBufferOverflowed()
        assert core.getRemainingImageCount() == fits
        taken = [core.popNextImageAndMD()[1]["ImageNumber"] for _ in range(fits)]
        assert [int(number) for number in taken] == list(range(fits))
    finally:
        close_core(core)


def test_only_a_python_camera_has_our_queue(tmp_path):
    core = open_core(str(small_config(tmp_path)))
    other = open_core("MMConfig_demo.cfg")
    try:
        assert frame_queue(core) is not None
        assert frame_queue(other) is None
    finally:
        close_core(core)
        close_core(other)


def test_the_levels_of_other_loggers_stay_as_they_are():
    code = (
        "import logging, acquisition.microscope.core, acquisition.simulated.devices; "
        "print(logging.getLogger().level)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [str(logging.WARNING)]


def test_adapters_of_every_micromanager_are_searched_the_chosen_one_first(monkeypatch):
    tested = str(mm_test_adapters.device_adapter_path())
    for found in (["/chosen", tested, "/program files/Micro-Manager-2.0"], [tested, "/usr/local/lib/mm"]):
        monkeypatch.setattr(
            "acquisition.microscope.core.find_micromanager",
            lambda return_first=True, found=found: found[0] if return_first else found,
        )
        assert adapter_paths() == found
