"""A warning, with what helps, when results get old; none for fresh results and for recordings."""

import math

import numpy as np
import pytest

from liveptv.config import build_experiment
from liveptv.session.plan import ImageFormat
from liveptv.session.result_age import AgeWatch, ResultAge
from tracking.trajectories.schema import FRAME

BLOCK = {"policy": "block"}


def watch(rate_hz=30.0, **sections):
    data = {"microscope": {"config": "x.cfg"}, "link": BLOCK} | sections
    one = AgeWatch(build_experiment(data, "the test"))
    one.know(ImageFormat(512, 768, 1, "uint8", 0.8, rate_hz, None, ""))
    return one


def notes(one, ages_ms, period_s=1.0):
    found = [one.note(n * period_s, age_ms) for n, age_ms in enumerate(ages_ms)]
    return [note for note in found if note]


def test_results_that_grow_old_are_said_once_a_doubling_with_the_setting():
    one = watch()
    said = notes(one, [100, 900, 1500, 2000, 2900, 3500, 5000, 6500])
    assert [text.split(" s old")[0] for text in said] == ["results are 1.5", "results are 3.5"]
    assert all("leave link.policy out" in text for text in said)
    assert one.late == "results 6.5 s old"


def test_results_that_are_old_for_a_moment_only_are_not_said():
    assert notes(watch(), [100, 100, 900, 300, 100]) == []
    assert watch().late == ""


def test_it_is_said_when_results_are_live_again():
    one = watch()
    assert notes(one, [100, 2000, 3000, 200, 100])[-1] == "results are live again"


def test_in_a_live_run_what_is_old_is_a_stage_that_stands_still_not_frames_that_wait():
    (said,) = notes(watch(link={}), [100, 2000])
    assert "a stage does not go on" in said
    assert "link.policy" not in said


def test_in_simulated_time_nothing_is_to_be_changed():
    one = AgeWatch(build_experiment({"microscope": {"config": "x.cfg"}}, "the test"))
    one.know(ImageFormat(512, 768, 1, "uint8", 0.8, 30.0, None, "", keeps_time=False))
    assert all("none is lost" in text and "link.policy" not in text for text in notes(one, [100, 2000, 5000]))


def test_an_age_limit_in_the_settings_that_is_shorter_than_usual_is_named():
    (said,) = notes(watch(link={"age_limit_ms": 1.0}), [100, 2000])
    assert "link.age_limit_ms (1 ms) may be less than the detector needs for a frame; leave it out" in said
    (said,) = notes(watch(link={"age_limit_ms": 500.0}), [100, 2000, 3000])
    assert "age_limit_ms" not in said


def test_a_pause_makes_no_old_results_and_does_not_count_after_it():
    one = watch(link={})
    assert [one.note(second, 1000.0 * second, paused=True) for second in range(1, 30)] == [""] * 29
    assert one.late == ""
    assert one.note(29.5, 29_500) == ""  # the newest result is still that from before the pause
    assert one.late == ""
    assert [one.note(30.0 + second, 60.0) for second in range(3)] == [""] * 3


def test_results_that_stay_away_after_a_pause_are_said_with_the_age_since_it():
    one = watch(link={})
    one.note(100.0, 100_000, paused=True)
    said = [note for second in range(1, 5) if (note := one.note(100.0 + second, 100_000 + 1000.0 * second))]
    assert said[0].startswith("results are 2.0 s old and getting older")


def test_a_slow_camera_makes_no_old_results():
    assert notes(watch(rate_hz=1.0, link={}), [1000, 2000, 3000, 4000]) == []


def test_the_ages_of_a_run_are_summed_up_without_frames_that_have_none():
    frames = np.zeros(102, FRAME)
    frames["age_ms"] = [np.nan, *range(1, 102)]
    age = ResultAge.of(frames)
    assert age == ResultAge(51.0, 100.0)
    assert age.in_words() == "51 ms old (median), 100 ms (99 %)"
    assert ResultAge.stored({"result_age": age.to_dict()}, frames[:0]) == age
    assert ResultAge.of(frames[:1]) is None


def test_a_run_with_a_controller_is_told_of_its_watchdog():
    one = watch(controller={"stop_when": {"frames": 5}}, limits={"watchdog_s": 1.5})
    (said,) = notes(one, [100, 2000])
    assert "too old for the watchdog" in said


@pytest.mark.parametrize("ages", [[math.nan] * 5, []])
def test_nothing_is_said_of_what_is_not_known(ages):
    assert notes(watch(), ages) == []


def test_a_recording_has_no_age():
    one = AgeWatch(build_experiment({"recording": {"path": "x.tif"}}, "the test"))
    assert notes(one, [100, 5000, 9000]) == []
