import math
import time

import numpy as np
import pytest
from scripted_microscope import ScriptedMicroscope
from simulated_clock import SimulatedClock
from small_microscope import small_settings

from acquisition.microscope.core import frame_queue
from acquisition.microscope.live import STALLED_EXPOSURES, MicroscopeStream
from acquisition.microscope.microscope import Microscope
from acquisition.microscope.watched_state import WatchedState, changes
from acquisition.settings import MicroscopeSettings
from stream.errors import SourceError


@pytest.fixture
def opened():
    """Open streams that are closed at the end of the test."""
    scopes = []

    def open_stream(settings):
        microscope = Microscope(settings)
        scopes.append(microscope)
        stream = MicroscopeStream(microscope, settings, run_id="test")
        scopes.append(stream)
        return microscope, stream

    yield open_stream
    for scope in reversed(scopes):
        scope.close()


def take_until(stream, condition):
    """Take frames until one makes the condition true, or the stream ends."""
    frames, deadline_s = [], time.monotonic() + 240
    while not (frames and condition(frames)) and not stream.ended:
        assert time.monotonic() < deadline_s
        frame = stream.read(0.1)
        if frame is not None:
            frames.append(frame)
    return frames


def take(stream, count):
    return take_until(stream, lambda frames: len(frames) >= count)


def wait_until(condition):
    deadline_s = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def wait_for_frames(stream, count):
    """Leave the frames in the camera's buffer until so many wait there."""
    wait_until(lambda: stream.gauges()["buffer"] >= count)


def test_frames_are_numbered_from_zero_with_the_cameras_time_and_number(opened, tmp_path):
    _, stream = opened(small_settings(tmp_path, "Camera,RealTime,0"))
    stream.start()
    frames = take(stream, 20)
    assert [f.info.frame for f in frames] == list(range(20))
    assert [f.info.camera_frame for f in frames] == list(range(20))
    np.testing.assert_allclose(np.diff([f.info.time_s for f in frames]), 0.01, atol=1e-5)
    assert len({f.image.tobytes() for f in frames}) == 20
    counts = stream.counts()
    assert (counts["received"], counts["lost_in_camera"]) == (20, 0)


def test_frames_lost_in_the_camera_are_reported_as_lost(opened, tmp_path):
    _, stream = opened(small_settings(tmp_path, "Camera,DropEvery,4", "Camera,RealTime,0"))
    stream.start()
    frames = take(stream, 30)
    assert [f.info.frame for f in frames] == list(range(30))
    assert frames[-1].info.camera_frame == 38
    assert stream.counts()["lost_in_camera"] == 9


def test_frames_that_nobody_took_in_time_are_reported_as_lost(opened, tmp_path):
    microscope, stream = opened(small_settings(tmp_path, rate=400, buffer_mb=16))
    stream.start()
    take(stream, 1)
    queue = frame_queue(microscope.core)
    wait_until(lambda: queue.discarded > 20)
    frames = take_until(stream, lambda _: stream.counts()["lost_in_camera"])
    counts = stream.counts()
    assert counts["lost_in_camera"] > 20
    assert counts["lost_in_camera"] == frames[-1].info.camera_frame + 1 - counts["received"]


def test_frames_that_a_camera_of_micro_manager_overwrote_are_reported_as_lost(opened):
    settings = MicroscopeSettings(config="MMConfig_demo.cfg", exposure_ms=1, buffer_mb=16)
    microscope, stream = opened(settings)
    stream.start()
    first = take(stream, 3)
    most = []

    def overwritten():
        most.append(microscope.core.getRemainingImageCount())
        return most[-1] < max(most)  # the core empties a full buffer

    wait_until(overwritten)
    later = take_until(stream, lambda _: stream.counts()["lost_in_camera"])
    counts = stream.counts()
    assert counts["lost_in_camera"] > 20
    assert counts["lost_in_camera"] == later[-1].info.camera_frame + 1 - counts["received"]
    assert later[-1].info.frame == len(first) + len(later) - 1


def test_frames_taken_but_not_read_before_the_end_are_counted(opened, tmp_path):
    _, stream = opened(small_settings(tmp_path))
    stream.start()
    last = take(stream, 3)[-1].info.camera_frame
    wait_for_frames(stream, 11)
    stream.stop()
    left = stream.counts()["left_in_buffer"]
    assert left > 10
    assert take(stream, 1)[0].info.camera_frame == last + 1
    stream.close()
    assert stream.counts()["left_in_buffer"] == left - 1


def test_simulated_time_waits_for_a_slow_reader_and_loses_nothing(opened, tmp_path):
    _, stream = opened(small_settings(tmp_path, "Camera,RealTime,0", buffer_mb=16))
    stream.start()
    frames = take(stream, 300)
    assert [f.info.camera_frame for f in frames] == list(range(300))
    assert stream.counts()["lost_in_camera"] == 0


