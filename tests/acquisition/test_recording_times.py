"""The times of recorded frames, from the stamps that files have."""

import json
import math

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.recording import open_recording
from acquisition.stacks.tiff_facts import micromanager_planes
from acquisition.stacks.times import frame_times

RATES = st.floats(0.01, 5000)
COUNTS = st.integers(30, 300)


def even(count, rate_hz=20.0):
    return np.arange(count) / rate_hz


def assert_times(stamps, true_s, within_s, **more):
    found = frame_times(stamps, **more)
    assert found.time_s is not None, found.remarks
    assert np.all(np.diff(found.time_s) > 0)
    np.testing.assert_allclose(found.time_s, true_s - true_s[0], rtol=0, atol=within_s)
    return found


@settings(deadline=None)
@given(RATES, COUNTS, st.floats(-1e6, 1e6))
def test_stamps_that_are_right_are_kept_without_a_word(rate_hz, count, first_s):
    true_s = even(count, rate_hz)
    found = assert_times(first_s + true_s, true_s, 1e-3 / rate_hz + 1e-9)
    if rate_hz < 100:
        assert found.rate_hz == pytest.approx(rate_hz, rel=1e-3)
        assert found.remarks == ()


@settings(deadline=None)
@given(RATES, COUNTS, st.data())
def test_whatever_stamps_are_missing_the_frames_keep_their_times(rate_hz, count, data):
    true_s = even(count, rate_hz)
    gone = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=count - 3))
    stamps = true_s.copy()
    stamps[list(gone)] = np.nan
    found = assert_times(stamps, true_s, 1e-6 / rate_hz)
    assert found.rate_hz == pytest.approx(rate_hz)
    assert f"{len(gone)} of {count} frames" in found.remarks[0]


