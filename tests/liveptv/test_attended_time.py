"""How long a stage has been silent is not counted while the session stands still."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from liveptv.session.attended_time import LONGEST_S, AttendedTime


def passed(turns_s):
    clock = itertools.accumulate(turns_s, initial=100.0).__next__
    attended = AttendedTime(clock)
    return [attended.now_s() for _ in turns_s]


@given(st.lists(st.floats(0.0, LONGEST_S), min_size=1, max_size=30))
def test_it_is_the_time_of_the_clock_while_the_session_looks_often(turns_s):
    for found, true in zip(passed(turns_s), itertools.accumulate(turns_s), strict=True):
        assert math.isclose(found, true, abs_tol=1e-9)


@given(st.lists(st.floats(0.0, LONGEST_S), min_size=1, max_size=30), st.floats(LONGEST_S, 1e6))
def test_a_standstill_however_long_is_one_turn(turns_s, standstill_s):
    assert math.isclose(passed([*turns_s, standstill_s])[-1], sum(turns_s) + LONGEST_S, abs_tol=1e-6)
