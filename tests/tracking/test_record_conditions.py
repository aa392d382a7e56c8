"""Conditions on the tracks that ask for the frames around an event, and who gets the request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flows import info

from stream.messages import Command, CommandKind, CommandReply, TrackFlag, Tracks
from tracking.control.controllers import load_controller
from tracking.control.record_conditions import Band, ParticleEnters, Region, VelocityLeaves
from tracking.control.routed_commands import RoutedCommands
from tracking.control.settings import ControllerSettings

FRAME_S = 0.02


def tracks(frame, x, *, vx=10.0, y=0.0, z=0.0, age=50, flags=0, first=0, **more) -> Tracks:
    x = np.atleast_1d(np.asarray(x, float))
    return Tracks.from_columns(
        info(frame, focus_um=100.0), track=np.arange(first, first + len(x)), x_um=x, y_um=y, z_um=z,
        vx_um_s=vx, vy_um_s=0.0, vz_um_s=0.0, age_frames=age, flags=flags, detection=0, **more,
    )  # fmt: skip


def region(**more) -> ParticleEnters:
    return ParticleEnters(Region(**{"edges_um": ((100.0, 200.0), (None, None), (None, None)), **more}))


def asked(condition, seen) -> list[int]:
    """Frames on which an event is asked for."""
    return [command.decided_on_frame for each in seen for command in condition.update(each)]


def test_a_particle_that_comes_into_the_region_is_asked_for_once():
    moving = [tracks(frame, 90.0 + frame) for frame in range(150)]
    assert asked(region(), moving) == [10]


def test_a_particle_that_trembles_at_the_edge_is_asked_for_once():
    moving = [tracks(frame, 100.0 + (1 if frame % 2 else -1)) for frame in range(100)]
    assert asked(region(), moving) == [1]


def test_what_is_in_the_region_from_its_first_frame_on_has_not_entered():
    assert asked(region(), [tracks(frame, 150.0) for frame in range(50)]) == []


def test_each_particle_is_asked_for_however_many_there_are():
    rng = np.random.default_rng(3)
    start = rng.uniform(-500, 99, 3000)
    speed = rng.uniform(1.0, 9.0, 3000)
    condition, entered = region(), np.zeros(3000, bool)
    for frame in range(120):
        x = start + speed * frame
        now = (x >= 100) & (x <= 200) & ~entered
        assert bool(condition.update(tracks(frame, x))) == bool(now.any())
        entered |= now


@pytest.mark.parametrize("flag", [TrackFlag.PREDICTED, TrackFlag.TENTATIVE, TrackFlag.SECOND_DETECTION])
def test_rows_that_are_no_confirmed_particles_do_not_enter(flag):
    moving = [tracks(frame, 90.0 + frame, flags=int(flag)) for frame in range(150)]
    assert asked(region(), moving) == []


def test_a_track_that_is_too_short_enters_when_it_is_long_enough():
    moving = [tracks(frame, 95.0 + frame, age=frame) for frame in range(100)]
    assert asked(region(min_track_frames=21), moving) == [20]


def test_a_height_counts_focus_and_depth_and_an_unknown_one_is_nowhere():
    edges = ((None, None), (None, None), (110.0, None))
    rising = [tracks(frame, 0.0, z=float(frame)) for frame in range(30)]
    assert asked(region(edges_um=edges), rising) == [10]
    flat = [tracks(frame, 0.0, z=np.nan) for frame in range(30)]
    assert asked(region(edges_um=edges), flat) == []


def test_only_particles_of_the_class_are_asked_for():
    kinds = {"kind": 1.0, "p_kind": 0.95}
    moving = [tracks(frame, 90.0 + frame, **kinds) for frame in range(50)]
    assert asked(region(kind=1), moving) == [10]
    assert asked(region(kind=0), moving) == []


def velocities(*parts: tuple[float, float]) -> list[Tracks]:
    """Twenty particles of one velocity after the other, each for so many seconds."""
    frames = [v for v, seconds in parts for _ in range(round(seconds / FRAME_S))]
    return [tracks(frame, np.zeros(20), vx=v) for frame, v in enumerate(frames)]


def band(**more) -> VelocityLeaves:
    return VelocityLeaves(Band(**{"min_um_s": 50.0, "max_um_s": 100.0, "for_s": 0.2, **more}), after_s=5.0)


def test_the_event_is_at_the_first_frame_outside_the_band():
    assert asked(band(), velocities((75.0, 1.0), (120.0, 0.5))) == [50]


def test_a_velocity_that_stays_outside_is_asked_for_again_and_again():
    found = asked(band(), velocities((75.0, 1.0), (20.0, 5.0), (75.0, 1.0), (120.0, 0.5)))
    assert found[0] == 50
    assert len(found) == 6
    assert found[-1] == 350
    assert all(step <= 1.3 / FRAME_S for step in np.diff(found[:-1]))


def test_a_short_visit_outside_is_noise():
    assert asked(band(), velocities((75.0, 1.0), (120.0, 0.1), (75.0, 1.0))) == []


def test_too_few_particles_tell_no_velocity():
    seen = [tracks(frame, np.zeros(3), vx=500.0) for frame in range(100)]
    assert asked(band(), seen) == []


def test_a_band_with_one_edge_says_so_in_the_reason():
    condition = VelocityLeaves(Band(axis="y", min_um_s=50.0), 5.0)
    assert condition.why == "the velocity along y is outside 50 um/s and more"
    assert "50 to 100 um/s" in band().why


def test_the_example_asks_once_for_each_pair_of_particles_that_meet():
    example = Path(__file__).parents[2] / "examples" / "record_collisions.py"
    controller = load_controller(ControllerSettings(file=example, options={"distance_um": 6.0}), None, 5.0)
    frames = []
    for frame in range(100):
        seen = tracks(frame, [0.0, 50.0 - frame, 200.0], y=[0.0, 0.0, 0.0])
        commands = controller.update(seen)
        assert all(command.kind is CommandKind.RECORD for command in commands)
        frames += [frame] * len(commands)
    assert frames == [45]
    assert controller.measured()["pairs"] == 1


class Recipient:
    """A client that accepts everything."""

    def __init__(self) -> None:
        self.got: list[CommandKind] = []
        self.closed = 0

    def send(self, command: Command) -> None:
        self.got.append(command.kind)

    def replies(self) -> list[CommandReply]:
        return [CommandReply(str(kind), True) for kind in self.got]

    def close(self) -> None:
        self.closed += 1


def test_requests_for_frames_go_to_the_recorder_and_commands_to_the_acquisition():
    acquisition, recorder = Recipient(), Recipient()
    routed = RoutedCommands(acquisition, recorder)
    for kind in (CommandKind.SET_FLOW, CommandKind.RECORD, CommandKind.STOP):
        routed.send(Command(kind))
    routed.close()
    assert acquisition.got == [CommandKind.SET_FLOW, CommandKind.STOP]
    assert recorder.got == [CommandKind.RECORD]
    assert [reply.command_id for reply in routed.replies()] == ["set_flow", "stop", "record"]
    assert acquisition.closed == recorder.closed == 1


def test_without_a_recorder_the_acquisition_answers_for_it():
    acquisition = Recipient()
    RoutedCommands(acquisition, None).send(Command(CommandKind.RECORD))
    assert acquisition.got == [CommandKind.RECORD]
