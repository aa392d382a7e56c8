"""Decides whether a pipeline stage is lost: its worker process died, it hangs, or it did not come back in time.

The message links only report silence; this is the one place that judges. All functions are pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from liveptv.session.run_status import StageView
from stream.messages import StageState

LEAVE_S = 25.0
"""Longest time from a stage's last report (done) to the end of its process, s.

It closes its devices meanwhile: one may hang for 2 s, a focus drive may travel for 10 s. A longer time only delays
the end of a run with a broken driver.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is the matter with a stage. All false and empty: it is alive and well.

    `over`: it has done its work. `why`: it is lost, and why. `kill`: its process must be ended.
    """

    over: bool = False
    why: str = ""
    kill: bool = False


WELL = Verdict()


def judge(view: StageView, now_s: float, *, is_alive: bool, longest_s: float, recover_s: float) -> Verdict:
    """Judge one stage.

    `longest_s` is how long it may be silent (`session.hang_s`), `recover_s` how long a stage that was started again
    may take to get ready. `is_alive`: whether its process (or thread) runs; its last status must have been taken
    after that was looked at.
    """
    stage = view.plan.stage
    is_done = view.status is not None and view.status.state is StageState.DONE
    if not is_alive:
        if is_done:
            return Verdict(over=True)
        return Verdict(
            why=view.failure or f"{stage} ended without reporting why ({view.worker.describe_exit()})"
        )
    if is_done:
        overdue = now_s - view.heard_s > LEAVE_S
        return Verdict(over=overdue, kill=overdue)
    if view.ready and now_s - view.heard_s > longest_s:
        return Verdict(why=f"{stage} hung: no sign of life for {longest_s:g} s", kill=True)
    if view.restarts and not view.ready and now_s - view.began_s > recover_s:
        return Verdict(why=f"{stage} was not back within {recover_s:g} s (session.recover_s)", kill=True)
    return WELL
