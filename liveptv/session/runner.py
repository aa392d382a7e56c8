"""Main function of a worker process: builds its pipeline stage, steps it until it is done, and reports.

A stage first binds its outputs (`Bound`), then gets the addresses of its inputs (`Peers`), then runs.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from contextlib import ExitStack
from multiprocessing.connection import Connection

from liveptv.session.builders import BUILDERS
from liveptv.session.plan import StagePlan
from liveptv.session.stage_context import StageContext
from stream.errors import LivePTVError
from stream.messages import StageState
from stream.safe_text import in_words, whole_traceback
from stream.stage import Stage
from stream.status import StatusSource

SWITCH_S = 0.001
"""Longest time that one thread keeps Python from another that wants to run, s. By default it is 5 ms, as long as
all of a pipeline stage may take: a result would wait so long for the thread that begins the next frame. A switch
takes some 10 us, and happens only where two threads compute in Python at once."""
STEP_S = 0.05  # s a stage waits for input at most, so that it can report and hear the session in between


def run_stage(plan: StagePlan, pipe: Connection, lane: Connection | None = None) -> None:
    """Build and run one stage until it is done.

    A process exits with status 1 after a failure, which has then been reported to the supervisor.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        _ignore_the_terminal()
    status = StatusSource(plan.status_address, plan.keys.curve)
    failed = False
    with ExitStack() as stack:
        stack.callback(pipe.close)
        context = StageContext(plan, pipe, status, stack, lane)
        stage: Stage | None = None
        try:
            context.report(StageState.STARTING)
            stage = _build(context)
            stack.callback(stage.close)
            if in_main_thread:
                _freeze_long_lived_objects()
                sys.setswitchinterval(SWITCH_S)
                context.measure_cpu()
            context.begin()
            context.report(StageState.RUNNING)
            _step_until_done(stage, context)
            context.observe(stage)
        except LivePTVError as error:
            failed = True
            context.observe_last(stage)
            context.report(StageState.FAILED, text=str(error))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the process ends: the error must be reported, not printed
            failed = True
            context.observe_last(stage)
            context.report(StageState.FAILED, text=_unexpected(plan.stage, error))
        else:
            context.report(StageState.DONE)
    status.close()
    if failed and in_main_thread:
        raise SystemExit(1)


def _ignore_the_terminal() -> None:
    """Ignore Ctrl-C, Ctrl-Z and a closed terminal, which reach every process; the session reacts to them."""
    for name in ("SIGINT", "SIGBREAK", "SIGHUP", "SIGQUIT", "SIGTSTP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _build(context: StageContext) -> Stage:
    return BUILDERS[context.plan.stage](context)


def _freeze_long_lived_objects() -> None:
    """Exempt all imported modules and built objects from garbage collection, which would pause the run."""
    gc.collect()
    gc.freeze()


def _step_until_done(stage: Stage, context: StageContext) -> None:
    while not context.is_abandoned and stage.step(STEP_S):
        context.look_up(stage=stage)


def _unexpected(stage: str, error: BaseException) -> str:
    """One line with the place of the error, then the traceback for the event log."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119 - only its last part
    return f"{stage} failed unexpectedly at {place}: {in_words(error)}\n{whole_traceback(error)}"
