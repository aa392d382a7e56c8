"""Live with a microscope, lossless with a recording; how old a result may be; how much the links hold."""

import math

import pytest

from liveptv.config import build_experiment
from liveptv.session.link_rules import FrameRules, frame_options, frame_rules, result_options
from liveptv.session.plan import ImageFormat
from liveptv.session.provenance import file_attributes
from stream.errors import ConfigurationError
from stream.link import Policy

MICROSCOPE = {"microscope": {"config": "x.cfg"}}
RECORDING = {"recording": {"path": "x.tif"}}
PACED = {"recording": {"path": "x.tif", "pace": True}}


def experiment(source=None, **link):
    return build_experiment({**(source or MICROSCOPE), "link": link}, "the test")


def source(rate_hz=30.0, height=512, width=768, dtype="uint8", *, keeps_time=True):
    return ImageFormat(height, width, 1, dtype, 0.8, rate_hz, None, "", keeps_time)


@pytest.mark.parametrize(
    ("of", "keeps_time", "policy"),
    [
        (MICROSCOPE, True, Policy.LIVE),
        (MICROSCOPE, False, Policy.BLOCK),
        (RECORDING, False, Policy.BLOCK),
        (PACED, True, Policy.BLOCK),
    ],
)
def test_a_microscope_is_live_and_whatever_can_wait_is_lossless(of, keeps_time, policy):
    assert frame_rules(experiment(of), source(keeps_time=keeps_time)).policy is policy


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
def test_a_policy_in_the_file_is_kept_and_results_are_never_dropped(policy):
    chosen = experiment(policy=policy, slots=4, credits=1)
    assert frame_rules(chosen, source()) == FrameRules(Policy(policy), math.inf)
    frames, results = frame_options(chosen, source()), result_options(chosen, 1000)
    assert (frames["policy"], frames["slots"], frames["credits"]) == (policy, 4, 1)
    assert "policy" not in results
    assert results["slots"] >= 64
    assert frames["give_up_s"] is results["give_up_s"] is None  # who is lost is the session's judgement


@pytest.mark.parametrize(
    ("rate_hz", "limit_ms"), [(10.0, 300.0), (30.0, 100.0), (500.0, 100.0), (math.nan, 100.0), (0.0, 100.0)]
)
def test_a_result_may_be_three_frame_periods_old_and_at_least_a_tenth_of_a_second(rate_hz, limit_ms):
    assert frame_rules(experiment(), source(rate_hz)).age_limit_ms == limit_ms
    assert frame_rules(experiment(age_limit_ms=40), source(rate_hz)).age_limit_ms == 40


def test_what_holds_in_a_run_is_in_its_file_whether_it_was_set_or_not():
    live, block = (file_attributes(experiment(of), source(10.0)) for of in (MICROSCOPE, RECORDING))
    assert (live["link_policy"], live["age_limit_ms"]) == ("live", 300.0)
    assert block["link_policy"] == "block"
    assert "age_limit_ms" not in block
    assert frame_rules(experiment(), source()).in_words() == "live, results at most 100 ms old"


def test_a_replay_at_its_own_pace_may_be_live_and_one_as_fast_as_possible_is_refused():
    assert frame_rules(experiment(PACED, policy="live"), source()).is_live
    with pytest.raises(ConfigurationError, match="pace"):
        experiment(RECORDING, policy="live")
    with pytest.raises(ConfigurationError, match="simulated time"):
        frame_rules(experiment(policy="live"), source(keeps_time=False))


@pytest.mark.parametrize(("height", "width", "dtype"), [(512, 768, "uint8"), (1440, 2560, "uint16")])
def test_the_frames_of_a_live_run_take_little_memory_and_each_worker_has_one(height, width, dtype):
    image = source(24.0, height, width, dtype)
    options = frame_options(experiment(), image)
    assert options["slots"] * image.nbytes <= 64e6
    assert options["credits"] == options["slots"] - 1
    many = build_experiment({**MICROSCOPE, "detector": {"workers": 12}}, "the test")
    assert frame_options(many, image)["slots"] > 12


def test_results_of_a_live_run_wait_for_seconds_and_take_memory_only_then():
    rows = 2000 * 18 * 8
    options = result_options(experiment(), 2 * rows)
    assert options["sparse"]
    assert options["slots"] >= 3 * 200  # 3 s at 200 frames/s
    assert not result_options(experiment(RECORDING), rows)["sparse"]
