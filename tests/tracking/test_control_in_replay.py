"""A controller in a replay sees what it would have seen, commands, and is told that it has no effect."""

from contextlib import ExitStack

from test_controllers import Loop, Script, tracks

from stream.messages import NO_EFFECT, Command, CommandKind, CommandReply
from tracking.control import stage
from tracking.control.record import ControlRecord


def without_effect(command: Command) -> CommandReply:
    return CommandReply(
        command.command_id, False, reason=f"{NO_EFFECT}: a recording has no microscope for set_flow"
    )


def test_a_controller_is_told_that_its_commands_have_no_effect_and_goes_on(monkeypatch):
    monkeypatch.setattr(stage, "REFUSALS", 3)  # a flood, if they were the microscope's refusals
    controller = Script(*([Command(CommandKind.SET_FLOW, float(n))] for n in range(6)))
    with ExitStack() as stack:
        loop = Loop(stack, controller)
        for frame in range(8):
            loop.source.send(tracks(frame))
        loop.source.end()
        commands = loop.run(without_effect)
        assert [command.value for command in commands] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert [ack.accepted for ack in controller.heard] == [False] * 6
        assert all(ack.reason.startswith(NO_EFFECT) for ack in controller.heard)
        assert not loop.stage.failure
        assert not loop.made_safe
        assert len(loop.said) == 1
        assert NO_EFFECT in loop.said[0]
        answers = [(text, facts) for kind, text, facts in loop.record if kind == "answer"]
        assert len(answers) == 6
        assert all(text.startswith(NO_EFFECT) and not facts["accepted"] for text, facts in answers)


def test_the_record_marks_commands_that_have_no_effect_and_no_others():
    kept = []
    command = Command(CommandKind.SET_FLOW, 1.0)
    for has_effect in (True, False):
        record = ControlRecord(None, lambda *entry: kept.append(entry), has_effect=has_effect)
        record.sent(command, tracks(3), 10)
    assert [facts.get("has_effect", True) for _, _, facts in kept] == [True, False]
