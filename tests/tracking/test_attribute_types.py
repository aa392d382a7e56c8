"""What a run's own files hold is of the kinds that are expected of it."""

import pytest

from tracking.trajectories.attribute_types import either, mapping, number, text
from tracking.trajectories.schema import ATTRIBUTES


def test_the_accounts_of_a_run_may_have_those_of_its_links_in_them():
    stages = {"write": {"received": 5, "link": {"offered": 5, "missing": 0}}, "track": {"born": 3}}
    assert ATTRIBUTES["accounts"].read(stages) == stages


@pytest.mark.parametrize(
    "broken", [[], {"write": 3}, {"write": {"link": "none"}}, {"write": {"link": {"a": []}}}]
)
def test_accounts_that_are_no_counts_are_damage(broken):
    with pytest.raises((ValueError, TypeError)):
        ATTRIBUTES["accounts"].read(broken)


def test_one_of_several_kinds_is_enough():
    kind = either(number, mapping(text))
    assert kind(3) == 3
    assert kind({"a": "b"}) == {"a": "b"}
    with pytest.raises(ValueError, match="another type"):
        kind("3")