@settings(deadline=None)
@given(RATES, COUNTS, st.data())
def test_stamps_that_repeat_the_one_before_are_put_between_their_neighbours(rate_hz, count, data):
    true_s = even(count, rate_hz)
    twice = data.draw(st.sets(st.integers(1, count - 1), min_size=1, max_size=count // 10))
    stamps = true_s.copy()
    for frame in sorted(twice):
        stamps[frame] = stamps[frame - 1]
    found = assert_times(stamps, true_s, 1e-6 / rate_hz)
    assert found.rate_hz == pytest.approx(rate_hz)
    assert any("repeat" in text for text in found.remarks)


@pytest.mark.parametrize("frame", [1, 10, 58])
def test_a_stamp_given_twice_is_told_from_the_frame_it_belongs_to(frame):
    stamps = even(60)
    stamps[frame] = stamps[frame + 1]  # the first of the two is the wrong one
    assert_times(stamps, even(60), 1e-9)


@settings(deadline=None)
@given(st.floats(5, 4000), st.integers(40, 400), st.sampled_from([1.0, 0.1, 1e-2, 1e-3]), st.floats(0, 1))
def test_stamps_of_a_coarse_clock_give_evenly_spread_frames(rate_hz, count, clock_s, first):
    true_s = (first + np.arange(count)) / rate_hz
    stamps = clock_s * np.floor(true_s / clock_s + 1e-9)
    found = frame_times(stamps)
    if np.unique(stamps).size < 4:
        return  # too short to tell a rate
    assert found.time_s is not None
    assert np.all(np.diff(found.time_s) > 0)
    # the mean rate is as good as two readings of such a clock can tell it
    assert found.time_s[-1] == pytest.approx(true_s[-1] - true_s[0], abs=2 * clock_s + 2 / rate_hz)
    moved_s = (found.time_s - stamps) - (found.time_s - stamps).mean()
    assert np.abs(moved_s).max() < 2 * clock_s + 2 / rate_hz


@pytest.mark.parametrize("rate_hz", [2000.0, 1500.0, 1234.5, 900.0, 700.0, 30.0])
def test_whole_milliseconds_give_the_rate_of_a_fast_camera(rate_hz):
    true_s = even(200, rate_hz)
    found = assert_times(np.floor(1000 * true_s + 1e-9) / 1000, true_s, 0.1 / rate_hz)
    assert found.rate_hz == pytest.approx(rate_hz, rel=2e-3)
    assert "spread evenly" in found.remarks[0]


@pytest.mark.parametrize("tick_s", [1 / 64, 0.0103])
def test_the_timer_tick_of_a_computer_is_seen_through(tick_s):
    true_s = even(300, 200.0)
    found = frame_times(np.round(np.floor(true_s / tick_s) * tick_s, 4))
    assert found.rate_hz == pytest.approx(200, rel=5e-3)
    assert np.diff(found.time_s) == pytest.approx(np.full(299, 0.005), rel=0.05)


def test_whole_seconds_give_20_frames_each():
    found = assert_times(np.floor(even(60)), even(60), 1e-9)
    assert found.rate_hz == pytest.approx(20)


@settings(deadline=None)
@given(RATES, COUNTS, st.data())
def test_a_pause_is_kept_as_real_time(rate_hz, count, data):
    true_s = even(count, rate_hz)
    frame = data.draw(st.integers(5, count - 5))
    true_s[frame:] += data.draw(st.floats(1, 500)) / rate_hz
    found = assert_times(true_s, true_s, 0.03 / rate_hz)
    assert any(f"before frame {frame}; kept" in text for text in found.remarks)


@settings(deadline=None)
@given(st.sampled_from([1.0, 20.0, 25.0, 400.0, 1000.0]), st.integers(50, 200), st.data())
def test_dropped_frames_are_kept_as_real_time(rate_hz, count, data):
    dropped = data.draw(st.sets(st.integers(3, count - 3), min_size=1, max_size=count // 20))
    true_s = np.delete(np.arange(count), sorted(dropped)) / rate_hz
    found = frame_times(true_s)
    # of a clock as coarse as the frames a longer interval may look the same: never off by more than its step
    assert np.abs(found.time_s - true_s).max() <= 1.3 / rate_hz
    if rate_hz == 20.0:
        np.testing.assert_allclose(found.time_s, true_s, atol=1e-9)
        assert any("kept" in text for text in found.remarks)


def test_a_pause_between_whole_seconds_is_kept_to_the_second():
    true_s = even(200)
    true_s[100:] += 31.43
    found = frame_times(np.floor(true_s))
    assert np.abs(found.time_s - true_s).max() < 1
    assert found.rate_hz == pytest.approx(20, rel=0.01)


@settings(deadline=None)
@given(RATES, COUNTS, st.data())
def test_a_clock_that_is_set_back_goes_on_from_there(rate_hz, count, data):
    true_s = even(count, rate_hz)
    frame = data.draw(st.integers(8, count - 8))
    stamps = true_s.copy()
    stamps[frame:] -= data.draw(st.floats(10, 1e5)) / rate_hz
    found = assert_times(stamps, true_s, 0.02 / rate_hz)
    assert any(f"goes back at frame {frame}" in text for text in found.remarks)


@pytest.mark.parametrize("frame", [0, 1, 20, 58, 59])
@pytest.mark.parametrize("off_s", [30.0, -30.0, 1.7e9])
def test_one_stamp_that_is_far_off_moves_nothing_else(frame, off_s):
    stamps = even(60)
    stamps[frame] += off_s
    found = assert_times(stamps, even(60), 1e-6)
    assert found.rate_hz == pytest.approx(20)
    assert f"frame {frame} is far off" in found.remarks[0]


def test_frames_that_changed_places_are_put_between_their_neighbours():
    stamps = even(30)
    stamps[[10, 11]] = stamps[[11, 10]]
    assert_times(stamps, even(30), 1e-9)


def test_frames_at_uneven_times_keep_them():
    true_s = np.cumsum(0.05 * (1 + 0.1 * np.random.default_rng(1).standard_normal(300)))
    assert assert_times(true_s, true_s, 1e-12).remarks == ()


@pytest.mark.parametrize("stamps", [
    np.zeros(50), np.full(50, 12.5), np.full(50, np.nan), even(50)[::-1], np.random.default_rng(2).random(80),
    np.arange(50) * 1e-300, np.arange(50) * 0.05 + 1e17, [0, 1e308, -1e308], [0, 0, 1, 1], [np.inf] * 9, [3.0], [],
])  # fmt: skip
def test_stamps_that_tell_nothing_are_not_used(stamps):
    found = frame_times(stamps)
    assert found.time_s is None
    assert math.isnan(found.rate_hz)


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60))
def test_no_stamps_break_anything_and_times_always_rise(stamps):
    found = frame_times(stamps)
    if found.time_s is not None:
        assert found.time_s.size == len(stamps)
        assert np.all(np.diff(found.time_s) > 0)
        assert np.isfinite(found.time_s).all()
        assert math.isfinite(found.rate_hz)


def test_stamps_that_disagree_with_the_stated_rate_are_used_and_told():
    found = frame_times(even(40), 50.0)
    assert found.rate_hz == pytest.approx(20)
    assert "20 frames/s, not 50 as stated" in found.remarks[0]


def write_micromanager(path, facts):
    with tifffile.TiffWriter(path) as writer:
        for plane in facts:
            tags = [(51123, 2, 0, json.dumps(plane), True)]
            writer.write(np.zeros((8, 9), np.uint16), metadata=None, contiguous=False, extratags=tags)


def times_of(path, **options):
    recording = open_recording(path, run_id="run", pixel_size_um=1.0, **options)
    try:
        recording.start()
        times = []
        while not recording.ended:
            times.append(recording.read(0.5).info.time_s)
        return np.array(times), recording
    finally:
        recording.close()


NUMBERED = [
    lambda t: {"ElapsedTime-ms": 1000 * t},
    lambda t: {"ElapsedTime-ms": f"{1000 * t:.3f}"},
    lambda t: {"ElapsedTimeMs": 1000 * t},
    lambda t: {"UserData": {"ElapsedTime-ms": {"type": "DOUBLE", "scalar": 1000 * t}}},
    lambda t: {"ElapsedTime-ms": 0, "TimeReceivedByCore": f"2024-05-01 12:30:{t:09.6f}"},
    lambda t: {"ReceivedTime": f"2024-05-01 12:30:{t:06.3f} -0700", "UUID": "0c7a"},
]


@pytest.mark.parametrize("facts", NUMBERED)
def test_micromanagers_times_are_found_under_all_their_names(tmp_path, facts):
    path = tmp_path / "video.tif"
    write_micromanager(path, [facts(time_s) for time_s in even(40)])
    times, recording = times_of(path)
    np.testing.assert_allclose(times, even(40), atol=1e-6)
    assert recording.info.frame_rate_hz == pytest.approx(20)


def test_without_elapsed_times_the_date_of_a_frame_tells_and_that_is_said():
    planes = [{"ElapsedTime-ms": 0, "Time": f"2024-05-01 12:30:{k // 20:02} +0200"} for k in range(80)]
    columns = micromanager_planes(80, planes)
    assert "those of Time, because ElapsedTime-ms does not contain them" in columns.remark
    assert frame_times(columns.time_s).rate_hz == pytest.approx(20)


def test_times_that_are_all_zero_leave_the_interval_that_was_set(tmp_path):
    path = tmp_path / "video.ome.tif"
    plane = {"DeltaT": [0.0] * 6, "DeltaTUnit": ["s"] * 6}
    metadata = {"axes": "TYX", "Plane": plane, "TimeIncrement": 20.0, "TimeIncrementUnit": "ms"}
    tifffile.imwrite(
        path, np.zeros((6, 8, 9), np.uint8), ome=True, photometric="minisblack", metadata=metadata
    )
    times, recording = times_of(path)
    np.testing.assert_allclose(times, even(6, 50))
    assert recording.info.frame_rate_hz == pytest.approx(50)
    assert not any("assumed" in text for text in recording.remarks)


def test_times_that_are_all_zero_and_no_interval_are_one_frame_a_second_and_said(tmp_path):
    path = tmp_path / "video.tif"
    write_micromanager(path, [{"ElapsedTime-ms": 0}] * 5)
    times, recording = times_of(path)
    np.testing.assert_allclose(times, np.arange(5.0))
    assert math.isnan(recording.info.frame_rate_hz)
    assert "1 frame/s assumed (--frame-rate)" in recording.remarks
    assert "1 frame/s assumed" in recording.info.description


@pytest.mark.parametrize(("unit", "per_s"), [("ms", 1e3), ("s", 1.0), ("µs", 1e6), ("min", 1 / 60)])
def test_delta_t_alone_gives_times_and_rate_in_all_units(tmp_path, unit, per_s):
    path = tmp_path / "video.ome.tif"
    plane = {"DeltaT": [per_s * (3 + k / 20) for k in range(10)], "DeltaTUnit": [unit] * 10}
    metadata = {"axes": "TYX", "Plane": plane}
    tifffile.imwrite(
        path, np.zeros((10, 8, 9), np.uint8), ome=True, photometric="minisblack", metadata=metadata
    )
    times, recording = times_of(path)
    np.testing.assert_allclose(times, even(10), atol=1e-5)
    assert recording.info.frame_rate_hz == pytest.approx(20, rel=1e-4)


def test_the_users_frame_rate_takes_precedence_over_stamps(tmp_path):
    path = tmp_path / "video.tif"
    write_micromanager(path, [{"ElapsedTime-ms": 1000 * t} for t in even(6)])
    times, recording = times_of(path, frame_rate_hz=100)
    np.testing.assert_allclose(times, even(6, 100))
    assert recording.remarks == ()


@pytest.mark.parametrize(("facts", "rate_hz"), [
    ({"fps": 7.0}, None), ({"fps": 7.0, "finterval": 0.05}, 20), ({"finterval": 50, "tunit": "ms"}, 20),
    ({"finterval": 0.5, "tunit": "min"}, 1 / 30), ({"finterval": 0.05, "tunit": "sec"}, 20),
    ({"finterval": 0.05, "tunit": "fortnight"}, None), ({"finterval": 0.0, "fps": 25.0}, None),
])  # fmt: skip
def test_imagej_frame_interval_is_the_rate_and_its_playback_speed_is_not(tmp_path, facts, rate_hz):
    path = tmp_path / "video.tif"
    tifffile.imwrite(path, np.zeros((6, 8, 9), np.uint16), imagej=True, metadata={"axes": "TYX", **facts})
    times, recording = times_of(path)
    np.testing.assert_allclose(times, even(6, rate_hz or 1.0))
    assert any("assumed" in text for text in recording.remarks) == (rate_hz is None)
    assert any("not the frame rate of the camera" in text for text in recording.remarks) == (
        "fps" in facts and rate_hz is None
    )


def test_planes_of_volumes_share_the_step_of_the_time(tmp_path):
    path = tmp_path / "volumes.ome.tif"
    metadata = {"axes": "TZYX", "TimeIncrement": 1.0, "TimeIncrementUnit": "s", "PhysicalSizeZ": 2.0}
    stack = np.zeros((3, 4, 8, 9), np.uint8)
    tifffile.imwrite(path, stack, ome=True, photometric="minisblack", metadata=metadata)
    times, recording = times_of(path)
    np.testing.assert_allclose(times, np.arange(12) / 4)
    assert any("spread evenly" in text for text in recording.remarks)
    times, recording = times_of(path, volumes=True)
    np.testing.assert_allclose(times, np.arange(3))
    assert recording.remarks == ()


def test_frames_lost_in_the_camera_take_their_time_where_only_a_rate_is_known(tmp_path):
    path = tmp_path / "video.tif"
    write_micromanager(path, [{"ImageNumber": number} for number in (5, 6, 9, 10)])
    times, _ = times_of(path, frame_rate_hz=10)
    np.testing.assert_allclose(times, [0, 0.1, 0.4, 0.5])
