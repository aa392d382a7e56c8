import numpy as np
import pytest
from flows import info
from hypothesis import given
from hypothesis import strategies as st

from stream.messages import CommandKind, CommandReply, Tracks
from tracking.control.controllers import HoldFocus
from tracking.control.controllers.wall import wall_um
from tracking.control.settings import HoldFocusSettings

FRAME_S = 0.02


class Slab:
    """Particles at fixed heights that come and go, seen by a focus whose plane drifts away from its encoder."""

    def __init__(self, drift_um_s=1.0, count=40, sigma_um=1.0, seed=0):
        self.rng = np.random.default_rng(seed)
        self.encoder_um, self.drift_um_s, self.sigma_um = 150.0, drift_um_s, sigma_um
        self.height = self.rng.uniform(2, 298, count)
        self.number = np.arange(count)
        self.frame = 0

    @property
    def plane_um(self):
        return self.encoder_um + self.drift_um_s * self.frame * FRAME_S

    def see(self, outliers=0.0):
        self.frame += 1
        gone = self.rng.random(self.height.size) < 0.005
        self.height[gone] = self.rng.uniform(2, 298, gone.sum())
        self.number[gone] = self.number.max() + 1 + np.arange(gone.sum())
        z = self.height - self.plane_um + self.rng.normal(0, self.sigma_um, self.height.size)
        wrong = self.rng.random(self.height.size) < outliers
        z[wrong] += self.rng.uniform(-60, 60, wrong.sum())
        v = 150 * 4 * self.height * (300 - self.height) / 300**2 * self.rng.normal(1, 0.02, self.height.size)
        order = np.argsort(self.rng.random(self.height.size))
        stamp = info(self.frame, focus_um=self.encoder_um, focus_commanded_um=self.encoder_um)
        return Tracks.from_columns(
            stamp, track=self.number[order], x_um=0.0, y_um=0.0, z_um=z[order], sigma_z_um=self.sigma_um,
            vx_um_s=v[order], flags=0, age_frames=50, detection=0,
        )  # fmt: skip


def hold(slab, controller, seconds, outliers=0.0):
    """Errors of the focal plane against where it was, um."""
    start_um, errors = slab.plane_um, []
    for _ in range(int(seconds / FRAME_S)):
        for command in controller.update(slab.see(outliers)):
            assert command.kind is CommandKind.MOVE_FOCUS
            slab.encoder_um = command.value
            controller.acknowledged(CommandReply(command.command_id, True, slab.frame + 3))
        errors.append(slab.plane_um - start_um)
    return np.array(errors)


@pytest.mark.parametrize("outliers", [0.0, 0.05])
def test_a_drift_is_followed_by_what_the_particles_have_in_common(outliers):
    errors = hold(Slab(), HoldFocus(HoldFocusSettings()), 40, outliers)
    assert np.abs(errors).max() < 3


def test_the_wall_is_brought_to_where_it_was_asked_for_and_kept_there():
    settings = HoldFocusSettings(reference="wall", set_point_um=-140.0)
    errors = hold(Slab(), HoldFocus(settings), 60)
    assert np.abs(errors[1000:] + 10).max() < 3


def test_the_median_depth_is_brought_to_its_set_point():
    slab = Slab(drift_um_s=0.0, count=2000)
    hold(slab, HoldFocus(HoldFocusSettings(reference="median", set_point_um=20.0)), 20)
    assert np.median(slab.height) - slab.plane_um == pytest.approx(20, abs=10)


def test_the_next_move_waits_for_the_first_frame_that_shows_the_last_one():
    slab, controller = Slab(drift_um_s=5.0), HoldFocus(HoldFocusSettings(period_s=0.0))
    asked = []
    for _ in range(200):
        for command in controller.update(slab.see()):
            asked.append((slab.frame, command))
    assert len(asked) == 1
    controller.acknowledged(CommandReply(asked[0][1].command_id, True, 250))
    frames = [slab.frame for _ in range(100) if controller.update(slab.see())]
    assert frames[0] == 250


def test_after_a_move_on_purpose_the_depth_found_there_is_held():
    slab, controller = Slab(drift_um_s=0.0), HoldFocus(HoldFocusSettings())
    hold(slab, controller, 5)
    slab.encoder_um += 40
    controller.restart()
    assert np.abs(hold(slab, controller, 5)).max() < 2


def test_a_move_is_never_longer_than_allowed():
    controller = HoldFocus(HoldFocusSettings(reference="wall", set_point_um=-50.0, max_step_um=2.0))
    slab, before = Slab(drift_um_s=0.0), 150.0
    for _ in range(500):
        for command in controller.update(slab.see()):
            assert abs(command.value - before) <= 2.0 + 1e-9
            before = slab.encoder_um = command.value
            controller.acknowledged(CommandReply(command.command_id, True, slab.frame))


@given(
    floor=st.floats(-500, 500),
    depth=st.floats(50, 3000),
    top=st.floats(1, 1e4),
    backwards=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_walls_of_a_laminar_flow_are_where_it_comes_to_rest(floor, depth, top, backwards, seed):
    rng = np.random.default_rng(seed)
    h = rng.uniform(0.1, 0.9, 200)
    v = (-1 if backwards else 1) * top * 4 * h * (1 - h) * rng.normal(1, 0.01, 200)
    v[:5] = 3 * top  # particles taken for others
    assert wall_um(floor + h * depth, v, "floor") == pytest.approx(floor, abs=0.02 * depth)
    assert wall_um(floor + h * depth, v, "ceiling") == pytest.approx(floor + depth, abs=0.02 * depth)


@pytest.mark.parametrize(
    ("depth", "velocity"),
    [
        (np.zeros(50), np.ones(50)),
        (np.arange(50.0), np.full(50, 7.0)),
        (np.arange(50.0), (np.arange(50.0) - 25) ** 2 + 10),
        (np.arange(3.0), np.arange(3.0)),
        (np.full(50, np.nan), np.ones(50)),
    ],
)
def test_where_the_flow_shows_no_wall_none_is_found(depth, velocity):
    assert np.isnan(wall_um(depth, velocity, "floor"))
