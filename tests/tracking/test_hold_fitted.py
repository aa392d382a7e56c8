"""Flow rate and wall shear are held by setting the pump, whatever the pump's scale says."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stream.errors import ConfigurationError
from stream.messages import Command, CommandReply, FrameInfo, Tracks
from tracking.control.controllers import ProtocolRun, load_controller
from tracking.control.protocol_settings import ProtocolSettings
from tracking.control.settings import ControllerSettings
from tracking.physics.channel.fit import fit_channel
from tracking.physics.channel.parameters import VELOCITY, prior_of
from tracking.physics.live.follower import LiveFlow
from tracking.physics.sections.choice import profile_of
from tracking.physics.sections.shapes import Rectangle
from tracking.physics.tracks.velocities import track_velocities

SECTION = Rectangle(400.0, 100.0)
LIQUID = profile_of(SECTION)
RATE_HZ, MIDDLE_UM, VISCOSITY_PA_S = 30.0, 150.0, 1e-3
UL_S_PER_UM_S = SECTION.area_um2 / 1e9
SHEAR_PER_UM_S = VISCOSITY_PA_S * float(
    np.average(LIQUID.wall().shear_per_um, weights=LIQUID.wall().length_um)
)


def places(rng, count):
    return rng.uniform(0, 300, count), rng.uniform(-190, 190, count), rng.uniform(2, 98, count)


def flow_fitted(speed_um_s=50.0, refraction_factor=1.0):
    """A fit of the channel from tracks that move with it."""
    rng = np.random.default_rng(0)
    x, y, z = places(rng, 300)
    frames = np.arange(12)[:, None]
    v = speed_um_s * LIQUID.at(y, z)
    position = np.stack(
        np.broadcast_arrays(x + v * frames / RATE_HZ, y + MIDDLE_UM + 0 * frames, z + 0 * frames)
    )
    position = position + rng.normal(size=position.shape) * np.array([0.1, 0.1, 0.5])[:, None, None]
    tracks = track_velocities(
        np.broadcast_to(np.arange(300), position.shape[1:]).ravel(),
        np.broadcast_to(frames / RATE_HZ, position.shape[1:]).ravel(),
        position.reshape(3, -1),
        np.repeat([[0.1], [0.1], [0.5]], position[0].size, axis=1),
        0.0,
    )
    return LiveFlow(
        fit_channel(tracks, SECTION, prior_of(SECTION)), SimpleNamespace(), VISCOSITY_PA_S, refraction_factor
    )


class World:
    """A pump with a lag and a scale of its own, and what is seen of the flow a little later."""

    def __init__(self, controller, flow_ul_s, gain=1.0, refraction_factor=1.0):
        self.controller, self.gain, self._factor = controller, gain, refraction_factor
        self.set_ul_s = flow_ul_s
        self.actual_um_s = self._seen_um_s = gain * flow_ul_s / UL_S_PER_UM_S
        self.frame, self._rng = 0, np.random.default_rng(1)
        self.commands = []

    def run(self, seconds):
        history = []
        for _ in range(round(seconds * RATE_HZ)):
            self.actual_um_s += (self.gain * self.set_ul_s / UL_S_PER_UM_S - self.actual_um_s) / (
                0.3 * RATE_HZ
            )
            self._seen_um_s += (self.actual_um_s - self._seen_um_s) / (0.5 * RATE_HZ)
            x, y, z = places(self._rng, 60)
            v = self._seen_um_s * LIQUID.at(y, z) + self._rng.normal(0, 1.0, 60)
            info = FrameInfo(
                "run",
                self.frame,
                self.frame,
                self.frame / RATE_HZ,
                0,
                0.0,
                focus_um=40.0,
                flow_ul_s=self.set_ul_s,
            )
            tracks = Tracks.from_columns(
                info, track=np.arange(60), x_um=x, y_um=y + MIDDLE_UM, z_um=z / self._factor - 40.0, vx_um_s=v,
                vy_um_s=np.zeros(60), vz_um_s=np.zeros(60), sigma_vx_um_s=np.ones(60),
            )  # fmt: skip
            for command in self.controller.update(tracks):
                self.commands.append(command)
                self.set_ul_s = float(command.value)
                heard = getattr(self.controller, "acknowledged", lambda _: None)
                heard(CommandReply(command.command_id, True, self.frame + 2))
            self.frame += 1
            history.append(self.actual_um_s)
        return np.array(history)


def hold(kind, **settings):
    return load_controller(ControllerSettings.model_validate({kind: {"max_flow_ul_s": 0.02, **settings}}))


@pytest.mark.parametrize(
    ("kind", "settings", "speed_um_s"),
    [
        ("hold_flow_rate", {"target_ul_s": 0.004}, 0.004 / UL_S_PER_UM_S),
        ("hold_shear", {"target_pa": 0.006}, 0.006 / SHEAR_PER_UM_S),
        (
            "hold_shear",
            {"target_pa": 0.006, "of": "maximum"},
            0.006 / (VISCOSITY_PA_S * float(LIQUID.wall().shear_per_um.max())),
        ),
    ],
)
def test_the_target_is_reached_whatever_the_pump_delivers(kind, settings, speed_um_s):
    controller = hold(kind, **settings)
    world = World(controller, 0.002, gain=0.8)
    controller.flow_fitted(flow_fitted())
    world.run(8.0)
    assert world.run(6.0) == pytest.approx(speed_um_s, rel=0.03)
    world.gain = 0.56
    world.run(10.0)
    assert world.run(5.0) == pytest.approx(speed_um_s, rel=0.03)
    assert world.set_ul_s == pytest.approx(speed_um_s * UL_S_PER_UM_S / 0.56, rel=0.04)


def test_heights_count_in_the_liquid_not_by_the_travel_of_the_focus():
    controller = hold("hold_flow_rate", target_ul_s=0.004)
    controller.flow_fitted(flow_fitted(refraction_factor=1.33))
    world = World(controller, 0.002, refraction_factor=1.33)
    world.run(8.0)
    assert world.run(4.0) * UL_S_PER_UM_S == pytest.approx(0.004, rel=0.03)


def test_a_pump_at_rest_is_started_to_have_something_to_fit():
    controller = hold("hold_shear", target_pa=0.006)
    world = World(controller, 0.0)
    world.run(3.0)
    assert [command.value for command in world.commands] == [0.01]
    controller.flow_fitted(flow_fitted())
    world.run(8.0)
    assert world.run(4.0) == pytest.approx(0.006 / SHEAR_PER_UM_S, rel=0.03)


def test_without_a_fit_a_pump_that_runs_is_left_alone():
    world = World(hold("hold_flow_rate", target_ul_s=0.004), 0.002)
    world.run(5.0)
    assert world.commands == []


def test_the_stress_of_a_shear_thinning_liquid_is_held_by_its_own_law():
    flow = flow_fitted()
    theta = flow.fit.theta.copy()
    theta[-1] = 0.5
    flow = replace(flow, fit=replace(flow.fit, theta=theta, section=Rectangle(400.0, 100.0)))
    controller = hold("hold_shear", target_pa=0.002)
    controller.flow_fitted(flow)
    faster = hold("hold_shear", target_pa=0.004)
    faster.flow_fitted(flow)
    assert faster.target_um_s == pytest.approx(4.0 * controller.target_um_s, rel=1e-6)


def test_a_flow_against_the_axis_is_held_with_its_sign():
    flow = flow_fitted()
    theta = flow.fit.theta.copy()
    theta[VELOCITY] *= -1
    controller = hold("hold_shear", target_pa=0.006)
    controller.flow_fitted(replace(flow, fit=replace(flow.fit, theta=theta)))
    assert controller.target_um_s == pytest.approx(-0.006 / SHEAR_PER_UM_S, rel=0.01)


def test_without_a_viscosity_no_stress_can_be_held():
    with pytest.raises(ConfigurationError, match=r"flow\.viscosity_mpa_s"):
        hold("hold_shear", target_pa=0.006).flow_fitted(replace(flow_fitted(), viscosity_pa_s=None))


def test_a_protocol_passes_fits_on_and_gives_new_targets():
    inner = hold("hold_shear", target_pa=0.003)
    steps = [{"target": 0.003, "seconds": 10}, {"target": 0.006, "seconds": 10}]
    run = ProtocolRun(ProtocolSettings.model_validate({"steps": steps}), inner)
    run.flow_fitted(flow_fitted())
    world = World(run, 0.002)
    assert world.run(10.0)[-1] == pytest.approx(0.003 / SHEAR_PER_UM_S, rel=0.05)
    assert world.run(9.0)[-30:] == pytest.approx(0.006 / SHEAR_PER_UM_S, rel=0.03)
    assert run.measured()["target_pa"] == 0.006
    assert math.isclose(run.measured()["wall_shear_pa"], 0.006, rel_tol=0.03)
    assert all(isinstance(command, Command) for command in world.commands)
