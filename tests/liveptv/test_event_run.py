"""Runs that keep the frames around events: who may ask, and what is in the files afterwards."""

import threading
import time
from functools import partial

import numpy as np
import pytest
import zarr
from small_run import Run, kill, small_experiment, wait_until

from acquisition.recorder.frame_table import read_frame_table
from liveptv.cli.main import run_command_line
from liveptv.session.run_card import cards_folder, read_card
from stream.commands import CommandClient
from stream.messages import Command, CommandKind
from tracking.trajectories.control_record import read_control

ANSWER_S = 240.0


def asking(*steps):
    """An action, in a thread beside the run, that sends commands as a viewer does; the replies are kept.

    A step is a command, a time to wait, or something that waits.
    """

    def act(run):
        run.replies = []

        def work():
            run_id = run.events("start")[0]["text"].removeprefix("run ")
            card = read_card(cards_folder() / f"{run_id}.json")
            client = CommandClient(card.commands, card.steering.security())
            try:
                for step in steps:
                    if isinstance(step, float):
                        time.sleep(step)
                    elif (command := step()) is not None:
                        run.replies.append(client.request(command, ANSWER_S))
            finally:
                client.close()

        run.thread = threading.Thread(target=work)
        run.thread.start()

    return act


def has_asked(run):
    return not run.thread.is_alive()


def record(value=None, **more):
    return lambda: Command(CommandKind.RECORD, value, sender="a program", **more)


def flow(value):
    return lambda: Command(CommandKind.SET_FLOW, value, sender="a program")


def recorded(run):
    """The frame table, and whether its frames are those of its events, each once and with its own image."""
    table = read_frame_table(run.files.tracks.with_name("tracks.frames.jsonl"))
    frames = [row.info.frame for row in table.rows]
    times = np.array([row.info.time_s for row in table.rows])
    assert frames == sorted(set(frames))
    covered = np.zeros(len(times), bool)
    for end in table.ended:
        mine = (times >= end.from_s) & (times <= end.to_s)
        covered |= mine
        assert mine.sum() == end.frames
        assert frames[mine.argmax()] == end.first_frame
        assert end.last_frame - end.first_frame + 1 == end.frames + end.missing
    assert covered.all()
    images = zarr.open_group(run.files.tracks.with_name("tracks.frames.ome.zarr"), mode="r")["0"]
    assert images.shape[0] == len(frames)
    return table


def test_a_program_a_device_and_a_condition_begin_events_that_are_in_every_file(tmp_path):
    experiment = small_experiment(
        tmp_path,
        rate=40,
        frames=100_000,
        limits={"max_flow_ul_s": 0.1},
        record={
            "mode": "events",
            "before_s": 0.5,
            "after_s": 0.5,
            "memory_mb": 50,
            "on": {
                "hardware": "Pump.FlowRate",
                "velocity_leaves": {"min_um_s": -0.001, "max_um_s": 1e6, "min_tracks": 1, "for_s": 1e4},
            },
        },
    )
    act = asking(record("by hand"), 2.0, flow(0.0), 0.5, flow(0.05), 1.5, record(0.25, property="short"))
    run = Run(experiment, act=act, act_after=60, until=has_asked)
    assert run.result.ok
    assert all(reply.accepted for reply in run.replies)
    table = recorded(run)
    by_why = {event.why: event for event in table.events}
    assert set(by_why) == {"by hand", "short", "Pump.FlowRate became other than 0"}
    ends = {end.event: end for end in table.ended}
    by_hand, short = ends[by_why["by hand"].event], ends[by_why["short"].event]
    assert run.replies[0].first_frame == by_hand.first_frame
    assert by_hand.to_s - by_hand.from_s == pytest.approx(1.0)
    assert short.to_s - short.from_s == pytest.approx(0.75)
    assert not table.lost
    logged = [event for event in run.events("event") if event["ended"]]
    assert {event["why"]: event["frames"] for event in logged} == {
        event.why: ends[event.event].frames for event in table.events
    }
    kept = [entry for entry in read_control(run.files.tracks) if entry["kind"] == "event" and entry["ended"]]
    assert [(entry["event"], entry["frames"]) for entry in kept] == [(e.event, e.frames) for e in table.ended]
    assert any("the last 3.5 s" in note for note in run.notes)


CONTROLLER = """
from stream.messages import Command, CommandKind

class Asks:
    def __init__(self):
        self.frames, self.answers = 0, []

    def update(self, tracks):
        self.frames += 1
        return [Command(CommandKind.RECORD, "a whim")] if self.frames == 60 else []

    def acknowledged(self, answer):
        print("acknowledged", answer.accepted, answer.first_frame)
"""


def test_a_controller_asks_and_gets_an_answer(tmp_path):
    (tmp_path / "asks.py").write_text(CONTROLLER)
    experiment = small_experiment(
        tmp_path,
        frames=100_000,
        record={"mode": "events", "before_s": 0.25, "after_s": 0.25, "memory_mb": 50},
        controller={"file": str(tmp_path / "asks.py")},
    )
    run = Run(experiment, until=lambda run: run.events("answer"))
    assert run.result.ok
    table = recorded(run)
    (event,) = table.events
    assert (event.why, event.sender) == ("a whim", "Asks")
    answers = [entry for entry in run.events("answer") if entry.get("command") == "record"]
    assert [entry["accepted"] for entry in answers] == [True]
    sent = [entry for entry in run.events("command") if entry["command"] == "record"]
    assert sent[0]["decided_on_frame"] == event.frame


def test_a_run_that_records_nothing_says_so_to_who_asks(tmp_path):
    run = Run(small_experiment(tmp_path, frames=100_000), act=asking(record("in vain")), until=has_asked)
    assert [reply.accepted for reply in run.replies] == [False]
    assert "set record.mode" in run.replies[0].reason


def test_after_the_recorder_is_lost_who_asks_is_told(tmp_path):
    experiment = small_experiment(tmp_path, frames=100_000, record={"mode": "events", "memory_mb": 20})

    def act(run):
        kill("record")(run)
        is_told = partial(wait_until, lambda: run.says("without its recorder"))
        asking(is_told, record("too late"))(run)

    run = Run(experiment, act=act, until=has_asked)
    assert [reply.accepted for reply in run.replies] == [False]
    assert "recorder of this run was lost" in run.replies[0].reason


def test_the_command_line_says_when_there_is_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIVEPTV_RUNS", str(tmp_path / "runs"))
    assert run_command_line(["record", "--why", "nothing"]) == 1
    assert "no run is active" in capsys.readouterr().err
    assert run_command_line(["record", "../etc/passwd"]) == 2
