"""What is done with each recording next, whatever its workers do."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from batch_fakes import ScriptedWorkers
from hypothesis import given, settings
from hypothesis import strategies as st

from liveptv.batch.jobs import BUSY_S, Job, Jobs, JobState
from liveptv.batch.processing import Processed
from liveptv.batch.recordings.entry import Entry
from liveptv.batch.recordings.fingerprint import Fingerprint
from liveptv.batch.results.marker import Marker
from liveptv.batch.task import Answer
from liveptv.batch.workers.interface import Lost

MARKER = Marker("a.tif", Fingerprint(1, 2, 3, "x"), {"model": "m"}, Processed(4, 5, 6, 7, 0)).to_dict()
DONE = Answer("done", marker=MARKER)


def jobs_of(count, **more):
    return [Job(Entry(Path(f"{n}.tif"), str(n)), {}, {}, 10 * n, **more) for n in range(count)]


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def drive(jobs, reply, *, waits=True, newest_first=False):
    clock, notes = Clock(), []
    workers = ScriptedWorkers(reply, newest_first)
    batch = Jobs(jobs, "out", workers, waits_for_others=waits, on_note=notes.append, clock=clock)
    batch.begin()
    for _ in range(10_000):
        if batch.is_over:
            return workers.asked, notes
        batch.poll(0.0)
        clock.now_s += BUSY_S
    raise AssertionError("the batch does not end")


def test_all_are_done_the_largest_first():
    jobs = jobs_of(4)
    asked, _ = drive(jobs, lambda task: DONE)
    assert [task.name for task in asked] == ["3", "2", "1", "0"]
    assert all(job.state is JobState.DONE and job.marker.processed.rows == 5 for job in jobs)


def test_what_is_there_is_not_asked_for():
    jobs = jobs_of(3)
    jobs[1].state = JobState.THERE
    asked, _ = drive(jobs, lambda task: DONE)
    assert [task.name for task in asked] == ["2", "0"]


def test_the_error_of_a_recording_is_final_and_the_others_go_on():
    jobs = jobs_of(3)
    asked, _ = drive(jobs, lambda task: Answer("failed", "broken") if task.name == "1" else DONE)
    assert [job.state for job in jobs] == [JobState.DONE, JobState.FAILED, JobState.DONE]
    assert jobs[1].why == "broken"
    assert sum(task.name == "1" for task in asked) == 1


def test_a_lost_worker_is_told_and_its_recording_is_done_by_another():
    losses = iter([Lost("killed by SIGKILL")])
    jobs = jobs_of(1)
    _, notes = drive(jobs, lambda task: next(losses, DONE))
    assert jobs[0].state is JobState.DONE
    assert jobs[0].losses == 1
    assert notes == ["0: its worker was lost (killed by SIGKILL); another one does it"]


def test_a_recording_that_kills_its_workers_has_failed():
    jobs = jobs_of(2)
    kills = Lost("it kills its worker", gives_up=True)
    drive(jobs, lambda task: kills if task.name == "0" else DONE)
    assert [job.state for job in jobs] == [JobState.FAILED, JobState.DONE]
    assert "kills its worker" in jobs[0].why


def test_what_another_batch_has_is_asked_for_again_until_it_is_done():
    answers = iter([Answer("busy", "process 5"), Answer("busy", "process 5")])
    jobs = jobs_of(1)
    asked, _ = drive(jobs, lambda task: next(answers, replace(DONE, was_there=True)))
    assert jobs[0].state is JobState.THERE
    assert len(asked) == 3


def test_without_waiting_what_another_batch_has_is_left_to_it():
    jobs = jobs_of(2)
    drive(jobs, lambda task: Answer("busy", "process 5") if task.name == "1" else DONE, waits=False)
    assert [job.state for job in jobs] == [JobState.DONE, JobState.ELSEWHERE]
    assert "process 5" in jobs[1].why


def test_a_long_recording_is_cut_and_joined_after_its_last_piece():
    jobs = jobs_of(1, cut_above=40, warm_frames=5)
    replies = {"recording": Answer("cut", frames=100), "piece": Answer("piece"), "join": DONE}
    asked, _ = drive(jobs, lambda task: replies[task.kind], newest_first=True)
    assert [task.kind for task in asked] == ["recording", "piece", "piece", "piece", "join"]
    assert asked[0].cut_above == 40
    assert asked[-1].pieces == ((0, 0, 33), (28, 33, 66), (61, 66, 100))
    assert {task.number for task in asked if task.kind == "piece"} == {0, 1, 2}
    assert jobs[0].state is JobState.DONE


def test_a_piece_that_fails_fails_the_recording_once():
    jobs = jobs_of(1, cut_above=10)
    replies = {"recording": Answer("cut", frames=50), "piece": Answer("failed", "frame 7 is damaged")}
    asked, _ = drive(jobs, lambda task: replies[task.kind])
    assert jobs[0].state is JobState.FAILED
    assert all(task.kind != "join" for task in asked)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans())
def test_every_recording_ends_once_whatever_happens(seed, count, newest_first):
    """Workers that die, recordings that others have, pieces in any order: all ends, and pieces are joined once."""
    rng = random.Random(seed)
    joined, long = [], {str(n) for n in range(count) if rng.random() < 0.4}

    def reply(task):
        draw = rng.random()
        if draw < 0.15:
            return Lost("killed", gives_up=draw < 0.02)
        if draw < 0.25:
            return Answer("busy", "process 1")
        if draw < 0.28:
            return Answer("failed", "broken")
        if task.kind == "recording" and task.name in long:
            return Answer("cut", frames=35)
        if task.kind == "piece":
            return Answer("piece", was_there=rng.random() < 0.3)
        if task.kind == "join":
            joined.append(task.name)
        return DONE

    jobs = jobs_of(count, cut_above=10)
    drive(jobs, reply, newest_first=newest_first)
    assert all(job.state in {JobState.DONE, JobState.FAILED} for job in jobs)
    assert len(set(joined)) == len(joined)
    assert {job.entry.name for job in jobs if job.state is JobState.DONE and job.pieces} == set(joined)
    for job in jobs:
        assert (job.marker is not None) == (job.state is JobState.DONE)


def test_workers_that_are_gone_end_the_batch():
    from stream.errors import LivePTVError

    def gone(task):
        raise LivePTVError("the scheduler is gone")

    with pytest.raises(LivePTVError, match="gone"):
        drive(jobs_of(2), gone)
