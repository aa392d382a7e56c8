import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.physics.channel_flow import channel_velocity_um_s, max_velocity_um_s
from acquisition.simulated.actuators import FocusDrive, Pump
from acquisition.simulated.world import World, WorldSettings, stokes_einstein_um2_s


def unpaced(**changes):
    world = World(WorldSettings(**changes))
    world.set_real_time(False)
    world.configure(world.settings)
    world.focus.place(150.0)
    return world


def test_a_bead_of_2_um_diffuses_in_water_as_stokes_and_einstein_say():
    assert stokes_einstein_um2_s(2.0, 1.002, 293.15) == pytest.approx(0.2142, rel=1e-3)


def test_particles_move_with_the_analytical_flow():
    world = unpaced()
    world.pump.set(0.0, setpoint_ul_s=0.0246)
    before, after = world.particles_at(1.0), world.particles_at(1.5)
    stayed = before.identity == after.identity
    assert stayed.mean() > 0.8
    middle_y = (world.settings.height_px - 1) / 2 * world.settings.pixel_size_um
    exact = channel_velocity_um_s(before.y_um - middle_y, before.height_um, 1000, 300, 0.0246)
    peak = max_velocity_um_s(1000, 300, 0.0246)
    np.testing.assert_allclose(before.vx_um_s, exact, atol=1e-3 * peak)
    moved = (after.x_um - before.x_um)[stayed] / 0.5
    np.testing.assert_allclose(moved, exact[stayed], atol=1e-3 * peak)
    np.testing.assert_array_equal(before.height_um, after.height_um)


def test_simulated_time_begins_at_zero_with_the_same_particles_however_long_the_microscope_took_to_start():
    def started(took_s):
        world = World(WorldSettings(seed=3))
        world._epoch_s -= took_s  # the wall clock went on before time was simulated
        world.pump.set(took_s, setpoint_ul_s=0.0246)
        world.set_real_time(False)
        return world

    first, second = started(0.1), started(7.3)
    assert first.time_s == second.time_s == 0
    for time_s in (0.0, 0.5, 1.0):
        one, other = first.particles_at(time_s), second.particles_at(time_s)
        np.testing.assert_array_equal(one.x_um, other.x_um)
        np.testing.assert_array_equal(one.height_um, other.height_um)


def test_depth_is_height_minus_focus_so_it_falls_as_the_focus_rises():
    world = unpaced()
    first = world.particles_at(0.0)
    np.testing.assert_allclose(first.z_um, first.height_um - 150.0)
    world.focus.move(160.0, 0.0)
    settled = world.particles_at(1.0)
    np.testing.assert_allclose(settled.z_um, first.z_um - 10.0)


def test_the_mean_number_in_the_picture_is_as_asked():
    for depth in (300.0, 3000.0):
        world = unpaced(width_px=1536, height_px=1024, particles_per_frame=2000, channel_depth_um=depth)
        world.focus.place(depth / 2)
        p, s = world.particles_at(0.0), world.settings
        seen = (np.abs(p.z_um) <= s.visible_um) & (p.x_um > 0) & (p.x_um < s.width_px * s.pixel_size_um)
        seen &= (p.y_um > 0) & (p.y_um < s.height_px * s.pixel_size_um)
        assert np.count_nonzero(seen) == pytest.approx(2000, rel=0.08)


def test_brownian_motion_has_the_diffusion_coefficient_asked_for():
    world = unpaced(particles_per_frame=4000)
    world.set_diffusion(0.5)
    before, after = world.particles_at(0.0), world.particles_at(2.0)
    stayed = before.identity == after.identity
    stayed &= np.abs(before.height_um - 150) < 100
    for axis in ("x_um", "y_um", "height_um"):
        step = (getattr(after, axis) - getattr(before, axis))[stayed]
        assert step.var() == pytest.approx(2 * 0.5 * 2.0, rel=0.1)


