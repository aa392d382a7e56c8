import math

import pytest

from acquisition.microscope.frame_stamps import CameraClock, CameraNumbers
from acquisition.microscope.readings import Reading, Readings
from stream.errors import SourceError

MS = 1_000_000


def numbers(values, key="Counter"):
    counter = CameraNumbers(key)
    return counter, [counter.take({"Counter": str(value)}) for value in values]


def test_a_gap_in_the_cameras_numbers_is_what_was_lost():
    counter, taken = numbers([7, 8, 11, 12])
    assert taken == [0, 1, 4, 5]
    assert counter.lost == 2


def test_numbers_go_on_after_a_restart_and_after_a_counter_that_fell_back():
    counter, taken = numbers([0, 1, 2])
    counter.restart()
    taken += [counter.take({"Counter": value}) for value in (0, 1, 0, 1)]
    assert taken == [0, 1, 2, 3, 4, 5, 6]
    assert (counter.lost, counter.resets) == (0, 1)


def test_frames_before_the_first_are_lost_where_the_counter_is_known_to_begin_at_zero():
    counter = CameraNumbers(None)
    assert counter.take({"ImageNumber": "3"}) == 3
    assert counter.lost == 3


@pytest.mark.parametrize("value", ["", "seven", "nan", None])
def test_a_counter_that_is_no_number_is_an_error(value):
    with pytest.raises(SourceError, match="frame_number_key"):
        CameraNumbers("Counter").take({"Counter": value})


def test_a_frame_that_waited_arrived_when_the_core_took_it():
    clock = CameraClock()
    clock.restart(0, 0)
    assert clock.arrival_ns({"ElapsedTime-ms": "10"}, 15 * MS) == 15 * MS
    assert clock.arrival_ns({"ElapsedTime-ms": "20"}, 90 * MS) == 25 * MS
    assert clock.arrival_ns({}, 99 * MS) == 99 * MS


def test_a_frame_was_not_exposed_before_the_camera_was_started():
    clock = CameraClock()
    clock.restart(1000 * MS, 400 * MS)
    camera_s = clock.take({"SimulatedCamera-Time-s": "77.0"}, 1003 * MS, 1 * MS, 10 * MS)
    assert camera_s == pytest.approx(0.6)
    assert 992 * MS <= clock.exposed_ns <= 1000 * MS
    assert math.isnan(clock.take({}, 1100 * MS, 1 * MS, 10 * MS))
    assert clock.exposed_ns == 1089 * MS


def test_a_frame_that_comes_late_was_not_exposed_later_for_that():
    clock = CameraClock()
    clock.restart(1000 * MS, 1000 * MS)
    for number in range(50):
        due_ms, late_ms = 10 * number, 25 if number == 49 else 2
        clock.take(
            {"SimulatedCamera-Time-s": f"{1e-3 * due_ms}"}, (1000 + due_ms + late_ms) * MS, MS, 10 * MS
        )
        assert (1000 + due_ms - 1) * MS <= clock.exposed_ns <= (1000 + due_ms) * MS


def test_where_the_cameras_time_is_simulated_a_frame_was_exposed_shortly_before_it_came():
    clock = CameraClock(keeps_time=False)
    clock.restart(1000 * MS, 1000 * MS)
    for number in range(50):
        clock.take({"SimulatedCamera-Time-s": f"{0.01 * number}"}, (1040 + 40 * number) * MS, MS, 10 * MS)
        assert (1025 + 40 * number) * MS <= clock.exposed_ns <= (1040 + 40 * number) * MS


@pytest.fixture
def readings():
    """Focus from 10 to 20 um between 100 and 200 ms; exposure from 5 to 50 ms at 200 ms."""
    made = Readings()
    made.add(Reading(100 * MS, 10.0, 10.0, 0.1, 5.0))
    made.add(Reading(200 * MS, 20.0, 20.0, 0.2, 50.0))
    return made


def test_set_points_hold_until_they_are_changed_and_the_focus_moves_in_between(readings):
    assert [readings.at(t * MS).flow_ul_s for t in (50, 100, 199, 200, 900)] == [0.1, 0.1, 0.1, 0.2, 0.2]
    assert [readings.focus_um(t * MS) for t in (50, 100, 150, 200, 900)] == [10, 10, 15, 20, 20]


@pytest.mark.parametrize(
    ("arrived_ms", "interval_ms", "expected"), [(150, 5, 5), (203, 5, 50), (300, 55, 50)]
)
def test_around_a_change_a_frame_may_have_had_the_longer_exposure(
    readings, arrived_ms, interval_ms, expected
):
    assert readings.exposure_ms(arrived_ms * MS, 5 * MS, interval_ms * MS) == expected


def test_frames_in_quick_succession_cannot_have_had_the_long_exposure_before(readings):
    readings.add(Reading(300 * MS, 20.0, 20.0, 0.2, 5.0))
    assert readings.exposure_ms(310 * MS, 5 * MS, 52 * MS) == 50
    assert readings.exposure_ms(316 * MS, 5 * MS, 6 * MS) == 5


def test_what_is_forgotten_is_not_needed_for_later_frames(readings):
    readings.forget_before(150 * MS)
    assert readings.focus_um(150 * MS) == 15
    readings.forget_before(250 * MS)
    assert readings.at(0).flow_ul_s == 0.2
