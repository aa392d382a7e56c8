"""While a run starts, one line says what is being done; a pipe gets it again only when that changes."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any, cast

import pytest
from numba import njit

from liveptv.cli import console as terminal
from liveptv.cli.console import LiveLine, PlainConsole, describe
from liveptv.config import Experiment
from liveptv.session.compilation import COMPILING, noticing_compilation
from liveptv.session.plan import ImageFormat, StagePlan
from liveptv.session.processes import Worker
from liveptv.session.run_status import Progress, StageView, progress_of
from stream.messages import StageState, Status
from stream.run_keys import RunKeys

IMAGES = ImageFormat(512, 768, 1, "uint8", 0.8, 10.0, None, "")
STAGES = ("acquire", "detect", "track", "write")


def stage(name: str, *, ready: bool = False, compiling: bool = False) -> StageView:
    plan = StagePlan(name, "run", Experiment(microscope={"config": "simulated"}), "", RunKeys.fresh(None))
    gauges = {COMPILING: 1.0} if compiling else {}
    status = Status("run", name, StageState.STARTING, counts={}, gauges=gauges, text="", monotonic_ns=0)
    return StageView(plan, cast(Worker, None), None, status=status, ready=ready)


def progress(
    seconds: float,
    running_s: float | None = None,
    image_format: ImageFormat | None = None,
    **stages: StageView,
) -> Progress:
    return progress_of(
        {name: stages.get(name) or stage(name) for name in STAGES},
        frames_asked_for=None,
        image_format=image_format,
        starting_s=seconds,
        running_s=running_s,
        stopping="",
        late="",
    )


def test_the_stages_that_are_waited_for_are_named_with_the_time_that_it_took_so_far() -> None:
    assert progress(0.4).stage == "starting camera, detector, tracker, writer (0 s)"
    assert progress(3.0, detect=stage("detect", ready=True)).stage == "starting camera, tracker, writer (3 s)"
    ready = {name: stage(name, ready=True) for name in STAGES[1:]}
    assert progress(4.0, **ready).stage == "starting camera (4 s)"
    assert progress(5.0, image_format=IMAGES, **ready).stage == "waiting for the first frame (5 s)"
    assert progress(5.0, image_format=IMAGES).stage == "starting detector, tracker, writer (5 s)"


def test_stages_that_compile_are_named_and_that_they_do_it_once() -> None:
    now = progress(12.2, detect=stage("detect", compiling=True), track=stage("track", compiling=True))
    assert now.stage == "compiling for this computer, once per installation: detector, tracker (12 s)"
    ready = stage("detect", compiling=True, ready=True)
    assert progress(13.0, detect=ready).stage == "starting camera, tracker, writer (13 s)"


def test_what_a_user_must_know_is_within_the_80_columns_that_a_terminal_shows() -> None:
    running = replace(progress(9, running_s=1234.5), frames=123456, frames_expected=200000, lost=12345)
    late = describe(replace(running, late="results 12.3 s old", stopping="stopped by the user (SIGINT)"))[:80]
    assert "results 12.3 s old" in late
    assert "stopping: stopped by the user (SIGINT)" in late


def test_a_paused_run_is_said_to_be_paused() -> None:
    status = Status(
        "run", "acquire", StageState.RUNNING, counts={}, gauges={"paused": 1.0}, text="", monotonic_ns=0
    )
    paused = progress(9, running_s=5.0, acquire=replace(stage("acquire", ready=True), status=status))
    assert "paused" in describe(paused)
    assert "paused" not in describe(progress(9, running_s=5.0, acquire=stage("acquire", ready=True)))


def test_a_pipe_gets_a_line_when_something_else_is_done_and_no_equal_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(terminal, "console", PlainConsole(file=pipe, highlight=False))
    monkeypatch.setattr(terminal.time, "monotonic", iter(range(0, 1000, 10)).__next__)
    with LiveLine() as line:
        for seconds in range(3):
            line.show(progress(seconds))
        for seconds in range(3, 60):
            line.show(progress(seconds, detect=stage("detect", compiling=True)))
        running = progress(60, running_s=0.5)
        for shown in (running, replace(running, frames=9)):
            line.show(shown)
    lines = pipe.getvalue().splitlines()
    assert lines[:2] == [
        "starting camera, detector, tracker, writer (0 s)",
        "compiling for this computer, once per installation: detector (3 s)",
    ]
    assert [text.split()[3] for text in lines[2:]] == ["0", "9"]


def test_compilation_is_noticed_once_and_not_for_what_is_compiled() -> None:
    noticed: list[bool] = []

    def add(a: Any, b: Any) -> Any:
        return a + b

    kernel = njit(add)
    with noticing_compilation(lambda: noticed.append(True)):
        assert kernel(1, 2) == 3
        assert kernel(1.0, 2.0) == 3.0
    assert noticed == [True]
    with noticing_compilation(lambda: noticed.append(True)):
        kernel(1, 2)
    assert noticed == [True]
    assert math.isnan(stage("detect").gauge(COMPILING))
