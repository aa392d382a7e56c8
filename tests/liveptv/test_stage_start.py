"""What a stage does between being built and its first step."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import pytest

from liveptv.config import build_experiment
from liveptv.session import runner
from liveptv.session.builders import BUILDERS
from liveptv.session.plan import StagePlan
from liveptv.session.stage_context import StageContext
from stream.errors import SourceError
from stream.messages import StageState, Status
from stream.run_keys import RunKeys


class Told:
    """Takes a stage's reports."""

    order: list[str]

    def __init__(self, *_: Any) -> None:
        pass

    def send(self, status: Status) -> None:
        self.order.append(str(status.state))

    def close(self) -> None:
        pass


class Camera:
    """A stage that is done at its first step."""

    name, state = "acquire", StageState.RUNNING

    def __init__(self, order: list[str]) -> None:
        self._order = order

    def step(self, timeout_s: float) -> bool:
        self._order.append("step")
        return False

    def counts(self) -> dict[str, int]:
        return {}

    def gauges(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._order.append("close")


def run_of(monkeypatch: pytest.MonkeyPatch, start: Any, order: list[str]) -> None:
    """Run an acquisition that begins with `start`."""

    def build(context: StageContext) -> Camera:
        order.append("built")
        context.begin = start
        return Camera(order)

    monkeypatch.setattr(Told, "order", order, raising=False)
    monkeypatch.setattr(runner, "StatusSource", Told)
    monkeypatch.setattr(runner, "_ignore_the_terminal", lambda: None)
    monkeypatch.setattr(runner, "_freeze_long_lived_objects", lambda: order.append("collected"))
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)
    monkeypatch.setitem(BUILDERS, "acquire", build)
    experiment = build_experiment({"microscope": {"config": "simulated"}}, "a test")
    plan = StagePlan("acquire", "run", experiment, "tcp://127.0.0.1:9", RunKeys.fresh(None), ())
    ours, theirs = multiprocessing.Pipe()
    runner.run_stage(plan, theirs)
    ours.close()


def test_a_camera_starts_when_nothing_keeps_its_stage_from_taking_the_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    run_of(monkeypatch, lambda: order.append("camera"), order)
    assert order == ["starting", "built", "collected", "camera", "running", "step", "done", "close"]


def test_a_camera_that_does_not_start_is_told_and_its_stage_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def fail() -> None:
        raise SourceError("no camera")

    with pytest.raises(SystemExit):
        run_of(monkeypatch, fail, order)
    assert order == ["starting", "built", "collected", "failed", "close"]