@pytest.mark.parametrize("flow_ul_s", [0.0, 0.002])
def test_trapped_particles_are_held_around_the_middle_of_the_image_against_a_flow(flow_ul_s):
    world = unpaced(particles_per_frame=4000)
    world.set_diffusion(0.5)
    world.set_trap(10.0)
    world.pump.set(0.0, setpoint_ul_s=flow_ul_s)
    before, after = world.particles_at(1.97), world.particles_at(2.07)
    along = after.x_um - (768 - 1) / 2 * 0.8 - after.vx_um_s / 10.0
    across = after.y_um - (512 - 1) / 2 * 0.8
    for place in (along, across):
        assert place.mean() == pytest.approx(0.0, abs=0.02)
        assert place.var() == pytest.approx(0.5 / 10.0, rel=0.1)
    correlation = np.corrcoef(before.y_um, after.y_um)[0, 1]
    assert correlation == pytest.approx(np.exp(-10.0 * 0.1), abs=0.05)


def test_particles_in_a_trap_are_found_held_by_it_at_the_first_look_and_not_thrown_again_at_the_second():
    world = unpaced(particles_per_frame=4000)
    world.set_trap(10.0)
    world.set_diffusion(0.5)
    first, second = world.particles_at(0.0), world.particles_at(0.0)
    for place, middle in ((first.x_um, (768 - 1) / 2 * 0.8), (first.y_um, (512 - 1) / 2 * 0.8)):
        assert place.mean() == pytest.approx(middle, abs=0.02)
        assert place.var() == pytest.approx(0.5 / 10.0, rel=0.1)
    np.testing.assert_array_equal(first.x_um, second.x_um)
    world.set_trap(0.0)
    world.set_trap(10.0)  # whoever is seen free stays where it is until it is drawn to the middle
    np.testing.assert_array_equal(world.particles_at(0.0).x_um, first.x_um)


def test_particles_stay_in_the_channel_and_in_the_band_for_long():
    world = unpaced()
    world.set_diffusion(200.0)
    world.pump.set(0.0, setpoint_ul_s=-0.1)
    count = world.particles_at(0.0).x_um.size
    for time_s in np.arange(1, 40.0):
        p = world.particles_at(time_s)
        assert p.x_um.size == count == np.unique(p.identity).size
        assert p.height_um.min() >= 1.0
        assert p.height_um.max() <= 299.0
        assert p.x_um.min() >= -0.4 - world.settings.margin_um
        assert p.x_um.max() <= 768 * 0.8 - 0.4 + world.settings.margin_um


def test_a_particle_that_enters_anew_is_another_particle():
    world = unpaced()
    world.pump.set(0.0, setpoint_ul_s=0.0246)
    known = world.particles_at(0.0)
    for time_s in np.arange(0.1, 8, 0.1):
        p = world.particles_at(time_s)
        same = known.identity == p.identity
        assert np.all(np.abs(p.x_um - known.x_um)[same] < 20)
        known = p
    assert known.identity.max() > known.identity.size


def test_a_narrow_channel_has_walls_at_its_sides():
    world = unpaced(channel_width_um=200.0)
    world.set_diffusion(300.0)
    middle_y = (512 - 1) / 2 * 0.8
    for time_s in np.arange(1, 20.0):
        assert np.abs(world.particles_at(time_s).y_um - middle_y).max() <= 100.0 + 1e-9


def test_the_same_seed_gives_the_same_world_and_another_seed_another():
    def run(seed):
        world = unpaced(seed=seed)
        world.set_diffusion(0.1)
        world.pump.set(0.0, setpoint_ul_s=0.02)
        return world.particles_at(3.0)

    np.testing.assert_array_equal(run(1).x_um, run(1).x_um)
    assert not np.array_equal(run(1).height_um, run(2).height_um)


