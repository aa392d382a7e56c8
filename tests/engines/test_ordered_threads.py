from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.ordered_threads import OrderedWork


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.lists(st.floats(0, 0.003), max_size=20))
def test_results_come_in_the_order_in_which_the_work_was_given(workers, delays_s):
    taken = []
    with closing(OrderedWork(workers, "test")) as work:
        for number, delay_s in enumerate(delays_s):
            work.give(lambda number=number, delay_s=delay_s: time.sleep(delay_s) or number)
            taken += work.take(0.0)
        while len(work):
            taken += work.take(1.0)
    assert taken == list(range(len(delays_s)))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_thread_can_be_made_ready_once_and_what_fails_there_is_raised(workers):
    seen = []
    with closing(OrderedWork(workers, "test")) as work:
        for _ in range(3):
            seen.clear()
            work.on_every_thread(lambda: seen.append(threading.get_ident()))
            assert len(set(seen)) == len(seen) == workers
        with pytest.raises(ZeroDivisionError):
            work.on_every_thread(lambda: 1 / 0)
        work.give(lambda: "and on it goes")
        assert work.take(240.0) == ["and on it goes"]
