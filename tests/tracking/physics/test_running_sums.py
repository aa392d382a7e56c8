"""What is added up frame by frame is what the whole tracks give."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RectBivariateSpline

from stream.messages import FrameInfo, TrackFlag, Tracks
from tracking.physics.diffusion.covariance import moments, solve
from tracking.physics.diffusion.segments import Segments
from tracking.physics.live.diffusion_of_looks import (
    AxisFound,
    along_y,
    axes_found,
    diffusion_of_looks,
    looks_of,
    mapped,
)
from tracking.physics.live.followed import Followed
from tracking.physics.live.look_sums import COUNT, FIELDS, MOVED, PLACES, TOTAL, add_frame
from tracking.physics.live.running_tracks import RunningTracks
from tracking.physics.sections.spline_table import SplineTable
from tracking.physics.tracks.information import first_detection, next_detection, place_of, velocity_of

RATE_HZ, DIFFUSION, FACTOR, LONGEST_S, LEAST = 10.0, 0.3, 1.33, 0.75, 3


def run(seed, frames, most):
    """Frames of tracks that come, go, are predicted, lack a height or an error, or are seen late in the frame."""
    rng = np.random.default_rng(seed)
    names = rng.choice(10 ** rng.integers(3, 12), most, replace=False)
    for frame in range(frames):
        here = np.flatnonzero(rng.random(most) < 0.85)
        rng.shuffle(here)
        place, sigma = rng.normal(0, 10, (3, here.size)), rng.uniform(0.1, 2.0, (3, here.size))
        place[2, rng.random(here.size) < 0.05] = np.nan
        sigma[1, rng.random(here.size) < 0.05] = 0.0
        flags = np.where(rng.random(here.size) < 0.1, int(TrackFlag.PREDICTED), 0)
        flags += np.where(rng.random(here.size) < 0.05, int(TrackFlag.TENTATIVE), 0)
        offset = np.where(rng.random(here.size) < 0.5, np.nan, rng.uniform(0, 0.9 / RATE_HZ, here.size))
        info = FrameInfo("run", frame, frame, frame / RATE_HZ, 0, 0.0, focus_um=frame % 3)
        yield Tracks.from_columns(
            info, track=names[here], x_um=place[0], y_um=place[1], z_um=place[2], sigma_x_um=sigma[0],
            sigma_y_um=sigma[1], sigma_z_um=sigma[2], time_offset_s=offset, flags=flags,
        )  # fmt: skip


def plainly(messages):
    """The velocities of pieces of tracks, one detection after the other, by numpy's form of the sums."""
    alive, found = {}, []

    def over(name, detections, flags):
        unfit = int(TrackFlag.TENTATIVE | TrackFlag.SECOND_DETECTION)
        if len(detections) < LEAST or flags & unfit:
            return
        times, places, sigmas = (np.array(one) for one in zip(*detections, strict=True))
        table = first_detection(places[0][:, None], sigmas[0][:, None])
        for at in range(1, len(times)):
            next_detection(
                table, np.diff(times)[at - 1 : at], places[at][:, None], sigmas[at][:, None], DIFFUSION
            )
        found.append((name, times[0], len(times), *velocity_of(table), *place_of(table)))

    for message in messages:
        for name in set(alive) - set(message.track.astype(int)):
            over(name, *alive.pop(name))
        height = FACTOR * (message.info.focus_um + message.z_um)
        for row, name in enumerate(message.track.astype(int)):
            flags = int(message.flags[row])
            place = np.array([message.x_um[row], message.y_um[row], height[row]])
            sigma = np.array(
                [message.sigma_x_um[row], message.sigma_y_um[row], FACTOR * message.sigma_z_um[row]]
            )
            if flags & int(TrackFlag.PREDICTED) or not (np.isfinite(place).all() and (sigma > 0).all()):
                continue
            time_s = message.info.time_s + np.nan_to_num(message.time_offset_s[row])
            detections, _ = alive.get(name, ([], 0))
            detections = [*detections, (time_s, place, sigma)]
            if time_s - detections[0][0] >= LONGEST_S:
                over(name, detections, flags)
                detections = detections[-1:]
            alive[name] = detections, flags
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([1, 7, 300]))
def test_tracks_are_followed_as_one_detection_after_the_other_would_be(seed, frames, most):
    messages = list(run(seed, frames, most))
    running = RunningTracks(DIFFUSION, refraction_factor=FACTOR, longest_s=LONGEST_S, min_length=LEAST)
    ended = []
    for number, message in enumerate(messages):
        running.take_in(message)
        if number % 7 == 0:
            ended.append(running.ended())
    ended.append(running.ended())
    got = {}
    for part in ended:
        for at in range(len(part)):
            begun = part.time_s[at] - part.duration_s[at] / 2
            got[part.track[at], round(begun, 6)] = part, at
    expected = plainly(messages)
    assert len(got) == len(expected)
    for name, begun, length, velocity, sigma, place, place_sigma in expected:
        part, at = got[name, round(begun, 6)]
        assert part.length[at] == length
        np.testing.assert_allclose(part.velocity_um_s[:, at], velocity[:, 0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(part.velocity_sigma_um_s[:, at], sigma[:, 0], rtol=1e-9)
        np.testing.assert_allclose(part.position_um[:, at], place[:, 0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(part.position_sigma_um[:, at], place_sigma[:, 0], rtol=1e-9)
        np.testing.assert_allclose(part.spread_um2[:, at], DIFFUSION * part.duration_s[at] / 3, rtol=1e-9)


def test_the_weights_of_velocities_are_never_made_without_diffusion():
    assert AxisFound("y", 0.2, 0.05).in_weights_um2_s == 0.2
    assert AxisFound("y", -0.02, 0.05).in_weights_um2_s == 0.05
    assert AxisFound("y", math.nan, math.nan, frames=16, at_most_um2_s=0.1).in_weights_um2_s == 0.1
    assert math.isnan(AxisFound("y", math.nan, math.nan).in_weights_um2_s)


def axes_of(looks):
    return axes_found(diffusion_of_looks(looks), [None, None, None])


def look(names, times, places, present):
    """The sums of a look at tracks (T,) at `times` (T, F) and `places` (3, T, F), where they are `present`."""
    followed, rows = Followed(names.size, 1.0), np.full((names.size, FIELDS), np.nan)
    rng = np.random.default_rng(0)
    for frame in range(times.shape[1]):
        here = rng.permutation(np.flatnonzero(present[:, frame]))
        frame_s = times[:, frame].min()
        x, y, z = places[:, here, frame]
        tracks = Tracks.from_columns(
            FrameInfo("run", frame, frame, frame_s, 0, 0.0, focus_um=0.0),
            track=names[here], x_um=x, y_um=y, z_um=z, time_offset_s=times[here, frame] - frame_s,
        )  # fmt: skip
        if frame == 0:
            followed.begin(tracks)
        add_frame(followed.see(tracks)[0], rows)
    order = np.argsort(followed.names)
    return followed.names[order], rows[: order.size][order]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 9), st.integers(1, 60))
def test_a_look_gives_d_as_the_displacements_themselves_do(seed, frames, most):
    rng = np.random.default_rng(seed)
    names = np.sort(rng.choice(10_000, most, replace=False))
    times = np.cumsum(rng.uniform(0.02, 0.2, (most, frames)), axis=1)
    places = np.cumsum(rng.normal(0, 0.3, (3, most, frames)), axis=2) + rng.normal(0, 50, (3, most, 1))
    present = np.arange(frames) >= rng.integers(0, frames - 2, (most, 1))  # some come later
    found_names, rows = look(names, times, places, present)
    assert found_names.tolist() == names.tolist()
    for at in range(most):
        t, x = times[at, present[at]], places[:, at, present[at]]
        assert rows[at, COUNT] == t.size - 1
        assert rows[at, TOTAL] == pytest.approx(t[-1] - t[0])
        np.testing.assert_allclose(rows[at, MOVED : MOVED + 3], x[:, -1] - x[:, 0], atol=1e-9)
        middles = ((x[:, 1:] + x[:, :-1]) / 2).mean(axis=1)
        np.testing.assert_allclose(rows[at, PLACES : PLACES + 3] / rows[at, COUNT], middles, atol=1e-9)
    enough = rows[:, COUNT] >= 3
    if enough.sum() < 2:
        return
    looks = looks_of(rows[enough], names[enough])
    # The same from the displacements, of those looks that were not taken for wrong links.
    kept = np.flatnonzero(np.isin(names, looks.moments.track))
    steps = present[kept].sum(axis=1) - 1
    moved, over = np.zeros((3, kept.size, frames - 1)), np.zeros((kept.size, frames - 1))
    for row, (at, n) in enumerate(zip(kept, steps, strict=True)):
        moved[:, row, :n] = np.diff(places[:, at, present[at]], axis=1)
        over[row, :n] = np.diff(times[at, present[at]])
    plain = moments(
        Segments(
            names[kept], steps, moved, np.zeros_like(moved), over, np.zeros((3, kept.size)),
            np.ones((3, kept.size)), np.ones(3), 0,
        ),
        drift=True,
    )  # fmt: skip
    np.testing.assert_allclose(looks.moments.found, plain.found, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(looks.moments.expected, plain.expected, rtol=1e-6, atol=1e-9)


def walks(tracks, *, shear_per_s=0.0, frames=9, interval_s=0.05, d=0.4, seed=0, slow_beyond_um=math.inf):
    """A look at tracks that diffuse in a box of 300 x 200 x 40 um; x flows by the shear times the height."""
    rng = np.random.default_rng(seed)
    places = np.empty((3, tracks, frames))
    places[..., 0] = rng.uniform(0, 1, (3, tracks)) * np.array([[300.0], [200.0], [40.0]])
    here = d * np.where(places[0, :, 0] > slow_beyond_um, 0.5, 1.0)
    for frame in range(1, frames):
        step = rng.normal(0, np.sqrt(2 * here * interval_s), (3, tracks))
        step[0] += shear_per_s * (places[2, :, frame - 1] + step[2] / 2) * interval_s
        places[..., frame] = places[..., frame - 1] + step
    seen = places + rng.normal(0, 0.05, places.shape)
    times = np.tile(interval_s * np.arange(frames), (tracks, 1))
    names, rows = look(np.arange(tracks), times, seen, np.ones((tracks, frames), bool))
    return looks_of(rows, names)


def test_an_axis_along_which_a_flow_shears_does_not_count_for_d():
    sheared = diffusion_of_looks(walks(6000, shear_per_s=5.0))
    # 8 steps of 0.05 s: shear adds (5 / s * 0.4 s)^2 / 16 = a fourth of it to D along x.
    assert sheared.sheared_um2_s[0] == pytest.approx(0.25 * 0.4, rel=0.5)
    assert sheared.um2_s[0] > 0.45
    assert sheared.sheared_um2_s[1:].tolist() == [0.0, 0.0]
    d, error = sheared.in_plane
    assert d == pytest.approx(0.4, abs=4 * error)
    along = along_y(walks(6000, shear_per_s=5.0), None)
    assert (along.um2_s, along.error_um2_s) == pytest.approx((d, error))


def test_without_a_flow_both_axes_count():
    for seed in range(10):
        still = diffusion_of_looks(walks(2000, seed=seed))
        assert still.used.tolist() == [True, True]
        d, error = still.in_plane
        assert d == pytest.approx(0.4, abs=4 * error)


def test_a_map_shows_where_d_is_another_and_nothing_where_it_is_the_same():
    looks = walks(8000, slow_beyond_um=150.0)
    found = mapped(looks, axes_of(looks))
    middle = (found.x_um[1:] + found.x_um[:-1]) / 2
    left, right = found.um2_s[:, middle < 120], found.um2_s[:, middle > 180]
    assert left.mean() == pytest.approx(0.4, rel=0.05)
    assert right.mean() == pytest.approx(0.2, rel=0.05)
    assert found.differs.any()
    told = 0
    for seed in range(20):
        even = walks(2000, seed=100 + seed)
        found = mapped(even, axes_of(even))
        off = (found.um2_s - 0.4) / found.standard_error_um2_s
        assert np.nanstd(off) == pytest.approx(1.0, abs=0.5)
        told += int(found.differs.any())
    assert told <= 3


def test_a_few_displacements_make_no_map():
    looks = walks(60)
    assert mapped(looks, axes_of(looks)) is None


def test_cells_with_too_little_are_left_out_of_a_map():
    looks = walks(3000)
    thin = (looks.place_um[0] > 100) | (np.arange(looks.total_s.size) % 40 == 0)
    few = type(looks)(
        looks.moments.of(thin), looks.place_um[:, thin], looks.moved_um[:, thin], looks.total_s[thin]
    )
    found = mapped(few, axes_of(few))
    assert np.isnan(found.um2_s[:, 0]).any()
    assert np.isfinite(found.um2_s[:, -1]).all()
    shown = np.isfinite(found.um2_s)
    assert (found.standard_error_um2_s[shown] < 0.4 / 3 * 1.2).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 40), st.integers(4, 40))
def test_a_table_of_splines_is_scipys(seed, many_a, many_b):
    rng = np.random.default_rng(seed)
    a, b = np.cumsum(rng.uniform(0.1, 2, many_a)), np.cumsum(rng.uniform(0.1, 2, many_b))
    values = rng.normal(size=(many_a, many_b))
    share = np.append(rng.random((2, 50)), [[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]], axis=1)
    x, y = a[0] + share[0] * np.ptp(a), b[0] + share[1] * np.ptp(b)
    expected = RectBivariateSpline(a, b, values).ev(x, y)
    np.testing.assert_allclose(SplineTable(a, b, values).at(x, y), expected, rtol=1e-9, atol=1e-9)


def test_d_of_a_group_has_the_error_of_that_group_alone():
    looks = walks(300, seed=3)
    group = np.arange(looks.total_s.size) % 3
    of_all = solve(looks.moments, group, 3)
    for one in range(3):
        alone = solve(looks.moments.of(group == one))
        np.testing.assert_allclose(of_all.um2_s[:, one], alone.um2_s[:, 0])
        np.testing.assert_allclose(of_all.standard_error_um2_s[:, one], alone.standard_error_um2_s[:, 0])
