"""A warning, with what helps, when results get old; none for fresh results and for recordings."""

import math

import pytest

from liveptv.config import build_experiment
from liveptv.session.result_age import AgeWatch


def watch(**sections):
    data = {"microscope": {"config": "x.cfg"}} | sections
    return AgeWatch(build_experiment(data, "the test"))


def notes(one, ages_ms, period_s=1.0):
    found = [one.note(n * period_s, age_ms) for n, age_ms in enumerate(ages_ms)]
    return [note for note in found if note]


def test_results_that_grow_old_are_said_once_a_doubling_with_the_setting():
    one = watch()
    said = notes(one, [100, 900, 1500, 2000, 2900, 3500, 5000, 6500])
    assert [text.split(" s old")[0] for text in said] == ["results are 1.5", "results are 3.5"]
    assert all("link.policy=drop_oldest" in text for text in said)
    assert one.late == "results 6.5 s old"


def test_results_that_are_old_for_a_moment_only_are_not_said():
    assert notes(watch(), [100, 100, 900, 300, 100]) == []
    assert watch().late == ""


def test_it_is_said_when_results_are_live_again():
    one = watch()
    assert notes(one, [100, 2000, 3000, 200, 100])[-1] == "results are live again"


def test_with_a_drop_policy_fewer_slots_are_named():
    (said,) = notes(watch(link={"policy": "drop_oldest"}), [100, 2000])
    assert "fewer link.slots" in said


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
