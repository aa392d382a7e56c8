"""The control stage fits the flow, records it and tells it to the controller; a failure ends only the fit."""

from types import SimpleNamespace

from flows import info
from test_control_switch import World

from stream.messages import StageState, StreamEnd, Tracks
from tracking.control.stage import ControlStage


class Follower:
    """Has a fit after every third frame, and fails at `fails_at`."""

    def __init__(self, fails_at=10**9):
        self.frames, self.fails_at, self.closed = 0, fails_at, False

    def take_in(self, tracks):
        self.frames += 1
        if self.frames == self.fails_at:
            raise ArithmeticError("singular")

    def poll(self):
        return self._found() if self.frames % 3 == 0 else None

    def _found(self):
        return SimpleNamespace(findings=SimpleNamespace(facts=lambda: {"tracks": self.frames}))

    def finish(self):
        return self._found()

    def close(self):
        self.closed = True


class Hears:
    name = "hears"

    def __init__(self):
        self.heard, self.updates = [], 0

    def flow_fitted(self, flow):
        self.heard.append(flow.findings.facts()["tracks"])

    def update(self, tracks):
        self.updates += 1
        return []


def run(follower, controller, frames=7):
    world = World(controller)
    said = []
    world.close = lambda: None
    world.stage = ControlStage(world, controller, world, said.append, world.keep, flow=follower)
    messages = [Tracks.from_columns(info(number), track=[1.0]) for number in range(frames)]
    for message in [*messages, StreamEnd("run", "liveptv/track", frames, 0, "done")]:
        world.frames.append(SimpleNamespace(message=message, done=lambda: None))
        world.stage.step(0.0)
    world.stage.close()
    return world, said


def test_every_fit_is_recorded_and_told_and_the_last_one_too():
    follower, controller = Follower(), Hears()
    world, said = run(follower, controller)
    fits = [facts for kind, _, facts in world.record if kind == "flow"]
    assert [fit["tracks"] for fit in fits] == [3, 6, 7]
    assert controller.heard == [3, 6, 7]
    assert said == []
    assert follower.closed


def test_a_fit_that_fails_ends_with_one_line_and_the_controller_goes_on():
    follower, controller = Follower(fails_at=5), Hears()
    world, said = run(follower, controller)
    assert controller.updates == 7
    assert controller.heard == [3]
    assert follower.closed
    (line,) = said
    assert line.startswith("the flow is no longer fitted: ArithmeticError: singular")
    assert [text for kind, text, _ in world.record if kind == "note"] == [line.split("\n")[0]]
    assert world.stage.failure == ""
    assert world.stage.state in {StageState.DRAINING, StageState.DONE}
