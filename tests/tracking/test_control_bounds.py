"""A controller is given only numbers that a microscope could have, whoever asks for it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import ConfigurationError, LivePTVError
from stream.messages import Command, CommandKind
from tracking.control.protocol_settings import ProtocolSettings
from tracking.control.settings import KINDS, ControllerSettings
from tracking.control.switch import ControllerSwitch

FLOW = {"target_um_s": 75.0, "max_flow_ul_s": 0.1}


class Nobody:
    def poll(self):
        return []


def asked_for(text):
    return ControllerSwitch(Nobody()).choose(Command(CommandKind.CONTROL, text))


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ({"hold_flow": FLOW | {"target_um_s": 1e308}}, "target_um_s"),
        ({"hold_flow": FLOW | {"max_flow_ul_s": 1e30}}, "max_flow_ul_s"),
        ({"hold_flow": FLOW | {"integral_time_s": 1e-300}}, "integral_time_s"),
        ({"hold_focus": {"set_point_um": -1e12}}, "set_point_um"),
        ({"hold_focus": {"min_tracks": 10**400}}, "min_tracks"),
        ({"stop_when": {"frames": 10**12}}, "frames"),
        ({"pulse_on_entry": {"min_x_um": 0.0, "delay_s": 1e200}}, "delay_s"),
        ({"until_enough": {"slices": {"first_um": 0, "last_um": 1, "count": 10**9}, "trajectories": 5}}, "count"),
        ({"until_enough": {"slices": [1e300, 2.0], "trajectories": 5}}, "slices"),
        ({"until_enough": {"slices": [0.0] * 20_000, "trajectories": 5}}, "slices"),
    ],
)  # fmt: skip
def test_a_controller_that_no_microscope_could_follow_is_refused_by_name(wanted, where):
    with pytest.raises(ConfigurationError, match=where):
        asked_for(json.dumps(wanted))


def test_a_protocol_has_bounds_too():
    step = {"focus_um": 1.0, "frames": 5}
    for wrong in (
        {"repeats": 10**9},
        {"steps": [step | {"target": 1e308}]},
        {"steps": [step | {"focus_um": 1e99}]},
    ):
        with pytest.raises(ValueError, match="validation error"):
            ProtocolSettings.model_validate({"steps": [step]} | wrong)


def test_what_an_experiment_asks_for_is_within_the_bounds():
    for wanted in (
        {"hold_flow": {"target_um_s": -5e4, "max_flow_ul_s": 500.0, "ul_s_per_um_s": 1e-9}},
        {
            "until_enough": {
                "slices": {"first_um": -5e3, "last_um": 5e3, "count": 2000},
                "trajectories": 10**6,
            }
        },
        {"stop_when": {"frames": 10**8}},
    ):
        ControllerSettings.model_validate(wanted)


NUMBERS = st.one_of(st.floats(), st.integers(), st.sampled_from([10**400, -(10**400), 1e308, 5e-324]))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(), st.just("\ud800"), st.just("x" * 100_000))
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for kind in KINDS[:-1] for name in ControllerSettings.model_json_schema()["$defs"][
    "".join(part.title() for part in kind.split("_")) + "Settings"]["properties"]})  # fmt: skip
WANTED = st.dictionaries(
    st.sampled_from((*KINDS, "other")),
    st.dictionaries(st.sampled_from(FIELDS), NESTED, max_size=5) | NESTED,
    max_size=2,
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(WANTED.map(json.dumps), st.text(), st.just("[" * 4000), st.just("1" * 5000)))
def test_nonsense_makes_a_controller_or_is_refused_in_words(text):
    with contextlib.suppress(LivePTVError):  # any other exception is a failure
        asked_for(text)