def test_frames_carry_focus_flow_and_exposure(opened, tmp_path):
    microscope, stream = opened(small_settings(tmp_path, exposure_ms=3.0, read_hz=1000))
    stream.start()
    before = take(stream, 3)[-1].info
    microscope.set_flow(0.01)
    microscope.move_focus(170)
    stream.devices_changed()
    microscope.wait_for_focus(60)
    wait_until(lambda: abs(microscope.read_focus() - 170) < 0.5)
    changed_ns = stream.devices_changed()
    after = take_until(stream, lambda _: stream.exposed_ns > changed_ns)[-1].info
    assert (before.focus_um, before.focus_commanded_um, before.exposure_ms) == (150, 150, 3.0)
    assert before.flow_ul_s == pytest.approx(0.0246)
    assert after.focus_um == pytest.approx(170, abs=0.5)
    assert after.focus_commanded_um == 170
    assert after.flow_ul_s == pytest.approx(0.01)


def test_a_paused_camera_goes_on_with_the_next_number_and_a_later_time(opened, tmp_path):
    _, stream = opened(small_settings(tmp_path))
    stream.start()
    first = take(stream, 5)
    stream.pause()
    time.sleep(0.3)
    stream.resume()
    second = take(stream, 5)
    assert [f.info.frame for f in first + second] == list(range(10))
    numbers = [f.info.camera_frame for f in first + second]
    assert numbers == sorted(set(numbers))
    assert np.diff([f.info.time_s for f in first + second]).max() > 0.25


def test_frames_that_wait_while_the_camera_is_paused_are_delivered_before_new_ones(opened, tmp_path):
    _, stream = opened(small_settings(tmp_path))
    stream.start()
    take(stream, 3)
    wait_for_frames(stream, 11)
    stream.pause()
    stream.resume()
    waiting = int(stream.gauges()["buffer"])
    frames = take(stream, waiting + 5)
    assert waiting > 10
    counts = stream.counts()
    assert (counts["received"], counts["lost_in_camera"]) == (
        waiting + 8,
        0,
    )  # others may wait: the camera runs
    assert [f.info.camera_frame for f in frames] == list(range(3, waiting + 8))
    assert (np.diff([f.info.time_s for f in frames]) > 0).all()


def test_frames_that_waited_show_the_microscope_as_it_was_when_they_were_taken(opened, tmp_path):
    microscope, stream = opened(small_settings(tmp_path))
    stream.start()
    take(stream, 5)
    wait_for_frames(stream, 25)
    microscope.set_flow(0.01)
    microscope.set_exposure(2.0)
    changed_ns = stream.devices_changed()
    frames = take_until(stream, lambda _: stream.exposed_ns > changed_ns) + take(stream, 10)
    stamps = [(f.info.flow_ul_s, f.info.exposure_ms) for f in frames]
    new = stamps.index((0.01, 2.0))
    assert new >= 25
    assert stamps == [(0.0246, 0.55)] * new + [(0.01, 2.0)] * (len(stamps) - new)


def test_a_stopped_camera_delivers_what_it_has_taken_and_then_ends(opened, tmp_path):
    _, stream = opened(small_settings(tmp_path))
    stream.start()
    take(stream, 2)
    wait_for_frames(stream, 6)
    stream.stop()
    assert len(take(stream, 1000)) > 5
    assert stream.ended


def test_a_camera_whose_thread_fails_is_an_error_with_its_reason(opened, tmp_path, monkeypatch):
    _, stream = opened(small_settings(tmp_path, "Camera,RealTime,0"))
    stream.start()
    take(stream, 2)

    def broken(*_):
        raise ValueError("the lamp fell off")

    monkeypatch.setattr("acquisition.simulated.world.World.particles_at", broken)
    with pytest.raises(SourceError, match=r"Camera stopped by itself after \d+ frames: .*the lamp fell off"):
        take(stream, 1000)


def test_a_camera_that_delivers_nothing_is_an_error(monkeypatch):
    clock = SimulatedClock()
    monkeypatch.setattr("acquisition.microscope.live.time", clock)
    camera = ScriptedMicroscope(clock, rate_hz=100, exposure_ms=0.55)
    stream = MicroscopeStream(camera, camera.settings.model_copy(update={"stall_s": 0.3}), run_id="test")
    stream.start()
    take(stream, 3)
    camera.unplug()
    unplugged_s = clock.now_s
    with pytest.raises(SourceError, match="delivered no frame"):
        take(stream, 1000)
    assert clock.now_s - unplugged_s == pytest.approx(0.3 + STALLED_EXPOSURES * 0.55e-3, abs=0.012)


def test_a_counter_that_the_frames_do_not_have_is_refused_with_those_they_have(opened):
    _, stream = opened(MicroscopeSettings(config="MMConfig_demo.cfg", frame_number_key="Counter"))
    stream.start()
    with pytest.raises(SourceError, match=r"no 'Counter'.*frame_number_key.*ImageNumber"):
        take(stream, 1)