def test_the_pump_follows_with_its_lag_and_its_gain_error():
    pump = Pump()
    pump.set(0.0, gain=0.8, lag_s=2.0)
    pump.set(1.0, setpoint_ul_s=1.0)
    assert pump.flow_ul_s(1.0) == 0.0
    assert pump.flow_ul_s(3.0) == pytest.approx(0.8 * (1 - math.exp(-1)))
    assert pump.flow_ul_s(60.0) == pytest.approx(0.8)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 2), st.floats(-1, 1)), min_size=1, max_size=5), st.floats(0, 1))
def test_the_volume_delivered_is_the_integral_of_the_flow(changes, lag_s):
    pump = Pump()
    pump.set(0.0, lag_s=lag_s)
    moment = integral = 0.0
    for duration, setpoint in changes:
        pump.set(moment, setpoint_ul_s=setpoint)
        fine = moment + (np.arange(4000) + 0.5) * duration / 4000
        integral += np.mean([pump.flow_ul_s(t) for t in fine]) * duration
        moment += duration
    assert pump.volume_ul(moment) == pytest.approx(integral, abs=1e-4)


def test_the_focus_has_a_speed_and_settles_after_it_says_done():
    drive = FocusDrive(100.0)
    drive.set_speed(500.0, 0.01, 0.0)
    drive.move(150.0, 2.0)
    assert drive.done_s() == pytest.approx(2.1)
    assert 120 < drive.encoder_um(2.05) < 125
    assert 143 < drive.encoder_um(2.1) < 149
    assert drive.encoder_um(2.1 + 0.06) == pytest.approx(150.0, abs=0.02)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.001, 0.3), st.floats(-200, 200)), min_size=1, max_size=6),
    st.floats(0, 0.05),
)
def test_the_focus_never_jumps_whatever_it_is_told(moves, lag_s):
    drive = FocusDrive()
    drive.set_speed(1000.0, lag_s, 0.0)
    moment = 0.0
    for wait_s, target in moves:
        before = drive.encoder_um(moment)
        drive.move(target, moment)
        assert drive.encoder_um(moment) == pytest.approx(before, abs=1e-9)
        assert drive.encoder_um(moment + 1e-4) == pytest.approx(before, abs=1.0)
        moment += wait_s
    assert drive.encoder_um(moment + 2.0) == pytest.approx(moves[-1][1], abs=1e-6)


def test_a_stopped_focus_stays():
    drive = FocusDrive()
    drive.move(100.0, 0.0)
    drive.stop(0.05)
    assert drive.encoder_um(0.05) == drive.encoder_um(9.0) == pytest.approx(45.0, abs=1.0)


def test_drift_moves_the_focal_plane_but_not_the_encoder():
    drive = FocusDrive(100.0)
    drive.set_drift(2.0, 10.0)
    drive.set_drift(-1.0, 20.0)
    assert drive.encoder_um(25.0) == 100.0
    assert drive.focal_plane_um(25.0) == pytest.approx(100.0 + 20.0 - 5.0)


def test_unpaced_time_stands_still_until_frames_or_a_wait_for_the_focus_move_it():
    world = unpaced()
    assert world.time_s == 0.0
    world.focus.move(250.0, 0.0)
    assert not world.focus_busy()
    assert world.time_s == pytest.approx(0.1)


def test_unpaced_focus_is_busy_while_a_camera_moves_the_time():
    world = unpaced()
    world.set_streaming(True)
    world.focus.move(250.0, 0.0)
    assert world.focus_busy()
    world.particles_at(0.2)
    assert not world.focus_busy()


def test_the_world_may_be_asked_from_many_threads():
    world = unpaced()
    world.pump.set(0.0, setpoint_ul_s=0.02)
    failures = []

    def ask(offset):
        try:
            for k in range(50):
                p = world.particles_at(offset + k * 0.05)
                assert p.x_um.size == p.z_um.size
                world.focus.move(100.0 + k, world.time_s)
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(0.01 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
