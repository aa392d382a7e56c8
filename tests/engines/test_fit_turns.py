"""A frame of a replay waits for the choice that it depends on, whichever thread is ahead."""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import numpy as np

from engines.refine.fit_notes import FitNotes, Given, Remembered
from engines.refine.turns import Allowance, Candidates, FitTurns

PARTICLES = 8
REMEMBERED = Remembered(None, np.ones(1))


def candidates(frame):
    rng = np.random.default_rng(frame)
    ones = np.ones(PARTICLES)
    xy_um = rng.uniform(0, 100, (PARTICLES, 2))
    return Candidates(frame, xy_um, np.arange(PARTICLES), ones, ones, np.array([], np.int64))


def depends_on(frame):
    return FitNotes(REMEMBERED, Given(5.0, frame))


def test_a_frame_waits_for_those_before_the_one_that_made_no_choice():
    turns = FitTurns()
    for frame in range(3):
        turns.begins(frame)
    turns.ends(1)  # nothing in it
    notes = depends_on(1)
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(turns.choose, candidates(2), Allowance(notes=notes))
        assert not wait_for([later], 0.2).done  # frame 0 may still choose
        turns.choose(candidates(0), Allowance(notes=depends_on(-1)))
        later.result(240)
    assert notes.turns_from == 0


def test_where_no_frame_before_makes_a_choice_nothing_is_waited_for():
    turns = FitTurns()
    for frame in range(3):
        turns.begins(frame)
    turns.ends(0)
    turns.ends(1)
    notes = depends_on(1)
    turns.choose(candidates(2), Allowance(notes=notes))
    assert notes.turns_from == -1
