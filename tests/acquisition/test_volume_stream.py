"""Volumes from a microscope in the real core: sequenced and stepped, with losses, moves, pauses and a safe end."""

import csv
import math

import numpy as np
import pytest
from small_volumes import LIMITS, drain, small_settings, small_volume, take

from acquisition.commands.execution import CommandExecutor
from acquisition.microscope.microscope import Microscope
from acquisition.settings import LimitsSettings, MicroscopeSettings
from acquisition.source import Source
from acquisition.volumes.stream import VolumeStream
from stream.errors import ConfigurationError, SourceError
from stream.messages import Command, CommandKind

NOT_SEQUENCEABLE = "Focus,SequenceMaxLength,0"


@pytest.fixture
def opened(tmp_path):
    """Opens a microscope and a stream of volumes."""
    made = []

    def opening(*extra, limits=LIMITS, report=lambda _text: None, more=None, **volume):
        settings = small_settings(tmp_path, *extra, **(more or {}))
        microscope = Microscope(settings)
        made.append(microscope)
        stream = VolumeStream(microscope, settings, small_volume(**volume), limits, run_id="x", report=report)
        made.append(stream)
        return microscope, stream

    yield opening
    for one in reversed(made):
        one.close()


def heights(path):
    """From the truth: the height of the focal plane at each image, um, by the camera's number."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["frame"]): float(row["height_um"]) - float(row["z_um"]) for row in rows}


@pytest.mark.parametrize("direction", ["both", "up", "down"])
def test_each_slice_is_taken_at_its_height_whichever_way_the_focus_goes(opened, tmp_path, direction):
    truth = tmp_path / "truth.csv"
    microscope, stream = opened(f"Camera,TruthFile,{truth}", direction=direction)
    stream.start()
    frames = take(stream, 4)
    stream.close()
    microscope.close()
    seen = heights(truth)
    plan = stream.plan
    for volume, frame in enumerate(frames):
        about = frame.info.volume
        assert frame.image.shape == (5, 48, 64)
        assert about.z_um == (0.0, 0.5, 1.0, 1.5, 2.0)
        assert about.missing == ()
        assert about.upwards == (direction == "up" or (direction == "both" and volume % 2 == 0))
        assert (frame.info.camera_frame, frame.info.focus_um) == (volume, 8.0)
        for k in range(5):
            assert seen[plan.image_of(volume, k)] == pytest.approx(8.0 + 0.5 * k, abs=1e-3)
        order = np.argsort(about.time_s)
        assert list(order) == (list(range(5)) if about.upwards else list(range(5))[::-1])
        assert np.diff(np.sort(about.time_s)) == pytest.approx(0.005, abs=1e-6)
    assert isinstance(stream, Source)


def test_a_particle_is_brightest_in_the_slice_at_its_height(opened, tmp_path):
    positions = tmp_path / "particles.csv"
    bright = ("Camera,Peak,2000", "Camera,BrightnessSpread,0", "Camera,ParticlesPerVolume,6")
    microscope, stream = opened(*bright, start_um=2.5, slices=30)
    microscope.set_property("Camera", "ParticlesFile", str(positions))
    stream.start()
    frames = take(stream, 2)
    with positions.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    places = [(round(r["y_um"] / 0.2), round(r["x_um"] / 0.2), (r["height_um"] - 2.5) / 0.5) for r in rows]
    inside = [(i, j, k) for i, j, k in places if 0 <= i < 48 and 0 <= j < 64 and 0 < k < 29]
    assert len(inside) >= 3
    for frame in frames:
        found = [np.argmax(frame.image[:, i, j]) - k for i, j, k in inside]
        assert np.abs(found).max() < 0.7


@pytest.mark.parametrize("every", [7, 11, 13])
def test_lost_images_leave_their_slices_empty_and_shift_no_other(opened, tmp_path, every):
    truth = tmp_path / "truth.csv"
    microscope, stream = opened(f"Camera,DropEvery,{every}", f"Camera,TruthFile,{truth}")
    stream.start()
    frames = take(stream, 12)
    stream.close()
    microscope.close()
    seen = heights(truth)
    for volume, frame in enumerate(frames):
        images = [stream.plan.image_of(volume, k) for k in range(5)]
        lost = tuple(k for k, image in enumerate(images) if (image + 1) % every == 0)
        assert frame.info.volume.missing == lost
        for k, image in enumerate(images):
            assert frame.image[k].any() == (k not in lost)
            if k not in lost:
                assert seen[image] == pytest.approx(8.0 + 0.5 * k, abs=1e-3)
    lost = sum(len(frame.info.volume.missing) for frame in frames)
    assert lost >= 4
    assert stream.counts()["slices_lost"] >= lost
    assert stream.counts()["lost_in_camera"] == 0


def test_volumes_with_too_few_slices_are_lost_and_counted(opened):
    _, stream = opened("Camera,DropEvery,2", least_slices=3)
    stream.start()
    frames = take(stream, 4)
    numbers = [frame.info.camera_frame for frame in frames]
    assert all(len(frame.info.volume.missing) == 2 for frame in frames)
    assert stream.counts()["lost_in_camera"] == numbers[-1] + 1 - 4 > 0
    assert [frame.info.frame for frame in frames] == [0, 1, 2, 3]


def test_settling_images_are_thrown_away(opened, tmp_path):
    truth = tmp_path / "truth.csv"
    microscope, stream = opened(f"Camera,TruthFile,{truth}", direction="up", settle_images=2)
    stream.start()
    frames = take(stream, 3)
    stream.close()
    microscope.close()
    seen = heights(truth)
    assert all(frame.info.volume.missing == () for frame in frames)
    assert [seen[image] for image in range(7, 14)] == pytest.approx([8, 8, 8, 8.5, 9, 9.5, 10], abs=1e-3)
    assert stream.counts()["settling_images"] >= 6


def test_a_drive_that_starts_only_with_the_second_image_is_told_so(opened, tmp_path):
    truth = tmp_path / "truth.csv"
    microscope, stream = opened(
        f"Camera,TruthFile,{truth}", "Focus,SecondImageAt,first", second_image_at="first"
    )
    stream.start()
    take(stream, 2)
    stream.close()
    microscope.close()
    seen = heights(truth)
    assert [seen[image] for image in range(10)] == pytest.approx(
        [8, 8.5, 9, 9.5, 10, 10, 9.5, 9, 8.5, 8], abs=1e-3
    )


@pytest.mark.parametrize(("held", "volumes"), [(17, 3), (5, 1), (10, 2)])
def test_a_drive_that_does_not_repeat_is_started_again(opened, held, volumes):
    _, stream = opened(f"Focus,SequenceMaxLength,{held}", drive_repeats=False)
    stream.start()
    frames = take(stream, 2 * volumes + 1)
    assert [f.info.camera_frame for f in frames] == list(range(len(frames)))
    assert [f.info.volume.upwards for f in frames] == [k % 2 == 0 for k in range(len(frames))]
    assert all(f.info.volume.is_whole for f in frames)
    times = [f.info.time_s for f in frames]
    assert np.all(np.diff(times) > 0)


def test_a_lost_last_image_of_a_start_ends_its_volume(opened):
    _, stream = opened("Camera,DropEvery,5", volumes_per_s=1000.0)
    stream.start()
    frames = take(stream, 4)
    for frame in frames:
        assert frame.info.volume.missing == ((4,) if frame.info.volume.upwards else (0,))
    assert stream.counts()["lost_in_camera"] == 0


@pytest.mark.parametrize("volume", [{}, {"mode": "stepped"}])
def test_a_drive_that_cannot_be_sequenced_is_stepped(opened, volume):
    extra = () if volume else (NOT_SEQUENCEABLE,)
    _, stream = opened(*extra, **volume)
    assert "stepped" in stream.info.description
    assert ("Focus cannot be sequenced" in stream.info.description) == (not volume)
    stream.start()
    frames = take(stream, 3)
    assert [f.info.volume.upwards for f in frames] == [True, False, True]
    for frame in frames:
        assert frame.info.volume.z_um == pytest.approx((0, 0.5, 1.0, 1.5, 2.0), abs=1e-6)
        assert frame.info.focus_um == pytest.approx(8.0)
    stream.stop()
    assert drain(stream) == []


def test_the_lag_is_taken_off_the_focus_of_the_lowest_slice(opened):
    _, stream = opened(lag_up_um=0.2, lag_down_um=0.3)
    stream.start()
    up, down = take(stream, 2)
    assert up.info.focus_um == pytest.approx(7.8)
    assert down.info.focus_um == pytest.approx(8.3)
    assert up.info.focus_commanded_um == down.info.focus_commanded_um == 8.0


@pytest.mark.parametrize(
    ("extra", "limits", "volume", "words"),
    [
        ((), LIMITS, {"start_um": 1.0}, "reach from 1 to 3 um, outside the limits 2 to 30"),
        ((), LIMITS, {"start_um": None, "centre_um": 29.5}, "outside the limits"),
        ((), LimitsSettings(), {}, "limits.min_focus_um"),
        (
            (),
            LimitsSettings(min_focus_um=0, max_focus_um=30, max_focus_step_um=0.4),
            {},
            "move 0.5 um at once",
        ),
        (
            (),
            LimitsSettings(min_focus_um=0, max_focus_um=30, max_focus_step_um=1),
            {"direction": "up"},
            "move 2 um at once",
        ),
        ((NOT_SEQUENCEABLE,), LIMITS, {"mode": "sequenced"}, "Focus cannot be sequenced"),
        (("Focus,SequenceMaxLength,9",), LIMITS, {"mode": "sequenced"}, "holds 9 positions, and 10 images"),
        (("Focus,SequenceMaxLength,9",), LIMITS, {"settle_images": 1}, "settle_images has no meaning"),
    ],
)
def test_a_plan_beyond_the_limits_or_the_drive_is_refused_before_anything_moves(
    tmp_path, extra, limits, volume, words
):
    settings = small_settings(tmp_path, *extra, f"Focus,LogFile,{tmp_path / 'log.csv'}")
    microscope = Microscope(settings)
    try:
        with pytest.raises(ConfigurationError, match=words):
            VolumeStream(microscope, settings, small_volume(**volume), limits, run_id="x")
        assert microscope.read_focus() == 10
    finally:
        microscope.close()
    log = tmp_path / "log.csv"
    assert not log.exists() or "Focus" not in log.read_text()


def test_volumes_are_centred_on_the_focus_where_nothing_is_said(opened):
    _, stream = opened(start_um=None)
    assert (stream.plan.lowest_um, stream.plan.highest_um) == (9.0, 11.0)


@pytest.mark.parametrize("extra", [(), (NOT_SEQUENCEABLE,)])
def test_a_command_moves_the_whole_plan_between_two_volumes(opened, tmp_path, extra):
    microscope, stream = opened(*extra)
    executor = CommandExecutor(microscope, stream, LIMITS, focus=stream.steering)
    stream.start()
    for frame in take(stream, 2):
        executor.frame_taken(frame)
    move = Command(CommandKind.MOVE_FOCUS, 12.0)
    assert executor.execute(move) is None
    answers, frames = [], []
    while not answers:
        (frame,) = take(stream, 1)
        answers += executor.poll() + executor.frame_taken(frame)
        frames.append(frame)
    assert [(a.command_id, a.accepted, a.first_frame) for a in answers] == [
        (move.command_id, True, frames[-1].info.frame)
    ]
    assert frames[-1].info.focus_commanded_um == 12.0
    assert frames[-1].info.focus_um == pytest.approx(12.0)
    assert {round(f.info.focus_um, 3) for f in frames} <= {8.0, 12.0}
    assert stream.counts()["lost_in_camera"] == 0
    refusal = executor.execute(Command(CommandKind.MOVE_FOCUS, 29.0))
    assert not refusal.accepted
    assert "reach from 29 to 31 um" in refusal.reason
    assert take(stream, 1)[0].info.focus_um == pytest.approx(12.0)


def test_a_pause_ends_the_volume_under_way_and_the_next_one_is_whole(opened):
    microscope, stream = opened("Camera,RealTime,1")
    stream.start()
    take(stream, 2)
    stream.pause()
    assert not microscope.core.isSequenceRunning()
    assert not microscope.focus_sequence_runs
    left = []
    while (frame := stream.read(0.0)) is not None:
        left.append(frame)
    stream.resume()
    frames = take(stream, 3)
    assert all(frame.info.volume.is_whole for frame in left + frames)
    assert [f.info.camera_frame for f in left + frames] == list(range(2, 5 + len(left)))
    assert frames[0].info.volume.upwards
    assert stream.counts()["lost_in_camera"] == 0


def test_the_safe_state_takes_the_drive_and_a_resume_gives_it_back(opened):
    said = []
    microscope, stream = opened("Camera,RealTime,1", report=said.append)
    limits = LimitsSettings(min_focus_um=2, max_focus_um=30, safe_focus_um=20)
    executor = CommandExecutor(microscope, stream, limits, focus=stream.steering)
    stream.start()
    take(stream, 2)
    executor.execute(Command(CommandKind.MAKE_SAFE, "test"))
    microscope.wait_for_focus(5)
    assert microscope.read_focus() == pytest.approx(20)
    while stream.read(0.05) is not None:
        pass
    assert microscope.read_focus() == 20
    assert any("the scan has stopped" in line for line in said)
    stream.resume()
    frame = take(stream, 1)[0]
    assert frame.info.focus_um == 8.0
    assert frame.info.volume.is_whole


def test_a_stepped_scan_does_not_move_a_drive_that_was_made_safe(opened):
    microscope, stream = opened(NOT_SEQUENCEABLE)
    stream.start()
    take(stream, 1)
    microscope.move_focus(20)
    for _ in range(20):
        stream.read(0.01)
    microscope.wait_for_focus(5)
    assert microscope.read_focus() == pytest.approx(20)


def test_a_counter_that_falls_back_starts_the_scan_again(opened, monkeypatch):
    said = []
    microscope, stream = opened(report=said.append, more={"frame_number_key": "Own"})
    pop, popped = microscope.core.popNextImageAndMD, []

    def popping():
        image, metadata = pop()
        popped.append(1)
        own = int(metadata["SimulatedCamera-FrameNumber"])
        return image, dict(metadata) | {"Own": own - 1000 * (len(popped) == 13) + 5}

    monkeypatch.setattr(microscope.core, "popNextImageAndMD", popping)
    stream.start()
    frames = take(stream, 6)
    assert len([line for line in said if "counter fell back" in line]) == 1
    assert all(f.info.volume.is_whole for f in frames)
    assert stream.counts()["counter_resets"] == 1
    assert frames[2].info.volume.upwards
    assert [f.info.camera_frame for f in frames] == list(range(6))
    assert stream.counts()["surplus_images"] > 0


def test_after_the_end_camera_and_drive_stand_still_and_everything_is_accounted_for(opened):
    microscope, stream = opened()
    stream.start()
    taken = len(take(stream, 3))
    stream.stop()
    assert not microscope.core.isSequenceRunning()
    assert not microscope.focus_sequence_runs
    taken += len(drain(stream))
    counts = stream.counts()
    assert counts["received"] == taken
    account = stream.account
    assert account.images == stream._images.counts()["received"]
    assert account.unfinished <= 1
    assert stream.read(0.0) is None


def test_a_camera_that_delivers_nothing_is_reported(opened):
    _, stream = opened("Camera,FrameRate,1", "Camera,RealTime,1", more={"stall_s": 0.2, "exposure_ms": 0.1})
    stream.start()
    with pytest.raises(SourceError, match="delivered no frame"):
        take(stream, 1)


def test_rate_step_and_depth_are_known_beforehand(opened):
    _, stream = opened()
    info = stream.info
    assert (info.depth, info.z_step_um, info.frame_rate_hz) == (5, 0.5, 40.0)
    assert math.isnan(opened_rate(opened))


def opened_rate(opened):
    """The rate that a stepped stream states."""
    return opened(NOT_SEQUENCEABLE, "Camera,World,other", "Focus,World,other")[1].info.frame_rate_hz


@pytest.mark.parametrize("volume", [{}, {"mode": "stepped"}, {"volumes_per_s": 50.0}])
def test_adapters_of_micro_manager_take_volumes_too(volume):
    settings = MicroscopeSettings(
        config="MMConfig_demo.cfg",
        exposure_ms=1,
        buffer_mb=64,
        properties={"Camera.PixelType": "16bit", "Z.UseSequences": "Yes", "Camera.OnCameraCCDXSize": 64},
    )
    limits = LimitsSettings(min_focus_um=-1, max_focus_um=30)
    microscope = Microscope(settings)
    try:
        stream = VolumeStream(microscope, settings, small_volume(start_um=0.0, **volume), limits, run_id="x")
        assert ("frame_number_key" in stream.info.description) == ("mode" not in volume)
        stream.start()
        before = take(stream, 3)
        stream.steering.move_focus(3.0)
        after = take(stream, 2)
        stream.close()
        assert not microscope.focus_sequence_runs
        low_um, high_um = (3, 5)
        assert low_um - 0.01 <= microscope.read_focus() <= high_um + 0.01
    finally:
        microscope.close()
    assert [f.info.volume.upwards for f in before] == [True, False, True]
    assert all(f.info.volume.is_whole for f in before + after)
    assert after[-1].info.focus_um == pytest.approx(3.0, abs=0.01)
    assert [f.info.camera_frame for f in before + after] == list(range(5))
