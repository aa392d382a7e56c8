import numpy as np
import pytest
from flows import info
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream.messages import CommandKind, Tracks
from tracking.control.controllers import PulseOnEntry
from tracking.control.controllers.pulse_on_entry import entry_times_s
from tracking.control.settings import PulseOnEntrySettings

FRAME_S = 0.02
PLACES = hnp.arrays(np.float64, (3, 4), elements=st.integers(-50, 50).map(float))
SPEEDS = hnp.arrays(np.float64, (3, 4), elements=st.integers(-5, 5).map(float))


@given(PLACES, SPEEDS)
def test_the_time_of_entry_is_the_first_at_which_the_point_is_in_the_box(place, velocity):
    low, high = np.array([0.0, -10.0, -np.inf]), np.array([10.0, 10.0, 20.0])
    entry_s, _ = entry_times_s(place, velocity, low, high)
    for n in range(4):
        if not np.isfinite(entry_s[n]) or entry_s[n] <= 0:
            continue
        inside = [
            ((at := place[:, n] + velocity[:, n] * t) > low - 1e-9).all() and (at < high + 1e-9).all()
            for t in (entry_s[n] - 1e-3, entry_s[n] + 1e-6)
        ]
        assert inside == [False, True]
    steps = np.linspace(0, 60, 4001)
    at = place[:, :, None] + velocity[:, :, None] * steps
    visits = ((at > low[:, None, None]) & (at < high[:, None, None])).all(axis=0)
    begins_outside = ~((place >= low[:, None]) & (place <= high[:, None])).all(axis=0)
    for n in np.flatnonzero(visits.any(axis=1) & begins_outside):
        assert 0 <= entry_s[n] <= steps[visits[n].argmax()] + 1e-9


def settings(**more) -> PulseOnEntrySettings:
    return PulseOnEntrySettings(**{"min_x_um": 200.0, "max_x_um": 230.0, "lead_s": 0.1, **more})


def test_every_particle_gets_one_pulse_at_the_time_at_which_it_enters():
    rng = np.random.default_rng(1)
    count = 400
    x0, height = rng.uniform(0, 180, count), rng.uniform(0, 300, count)
    v = 150 * 4 * height * (300 - height) / 300**2
    controller = PulseOnEntry(settings(min_height_um=100.0, max_height_um=200.0))
    pulses = []
    for frame in range(150):
        x = x0 + v * frame * FRAME_S
        seen = Tracks.from_columns(
            info(frame, focus_um=150.0), track=np.arange(count), x_um=x + rng.normal(0, 0.2, count), y_um=0.0,
            z_um=height - 150 + rng.normal(0, 1.0, count), vx_um_s=v * rng.normal(1, 0.005, count), vy_um_s=0.0,
            vz_um_s=0.0, sigma_vx_um_s=1.0, flags=0, age_frames=frame, detection=0,
        )  # fmt: skip
        for command in controller.update(seen):
            assert command.kind is CommandKind.TRIGGER
            assert 0 < command.at_time_s - seen.info.time_s <= 0.1
            pulses.append(command.at_time_s)
    entry_s = (200 - x0) / v
    enters = (height > 100) & (height < 200) & (entry_s > 10 * FRAME_S) & (entry_s < 148 * FRAME_S)
    pulses = np.sort([p for p in pulses if 10 * FRAME_S < p < 148 * FRAME_S])
    assert len(pulses) == pytest.approx(enters.sum(), rel=0.02)
    nearest = [np.abs(pulses - t).min() for t in entry_s[enters]]
    assert np.mean(np.array(nearest) <= FRAME_S) > 0.95


def test_tracks_that_are_too_young_or_badly_known_are_not_predicted():
    def pulses(age, sigma):
        seen = Tracks.from_columns(
            info(9), track=[1.0], x_um=199.0, y_um=0.0, z_um=0.0, vx_um_s=100.0, vy_um_s=0.0, vz_um_s=0.0,
            sigma_vx_um_s=sigma, flags=0, age_frames=age, detection=0,
        )  # fmt: skip
        return len(PulseOnEntry(settings(max_sigma_s=0.005)).update(seen))

    assert pulses(20, 1.0) == 1
    assert pulses(2, 1.0) == 0
    assert pulses(20, 90.0) == 0
