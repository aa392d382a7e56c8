"""Numbers and times of another program: whatever it sends, ours rise and losses are counted."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from acquisition.listened.numbers import LONGEST_GAP, FrameOrder, Verdict
from acquisition.listened.sender_clock import SenderClock


def judged(order: FrameOrder, *numbers: int) -> list[Verdict]:
    return [order.take(number) for number in numbers]


def test_a_gap_is_a_loss() -> None:
    order = FrameOrder()
    assert set(judged(order, 5, 6, 9)) == {Verdict.NEXT}
    assert (order.lost, order.number) == (2, 9)


def test_a_late_frame_stays_lost_and_a_repeated_one_is_named() -> None:
    order = FrameOrder()
    assert judged(order, 0, 2, 1, 2, 3) == [
        Verdict.NEXT, Verdict.NEXT, Verdict.LATE, Verdict.REPEATED, Verdict.NEXT,
    ]  # fmt: skip
    assert (order.lost, order.restarts) == (1, 0)


def test_a_sender_that_counts_from_its_first_number_again_has_begun_again() -> None:
    order = FrameOrder()
    judged(order, *range(1, 20))
    assert judged(order, 1, 2, 3) == [Verdict.RESTARTED, Verdict.NEXT, Verdict.NEXT]
    assert (order.number, order.lost, order.restarts) == (22, 0, 1)


def test_a_new_connection_may_begin_at_any_number() -> None:
    order = FrameOrder()
    judged(order, 0, 1, 2)
    assert order.take(1, anew=True) is Verdict.RESTARTED
    assert order.number == 3
    assert order.take(2) is Verdict.NEXT


def test_three_old_numbers_in_a_row_are_a_new_count_and_two_are_frames_sent_twice() -> None:
    order = FrameOrder()
    judged(order, *range(20))
    assert judged(order, 18, 19, 20) == [Verdict.REPEATED, Verdict.REPEATED, Verdict.NEXT]
    judged(order, *range(21, 40))
    assert judged(order, 30, 31, 32, 33) == [
        Verdict.REPEATED, Verdict.REPEATED, Verdict.RESTARTED, Verdict.NEXT,
    ]  # fmt: skip


def test_an_absurd_jump_is_a_new_count_and_no_loss() -> None:
    order = FrameOrder()
    judged(order, 0, 1)
    assert order.take(LONGEST_GAP + 10) is Verdict.RESTARTED
    assert order.lost == 0


def test_frames_during_a_pause_are_no_losses() -> None:
    order = FrameOrder()
    judged(order, 0, 1)
    for number in (2, 4):
        order.take(number, counts=False)
    assert order.take(5) is Verdict.NEXT
    assert (order.number, order.lost) == (2, 0)


def test_the_end_tells_what_was_lost_last() -> None:
    order = FrameOrder()
    judged(order, 0, 1, 2)
    order.end(6)
    assert order.lost == 4


@given(st.lists(st.tuples(st.integers(0, 40) | st.integers(0, 2**62), st.booleans()), max_size=60))
def test_our_numbers_rise_and_every_gap_is_counted(steps: list[tuple[int, bool]]) -> None:
    order = FrameOrder()
    taken, restarts = [], 0
    for number, anew in steps:
        verdict = order.take(number, anew=anew)
        if verdict in {Verdict.NEXT, Verdict.RESTARTED}:
            taken.append(order.number)
            restarts += verdict is Verdict.RESTARTED
    assert taken == sorted(set(taken))
    assert order.restarts == restarts
    if taken:
        assert order.lost == taken[-1] - taken[0] + 1 - len(taken)


def test_times_of_the_sender_count_from_its_first_frame() -> None:
    clock = SenderClock()
    assert clock.take(1.7e9, 0, 0) == 0.0
    assert math.isclose(clock.take(1.7e9 + 0.5, 1, 9), 0.5)
    assert clock.odd == 0


def test_a_time_that_does_not_rise_is_replaced_by_that_of_the_arrival() -> None:
    clock = SenderClock()
    clock.take(3.0, 0, 0)
    assert math.isclose(clock.take(3.0, 1, 40_000_000), 0.04)
    assert math.isclose(clock.take(3.1, 2, 90_000_000), 0.14)
    assert clock.odd == 1


def test_the_frame_rate_of_the_user_takes_precedence_and_lost_frames_take_their_time() -> None:
    clock = SenderClock(50.0)
    clock.take(7.0, 100, 0)
    assert math.isclose(clock.take(7.9, 103, 1), 0.06)


def test_after_a_restart_the_time_goes_on_by_the_arrival() -> None:
    clock = SenderClock()
    clock.take(0.0, 0, 0)
    clock.take(5.0, 1, 5_000_000_000)
    assert math.isclose(clock.take(0.0, 2, 7_000_000_000, restarted=True), 7.0)
    assert math.isclose(clock.take(0.1, 3, 7_100_000_000), 7.1)


@given(
    st.lists(st.tuples(st.floats(), st.integers(0, 10**10), st.booleans()), min_size=1, max_size=50),
    st.none() | st.floats(1e-3, 1e5),
)
def test_times_always_rise_and_are_finite(
    frames: list[tuple[float, int, bool]], rate_hz: float | None
) -> None:
    clock, arrived_ns, times = SenderClock(rate_hz), 0, []
    for number, (said_s, step_ns, restarted) in enumerate(frames):
        arrived_ns += step_ns
        times.append(clock.take(said_s, number, arrived_ns, restarted=restarted))
    assert all(map(math.isfinite, times))
    assert all(after > before for before, after in itertools.pairwise(times))
