"""The simulated cluster of `benchmarks/batch_scaling.py` does the work that there is, neither more nor less."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from simulated_cluster import Costs, Losses, simulate

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=30)


@given(lengths)
def test_one_worker_needs_the_sum_of_all_and_is_never_idle(frames):
    found = simulate(frames, Costs(0.1, recording_s=2.0), 1)
    assert found.seconds == pytest.approx(0.1 * sum(frames) + 2.0 * len(frames))
    assert found.efficiency == pytest.approx(1.0)


@given(lengths, st.integers(1, 40))
def test_workers_need_at_least_their_share_and_the_longest_recording_and_at_most_both(frames, workers):
    """The bounds of any list schedule (Graham 1969)."""
    seconds = simulate(frames, Costs(0.1), workers).seconds
    share_s, longest_s = 0.1 * sum(frames) / workers, 0.1 * max(frames)
    assert max(share_s, longest_s) - 1e-9 <= seconds <= share_s + longest_s + 1e-9


@given(lengths, st.integers(1, 300), st.integers(0, 20))
def test_pieces_are_all_frames_once_and_those_before_each_piece_again(frames, piece, warm):
    found = simulate(frames, Costs(1.0), 1, piece_frames=piece, warm_frames=warm)
    again = 0
    for count in frames:
        pieces = -(-count // piece)
        again += sum(min(warm, count * k // pieces) for k in range(pieces)) if pieces > 1 else 0
    assert found.seconds == pytest.approx(sum(frames) + again)
    assert found.tasks == sum(1 if count <= piece else -(-count // piece) + 2 for count in frames)


def test_the_scheduler_limits_how_many_workers_can_be_busy():
    """Tasks of 1 s at 10 ms each: 100 workers at most, however many there are."""
    frames = [1] * 5000
    busy = sum(frames) / simulate(frames, Costs(1.0, task_s=0.01), 1000).seconds
    assert 95 < busy <= 100


@settings(max_examples=20)
@given(st.integers(0, 100))
def test_a_batch_ends_although_workers_are_lost_and_each_loss_costs_at_most_its_task_and_the_wait(seed):
    frames = [100] * 200
    calm = simulate(frames, Costs(0.1), 10)
    losses = Losses(each_s=100.0, noticed_s=5.0, back_s=3.0)
    found = simulate(frames, Costs(0.1), 10, losses=losses, seed=seed)
    assert found.tasks == 200 + found.lost_workers
    assert 0 <= found.lost_s <= 10.0 * found.lost_workers
    assert calm.seconds <= found.seconds <= calm.seconds + found.lost_workers * (10.0 + 5.0 + 3.0) + 10.0


def test_losses_come_as_often_as_they_should():
    """Of workers that live 100 s on average, tasks of 10 s lose 1 - exp(-0.1) of those begun."""
    found = simulate([100] * 5000, Costs(0.1), 50, losses=Losses(each_s=100.0))
    assert found.lost_workers / found.tasks == pytest.approx(1 - np.exp(-0.1), abs=0.015)
