import json
import re

import numpy as np
import psutil
import pytest
import tifffile
from page_runs import Visited, browser, packets
from small_run import small_experiment

from liveptv.cli.main import run_command_line
from liveptv.files import RunFiles
from liveptv.monitor.listening import newest_run
from liveptv.monitor.process import PageProcess
from liveptv.session.announcement import Announcement
from liveptv.session.events import EventLog, read_events
from liveptv.session.run_card import cards_folder, read_card
from stream.errors import SourceError
from stream.run_keys import RunKeys
from tracking.trajectories.control_record import read_control
from tracking.trajectories.file import TrajectoryFile

LIMITS = {"max_flow_ul_s": 0.06, "min_focus_um": 100.0, "max_focus_um": 200.0}
THREADS = {"mode": "threads", "monitor_hz": 20.0}


@pytest.fixture(autouse=True)
def _own_cards(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVEPTV_RUNS", str(tmp_path / "runs"))


def steer(socket, heard, *requests):
    """Send requests one after the other; the answers to them."""
    answers = []
    for number, request in enumerate(requests):
        socket.send(json.dumps({"wish": request, "id": number}))
        answers.append(next(h["answer"] for h, _ in heard if "answer" in h and h["answer"]["to"] == number))
    return answers


def summary_when(heard, true_of):
    return next(h["summary"] for h, _ in heard if "summary" in h and true_of(h["summary"]))


def test_a_run_is_steered_and_stopped_from_its_page_and_leaves_a_whole_file(tmp_path):
    answers, seen = [], []

    def visit(page):
        with browser(page) as socket:
            heard = packets(socket)
            next(h for h, _ in heard if h.get("particles", 0) > 0)
            answers[:] = steer(
                socket,
                heard,
                {"kind": "mark", "value": "the pump\nhiccups"},
                {"kind": "set_flow", "value": 0.05},
                {"kind": "set_flow", "value": 5},
                {"kind": "move_focus", "value": 1e9},
                {"kind": "set_property", "value": 1},
            )
            seen.append(summary_when(heard, lambda s: s["flow_ul_s"] == 0.05 and s["profile"]["tracks"] > 0))
            steer(socket, heard, {"kind": "pause"})
            seen.append(summary_when(heard, lambda s: s["state"] == "paused"))
            steer(socket, heard, {"kind": "resume"}, {"kind": "stop"})
            seen.append(summary_when(heard, lambda s: s["state"] == "ended"))

    run = Visited(small_experiment(tmp_path, frames=100_000, limits=LIMITS, session=THREADS), visit)
    mark, flow, too_much, too_far, forbidden = answers
    assert mark["accepted"]
    assert flow["accepted"]
    assert flow["first_frame"] > 0
    assert "outside the limits" in too_much["reason"]
    assert "outside the limits" in too_far["reason"]
    assert "cannot be sent from the page" in forbidden["reason"]
    assert run.texts("mark")[0] == "the pump hiccups"
    assert sum("refused" in text for text in run.texts("wish")) == 2
    assert {stage["name"] for stage in seen[0]["stages"]} == {
        "acquire",
        "detect",
        "track",
        "write",
        "control",
    }
    assert seen[-1]["why"] == "stopped from the page"
    assert run.outcome.result.ok
    with TrajectoryFile(run.files.tracks) as file:
        assert file.finished
        assert len(file.frames) == run.outcome.frames
        flows = file.frames["flow_ul_s"]
        assert np.isclose(flows[file.frames["frame"] > flow["first_frame"] + 5][:1], 0.05)


def test_a_controller_is_switched_on_and_off_from_the_page_and_the_file_knows(tmp_path):
    answers, seen = [], []
    hold = {"target_um_s": 150.0, "max_flow_ul_s": 0.06, "min_tracks": 2}

    def visit(page):
        with browser(page) as socket:
            heard = packets(socket)
            forms = next(h["forms"] for h, _ in heard if "forms" in h)
            assert {"hold_flow", "hold_focus", "stop_when"} <= {form["kind"] for form in forms}
            summary_when(heard, lambda s: s["profile"]["tracks"] > 0)
            answers.extend(
                steer(socket, heard, {"kind": "control", "value": {"hold_flow": {"target_um_s": 1}}})
            )
            answers.extend(steer(socket, heard, {"kind": "control", "value": {"hold_flow": hold}}))
            works = summary_when(
                heard, lambda s: s["control"]["on"] and "velocity_um_s" in s["control"]["measured"]
            )
            seen.append(works["control"])
            summary_when(heard, lambda s: s["flow_ul_s"] > 0.03)
            answers.extend(steer(socket, heard, {"kind": "control", "value": {}}))
            seen.append(summary_when(heard, lambda s: not s["control"]["on"])["control"])
            steer(socket, heard, {"kind": "stop"})
            summary_when(heard, lambda s: s["state"] == "ended")

    run = Visited(small_experiment(tmp_path, frames=100_000, limits=LIMITS, session=THREADS), visit)
    refused, on, off = answers
    assert "hold_flow.max_flow_ul_s: field required" in refused["reason"]
    assert on["accepted"]
    assert off["first_frame"] > on["first_frame"]
    assert (seen[0]["on"], seen[0]["works"], seen[0]["settings"]) == ("hold_flow", True, hold)
    assert run.outcome.result.ok
    # beside what a busy machine adds: that results were too old to act on
    switched = [entry for entry in read_control(run.files.tracks) if "on" in entry]
    assert [(entry["on"], entry["controller"]) for entry in switched] == [(True, "hold_flow"), (False, "")]
    assert switched[0]["settings"] == hold
    assert any("hold_flow" in text for text in run.texts("controller"))
    said = [text for text in run.texts("wish") if "controller" in text]
    assert said[0].startswith("page: controller hold_flow on: refused: hold_flow.max_flow_ul_s")
    assert said[2].startswith("page: controller off: shows from frame")
    assert any(entry["kind"] == "command" for entry in read_control(run.files.tracks))


def test_the_page_shows_that_a_run_has_failed_and_why(tmp_path):
    seen = []

    def visit(page):
        with browser(page) as socket:
            heard = packets(socket)
            next(h for h, _ in heard if "frame" in h)
            events = read_events(RunFiles.beside(tmp_path / "tracks.h5").events)
            kill_process(events, "track")
            seen.append(summary_when(heard, lambda s: s["state"] == "failed"))

    experiment = small_experiment(
        tmp_path, frames=100_000, session={"monitor_hz": 20.0}, link={"patience_s": 1.0}
    )
    run = Visited(experiment, visit)
    assert not run.outcome.result.ok
    assert "track" in seen[0]["why"]
    assert {stage["name"] for stage in seen[0]["stages"]} == {
        "acquire",
        "detect",
        "track",
        "write",
        "control",
    }


def kill_process(events, stage):
    psutil.Process(next(e["pid"] for e in events if e["kind"] == "process" and e["stage"] == stage)).kill()


def test_a_run_is_announced_while_it_is_on_and_no_longer(tmp_path):
    experiment = small_experiment(tmp_path)
    with EventLog(tmp_path / "events.jsonl") as events:
        announcement = Announcement(
            "20260101-000000-abcdef", experiment, events, lambda _: None, RunKeys.fresh()
        )
        assert newest_run() == announcement.path
        card = read_card(announcement.path)
        assert not card.complete
        announcement.introduce({"detect.monitor": "tcp://a", "track.monitor": "tcp://b"}, None)
        assert read_card(announcement.path).track == "tcp://b"
        announcement.close()
        announcement.close()
    with pytest.raises(SourceError, match="no run is active"):
        newest_run()


def test_the_card_of_a_session_that_was_killed_is_not_taken_for_a_run(tmp_path):
    experiment = small_experiment(tmp_path)
    with EventLog(tmp_path / "events.jsonl") as events:
        announcement = Announcement(
            "20260101-000000-abcdef", experiment, events, lambda _: None, RunKeys.fresh()
        )
        text = announcement.path.read_text()
        announcement.close()
    (cards_folder() / "old.json").write_text(re.sub(r'"pid":\d+', '"pid":4194399', text))
    (cards_folder() / "garbage.json").write_text("{")
    with pytest.raises(SourceError, match="no run is active"):
        newest_run()
    assert not (cards_folder() / "old.json").exists()


def test_a_page_beside_a_run_is_a_process_that_ends_with_it(tmp_path):
    experiment = small_experiment(tmp_path)
    with EventLog(tmp_path / "events.jsonl") as events:
        announcement = Announcement(
            "20260101-000000-abcdef", experiment, events, lambda _: None, RunKeys.fresh()
        )
        with PageProcess(announcement.path) as page:
            page.wait_for_url()
            with browser(page) as socket:
                state = summary_when(packets(socket), lambda s: s["run"])
        announcement.close()
    assert state["state"] == "waiting"
    assert not page._process.is_alive()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 1, "no run is active"),
        (["nothing"], 1, "no run is announced"),
        (["http://x"], 2, "neither a run's name"),
    ],
)
def test_what_cannot_be_watched_is_said_in_one_line(arguments, status, says, capsys):
    assert run_command_line(["monitor", *arguments]) == status
    assert says in " ".join(capsys.readouterr().err.split())


def test_replay_with_monitor_prints_the_address_of_its_page(tmp_path, capsys):
    rng = np.random.default_rng(1)
    video = tmp_path / "video.tif"
    tifffile.imwrite(video, rng.integers(90, 110, (20, 64, 64), np.uint8), photometric="minisblack")
    output = tmp_path / "tracks.h5"
    status = run_command_line(
        ["replay", str(video), "-o", str(output), "--frame-rate", "50", "--pixel-size", "1", "--monitor"]
    )
    assert status == 0
    assert re.search(r"live page: http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", capsys.readouterr().out)
    assert output.exists()
