from dataclasses import replace

import numpy as np
import pytest
from flows import info
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from scipy.stats import norm

from stream.messages import CommandKind, Properties, Tracks
from stream.property_range import PropertyRange, probability
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


def sized(frame: int, names: tuple[str, ...] = ("radius_um",)) -> Tracks:
    """Particles on their way into a region: a large one, a small one, one about which little is known, and one of
    which nothing is."""
    rows = Tracks.from_columns(
        info(frame), track=np.arange(4), x_um=[100.0 + 4.0 * frame] * 4, y_um=np.arange(4) * 50.0, z_um=0.0,
        vx_um_s=200.0, vy_um_s=0.0, vz_um_s=0.0, sigma_vx_um_s=1.0, flags=0, age_frames=frame, detection=0,
    )  # fmt: skip
    values = np.tile([0.5, 0.2, 0.42, np.nan], (len(names), 1))
    known = Properties(names, values, np.tile([0.03, 0.03, 0.1, np.nan], (len(names), 1)))
    return replace(rows, properties=known, detected=known)


@pytest.mark.parametrize(
    ("chosen", "pulses"),
    [
        ({}, 4),
        ({"at_least": 0.4}, 1),
        ({"at_least": 0.4, "min_p_property": 0.5}, 2),
        ({"at_most": 0.4}, 1),
        ({"at_least": 0.1, "at_most": 1.0}, 3),
        ({"at_least": 0.6}, 0),
        ({"at_least": 0.0, "min_p_property": 0.0}, 3),
    ],
)
def test_only_particles_that_are_surely_in_the_range_of_a_property_get_a_pulse(chosen, pulses):
    given = {"property": "radius_um", **chosen} if chosen else {}
    controller = PulseOnEntry(PulseOnEntrySettings(min_x_um=200.0, max_x_um=230.0, **given))
    assert sum(len(controller.update(sized(frame))) for frame in range(40)) == pulses
    assert controller.happenings() == []


def test_a_property_that_the_detector_does_not_measure_is_said_once_and_gives_no_pulse():
    controller = PulseOnEntry(
        PulseOnEntrySettings(min_x_um=200.0, max_x_um=230.0, property="mass_pg", at_least=1.0)
    )
    assert not any(controller.update(sized(frame)) for frame in range(40))
    (told,) = controller.happenings()
    assert told.text == (
        "pulse_on_entry gives no pulses: the detector gives no property 'mass_pg' of particles "
        "(it gives: radius_um)"
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"at_least": 1.0}, "need the property"),
        ({"property": "radius_um"}, "no range of radius_um"),
        ({"property": "radius_um", "at_least": 2.0, "at_most": 1.0}, "the range is empty"),
        ({"property": "Radius", "at_least": 2.0}, "cannot name a property"),
    ],
)
def test_a_range_that_cannot_be_is_refused(options, why):
    with pytest.raises(ValidationError, match=why):
        PulseOnEntrySettings(min_x_um=200.0, **options)


@given(st.floats(-3, 3), st.floats(0.01, 3), st.floats(-2, 2), st.floats(0.1, 3))
def test_the_probability_of_a_range_is_that_of_a_normal_error(value, sigma, low, width):
    chosen = PropertyRange(property="a", at_least=low, at_most=low + width)
    p = probability(np.array([value]), np.array([sigma]), chosen)[0]
    expected = norm.cdf(low + width, value, sigma) - norm.cdf(low, value, sigma)
    assert p == pytest.approx(expected, abs=1e-12)


def pulses_of_late_results(age_s: float, gap: int, **more) -> tuple[PulseOnEntry, list, np.ndarray]:
    """A controller that sees every `gap`-th frame `age_s` late, its pulses (decided, fired), true entries, s."""
    rng = np.random.default_rng(1)
    count = 300
    x0, v = rng.uniform(-300, 150, count), rng.uniform(80, 120, count)
    controller = PulseOnEntry(settings(max_x_um=None, **more))
    fired = []
    for frame in range(0, 200, gap):
        seen = Tracks.from_columns(
            info(frame, focus_um=150.0, age_ms=1000 * age_s), track=np.arange(count),
            x_um=x0 + v * frame * FRAME_S + rng.normal(0, 0.2, count), y_um=0.0, z_um=0.0,
            vx_um_s=v * rng.normal(1, 0.005, count), vy_um_s=0.0, vz_um_s=0.0, sigma_vx_um_s=1.0, flags=0,
            age_frames=frame, detection=0,
        )  # fmt: skip
        now_s = frame * FRAME_S + age_s
        fired += [(now_s, command.at_time_s) for command in controller.update(seen)]
    entry_s = np.sort((200 - x0) / v)
    return controller, fired, entry_s


@pytest.mark.parametrize("gap", [1, 3, 10])
@pytest.mark.parametrize("age_s", [0.02, 0.15, 0.5])
def test_where_results_are_old_or_seldom_pulses_are_decided_earlier_and_still_come_in_time(age_s, gap):
    controller, fired, entry_s = pulses_of_late_results(age_s, gap)
    begun_s = 2 * age_s + 2 * gap * FRAME_S
    assert all(at_s > now_s for now_s, at_s in fired if now_s > begun_s)
    assert all(at_s > now_s - 0.02 for now_s, at_s in fired)  # max_sigma_s
    true = entry_s[(entry_s > begun_s + 0.2) & (entry_s < 199 * FRAME_S)]
    nearest = [np.abs(np.array([at_s for _, at_s in fired]) - t).min() for t in true]
    assert np.mean(np.array(nearest) <= FRAME_S) > 0.95
    late_at_the_beginning = np.count_nonzero((entry_s > 0) & (entry_s < begun_s + 0.2))
    assert controller.late <= late_at_the_beginning


def test_a_particle_that_has_passed_gets_no_pulse_which_is_said_once_and_once_more_when_pulses_are_in_time():
    controller = PulseOnEntry(settings(max_x_um=None))
    told, fired = [], []

    def see(frame, x_um, age_s, number):
        seen = Tracks.from_columns(
            info(frame, age_ms=1000 * age_s), track=[float(number)], x_um=x_um, y_um=0.0, z_um=0.0, vx_um_s=100.0,
            vy_um_s=0.0, vz_um_s=0.0, sigma_vx_um_s=1.0, flags=0, age_frames=50, detection=0,
        )  # fmt: skip
        fired.extend(controller.update(seen))
        told.extend(happening.text for happening in controller.happenings())

    see(0, 195.0, 0.3, 1)  # enters in 0.05 s, a quarter of a second before its result comes
    see(1, 195.0, 0.3, 2)
    assert not fired
    assert controller.measured() == {"pulses": 0.0, "late": 2.0}
    assert len(told) == 1
    assert "pulse_on_entry is too late: a particle had entered when its result, 0.3 s old, came" in told[0]
    for frame in range(2, 400):
        see(frame, 195.0, 0.02, frame + 1)
    assert len(fired) == 398
    assert told[1:] == ["pulse_on_entry is in time again; 2 particles got no pulse so far"]