@pytest.mark.parametrize(("bits", "dtype"), [("8bit", np.uint8), ("16bit", np.uint16)])
def test_a_camera_of_micro_manager_runs_through_the_same_code(opened, bits, dtype):
    settings = MicroscopeSettings(
        config="MMConfig_demo.cfg", exposure_ms=20, properties={"Camera.PixelType": bits}, buffer_mb=64
    )
    microscope, stream = opened(settings)
    assert microscope.focus
    assert not microscope.pump
    stream.start()
    frames = take(stream, 12)
    assert [f.info.frame for f in frames] == list(range(12))
    assert all(f.image.dtype == dtype and f.image.shape == (512, 512) for f in frames)
    times = np.array([f.info.time_s for f in frames])
    assert (np.diff(times) > 0).all()
    assert np.isfinite(frames[0].info.focus_um)
    assert np.isnan(frames[0].info.flow_ul_s)
    assert stream.counts()["lost_in_camera"] == 0


OBJECTIVE = """Device,Objective,DemoCamera,DObjective
#py pyDevice,Camera"""
TWO_OBJECTIVES = """
ConfigPixelSize,Res10x,Objective,State,0
PixelSize_um,Res10x,0.8
ConfigPixelSize,Res20x,Objective,State,1
PixelSize_um,Res20x,0.4
"""


@pytest.fixture
def with_objectives(opened, tmp_path):
    """A microscope with two objectives, and what its stream reported."""

    def build(**more):
        settings = small_settings(tmp_path, **more)
        path = tmp_path / "small.cfg"
        path.write_text(path.read_text().replace("#py pyDevice,Camera", OBJECTIVE, 1) + TWO_OBJECTIVES)
        microscope, stream = opened(settings)
        said = []
        stream._report = said.append
        stream.start()
        return microscope, stream, said

    return build


def change_objective(microscope, stream, said):
    """Somebody turns the turret; the stream is not told. The frames until it has noticed, and two more."""
    take(stream, 3)
    microscope.core.setProperty("Objective", "State", 1)
    return take_until(stream, lambda _: said) + take(stream, 2)


def test_frames_carry_the_pixel_size_of_the_objective_that_they_were_taken_with(with_objectives):
    microscope, stream, said = with_objectives()
    assert stream.info.pixel_size_um == 0.8
    frames = change_objective(microscope, stream, said)
    frames += take_until(stream, lambda frames: frames[-1].info.pixel_size_um != 0.8)
    assert frames[-1].info.pixel_size_um == 0.4
    assert len(said) == 1
    assert "pixel size of the microscope changed from 0.8 um to 0.4 um" in said[0]


def test_a_pixel_size_that_the_settings_fix_holds_and_it_is_said(with_objectives):
    microscope, stream, said = with_objectives(pixel_size_um=0.5)
    frames = change_objective(microscope, stream, said)
    assert {frame.info.pixel_size_um for frame in frames} == {0.5}
    assert "microscope.pixel_size_um = 0.5 is set and is still used" in said[0]


def test_an_exposure_that_is_changed_from_outside_is_carried_and_said(with_objectives):
    microscope, stream, said = with_objectives(exposure_ms=2.0)
    take(stream, 3)
    microscope.core.setExposure("Camera", 4.0)
    frames = take_until(stream, lambda frames: frames[-1].info.exposure_ms != 2.0)
    assert frames[-1].info.exposure_ms == 4.0
    assert any("exposure was changed from outside, from 2 to 4 ms" in line for line in said)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (WatchedState(None, 2.0, 12, True), "from 0.8 um to unknown"),
        (WatchedState(0.8, 2.0, 16, True), "bit depth changed from 12 to 16"),
        (WatchedState(0.8, 2.0, 12, False), "shutter was closed from outside"),
        (WatchedState(0.8, 3.0, 12, True), "exposure was changed from outside"),
    ],
)
def test_a_change_is_said_once_and_in_words(now, words):
    before = WatchedState(0.8, 2.0, 12, True)
    (line,) = changes(before, now, fixed_pixel_size_um=None, commanded=False)
    assert words in line
    assert changes(now, now, fixed_pixel_size_um=None, commanded=False) == []


def test_a_camera_that_announces_its_frames_is_quiet_until_one_waits(opened, tmp_path):
    _, stream = opened(small_settings(tmp_path, "Camera,FrameRate,1"))
    announced = []
    stream.announce(lambda: announced.append(stream.gauges()["buffer"]))
    stream.start()
    wait_until(lambda: announced)
    assert stream.quiet_s() == 0.0
    take(stream, int(stream.gauges()["buffer"]))
    assert stream.quiet_s() == math.inf
    assert announced[0] >= 1


def test_a_camera_that_announces_nothing_is_left_alone_for_half_a_period(opened, tmp_path):
    _, stream = opened(small_settings(tmp_path, "Camera,FrameRate,1"))
    stream.start()
    wait_for_frames(stream, 1)
    assert stream.quiet_s() == 0.0
    take(stream, int(stream.gauges()["buffer"]))
    assert 0.0 < stream.quiet_s() <= 0.5
