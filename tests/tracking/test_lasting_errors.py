"""Errors of depth that last over frames are not taken for diffusion; what cannot be told apart is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.messages import FrameInfo, Tracks
from tracking.physics.diffusion.averages import BLOCKS, averaged, block_moments, from_averages, together
from tracking.physics.diffusion.covariance import solve
from tracking.physics.diffusion.estimate import diffusion_of
from tracking.physics.diffusion.maps import along
from tracking.physics.diffusion.segments import cut_into_segments
from tracking.physics.live.running_diffusion import RunningDiffusion

D, RATE_HZ, SIGMA_UM = 0.04, 30.0, 0.8
PLANE = (D, 0.001)


def heights(seed, tracks=2000, frames=65, d=D, sigma_um=SIGMA_UM, lasting=0.0, lasts_s=0.1):
    """Heights (tracks, frames) with errors, of whose variance a part `lasting` is forgotten after `lasts_s`."""
    rng = np.random.default_rng(seed)
    z = np.cumsum(rng.normal(0, np.sqrt(2 * d / RATE_HZ), (tracks, frames)), axis=1)
    z += rng.normal(0, 1.0, (tracks, 1)) * np.arange(frames) / RATE_HZ  # its own velocity
    keeps = np.exp(-1 / (RATE_HZ * lasts_s))
    slow = rng.normal(size=(tracks, frames))
    for frame in range(1, frames):
        slow[:, frame] = keeps * slow[:, frame - 1] + np.sqrt(1 - keeps**2) * slow[:, frame]
    return z + sigma_um * (np.sqrt(lasting) * slow + np.sqrt(1 - lasting) * rng.normal(size=(tracks, frames)))


def sums_of(z):
    tracks, frames = z.shape
    time_s = np.tile(np.arange(frames) / RATE_HZ, tracks)
    segments = cut_into_segments(
        np.repeat(np.arange(tracks), frames), time_s, z.reshape(1, -1), longest=frames
    )
    return block_moments(segments)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(BLOCKS), st.integers(1, 70))
def test_means_over_blocks_are_those_of_the_positions(seed, block, length):
    rng = np.random.default_rng(seed)
    x, time_s = rng.normal(size=length + 1), np.cumsum(rng.uniform(0.1, 1.0, length + 1))
    segments = cut_into_segments(np.zeros(length + 1), time_s, x, longest=length, without_outliers=False)
    found = averaged(segments, block)
    blocks = (length + 1) // block
    if blocks < 4:
        assert found.steps.size == 0
        return
    of_blocks, of_times = (one[: blocks * block].reshape(blocks, block).mean(axis=1) for one in (x, time_s))
    assert found.steps.tolist() == [blocks - 1]
    np.testing.assert_allclose(found.moved_um[0, 0], np.diff(of_blocks), atol=1e-12)
    np.testing.assert_allclose(found.over_s[0], np.diff(of_times), atol=1e-12)


def test_with_independent_errors_means_tell_d_much_better_and_their_error_is_right():
    found = [from_averages(sums_of(heights(seed)), 0).beside(PLANE) for seed in range(30)]
    d, error = np.array([[one.um2_s, one.standard_error_um2_s] for one in found]).T
    assert not any(one.lasting for one in found)
    assert sum(one.at_most for one in found) <= 3  # one in 40 by chance
    assert d.mean() == pytest.approx(D, abs=4 * d.std() / np.sqrt(30))
    assert d.std(ddof=1) == pytest.approx(np.sqrt((error**2).mean()), rel=0.35)  # 30 know it to 13 %
    single = solve(sums_of(heights(0))[0])
    assert error.mean() < single.standard_error_um2_s[0, 0] / 4


@pytest.mark.parametrize(("lasting", "lasts_s"), [(0.2, 0.2), (0.5, 0.1), (0.1, 0.1), (1.0, 0.05)], ids=str)
def test_errors_that_last_are_never_a_sure_diffusion(lasting, lasts_s):
    for seed in range(5):
        sums = sums_of(heights(seed, lasting=lasting, lasts_s=lasts_s))
        single = solve(sums[0])
        # what the displacements of single frames say is wrong by many of its standard errors
        assert single.um2_s[0, 0] - D > 1.5 * single.standard_error_um2_s[0, 0]
        found = from_averages(sums, 0).beside(PLANE)
        assert found.um2_s < single.um2_s[0, 0]
        assert found.at_most or found.um2_s == pytest.approx(D, abs=3.5 * found.standard_error_um2_s)
        assert found.um2_s > D - 3.5 * found.standard_error_um2_s


def test_where_they_are_over_within_a_block_d_is_found_without_knowing_it_in_the_plane():
    found = [
        from_averages(sums_of(heights(seed, sigma_um=0.1, lasting=1.0, lasts_s=0.05)), 0)
        for seed in range(10)
    ]
    assert all(one.lasting for one in found)
    d = np.array([one.um2_s for one in found])
    alone = [solve(sums_of(heights(seed, sigma_um=0.1, lasting=1.0, lasts_s=0.05))[0]) for seed in range(3)]
    assert min(one.um2_s[0, 0] for one in alone) > 2 * D
    assert d.mean() == pytest.approx(D, rel=0.15)


def test_too_few_tracks_say_nothing():
    assert from_averages(sums_of(heights(0, tracks=20)), 0) is None
    assert from_averages(sums_of(heights(0, frames=3)), 0) is None


def test_looks_add_up_to_what_all_tracks_say():
    z = heights(1, tracks=400)
    parts = [sums_of(part) for part in (z[:100], z[100:, :40])]
    for at, sums in enumerate(parts[1]):
        sums.track[:] += 100
        joined = together(parts)[at]
        assert joined.steps.sum() == parts[0][at].steps.sum() + sums.steps.sum()
        np.testing.assert_allclose(joined.found.sum(), parts[0][at].found.sum() + sums.found.sum())


def facts_of_a_run(
    seed, plane_um=0.03, lasting=(0.0, 0.0, 0.0), lasts_s=0.15, lives=6, tracks=200, frames=66
):
    """What a run tells of particles that come and go, with errors of `plane_um` in the plane.

    Of their variance a part `lasting` along each axis is forgotten after `lasts_s`.
    """
    running = RunningDiffusion()
    frame = 0
    for life in range(lives):
        of_life = [
            heights(100 * seed + 3 * life + axis, tracks, frames, sigma_um=sigma, lasting=part, lasts_s=lasts_s)
            for axis, (sigma, part) in enumerate(zip((plane_um, plane_um, SIGMA_UM), lasting, strict=True))
        ]  # fmt: skip
        corner = np.random.default_rng(seed).uniform(0, 200, (3, tracks, 1))
        place = np.stack(of_life) + corner
        for at in range(frames):
            info = FrameInfo("run", frame, frame, frame / RATE_HZ, 0, 0.0)
            x, y, z = place[..., at]
            running.update(
                Tracks.from_columns(info, track=1000 * life + np.arange(tracks), x_um=x, y_um=y, z_um=z)
            )
            frame += 1
    return running.facts()


@pytest.mark.parametrize("lasting", [0.0, 0.3])
def test_a_run_tells_d_along_z_or_says_that_it_cannot(lasting):
    facts = facts_of_a_run(5, lasting=(0.0, 0.0, lasting), lives=8, tracks=300)
    assert facts["um2_s"] == pytest.approx(D, rel=0.1)
    x, y, along = facts["axes"]
    assert [x["axis"], y["axis"], along["axis"]] == ["x", "y", "z"]
    if lasting and along["um2_s"] is None:
        assert along["at_most_um2_s"] > D
    else:
        assert along["at_most_um2_s"] is None
        assert along["error_um2_s"] < 2 * D
        assert along["um2_s"] == pytest.approx(D, abs=4 * along["error_um2_s"])


def test_no_clean_run_is_told_to_have_errors_in_the_plane_that_last():
    for seed in range(20):
        facts = facts_of_a_run(seed, plane_um=0.1, lives=3)
        assert [axis["frames"] for axis in facts["axes"][:2]] == [1, 1]
        assert facts["um2_s"] == pytest.approx(D, abs=4.5 * facts["error_um2_s"])


@pytest.mark.parametrize("lasts_s", [0.05, 0.2])
def test_errors_along_y_that_last_are_told_and_x_is_left_as_it_is(lasts_s):
    for seed in range(4):
        facts = facts_of_a_run(seed, plane_um=0.15, lasting=(0.0, 1.0, 0.0), lasts_s=lasts_s)
        x, y, _ = facts["axes"]
        assert y["frames"] > 1
        assert x["frames"] == 1
        if y["um2_s"] is None:
            assert y["at_most_um2_s"] > D
        else:
            assert y["um2_s"] == pytest.approx(D, abs=5 * y["error_um2_s"])
        assert facts["um2_s"] == pytest.approx(D, abs=5 * facts["error_um2_s"])


def test_heights_that_are_not_known_say_nothing_of_z():
    running = RunningDiffusion()
    rng = np.random.default_rng(0)
    place = rng.uniform(0, 100, (2, 50))
    for frame in range(200):
        place = place + rng.normal(0, 0.05, place.shape)
        info = FrameInfo("run", frame, frame, frame / RATE_HZ, 0, 0.0)
        running.update(
            Tracks.from_columns(
                info, track=np.arange(50), x_um=place[0], y_um=place[1], z_um=np.full(50, np.nan)
            )
        )
    assert [axis["axis"] for axis in running.facts()["axes"]] == ["x", "y"]


def in_a_channel(seed, per_s=5.0, depth_um=100.0, lasting=0.3):
    """Particles in a channel flow of up to `per_s`, whose depths have errors that last, larger at the walls."""
    tracks, frames, d = 1500, 60, 0.2
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, np.sqrt(2 * d / RATE_HZ), (3, tracks, frames))
    at = rng.uniform(10, 90, (3, tracks, 1)) + np.cumsum(steps, axis=2)
    at[0] += np.cumsum(per_s * (at[2] - at[2] ** 2 / depth_um), axis=1) / RATE_HZ
    error = heights(seed, tracks, frames, d=1e-9, sigma_um=1.5, lasting=lasting, lasts_s=0.2)
    error -= error.mean(axis=1, keepdims=True)
    at[2] += error * np.where(np.abs(at[2, :, :1] - depth_um / 2) > 25, 1.0, 0.4)
    at[:2] += rng.normal(0, 0.05, at[:2].shape)
    return (
        np.repeat(np.arange(tracks), frames),
        np.tile(np.arange(frames) / RATE_HZ, tracks),
        at.reshape(3, -1),
    )


def test_over_the_height_of_a_channel_d_does_not_rise_at_the_walls():
    result = diffusion_of(*in_a_channel(3), kinds=False)
    assert result.axes[0].shear_um2_s > 0
    assert result.in_plane.tolist() == [False, True]
    over = along(result, 2, np.linspace(10, 90, 7))
    # along the flow it does: what uncertain depths add is not the same everywhere
    assert over.um2_s[0, [0, -1]].min() > 0.2 + 5 * over.standard_error_um2_s[0, [0, -1]].max()
    np.testing.assert_allclose(over.in_plane_um2_s, 0.2, atol=4 * over.in_plane_standard_error_um2_s.max())
    assert result.um2_s == pytest.approx(0.2, abs=4 * result.standard_error_um2_s)


def test_a_recording_says_at_most_along_z_where_depth_errors_last_and_d_where_they_do_not():
    told = diffusion_of(*in_a_channel(4, per_s=0.0), kinds=False)
    assert told.axes[2].at_most
    assert not told.axes[2].used
    assert told.axes[2].limit_um2_s > 0.2
    assert told.um2_s == pytest.approx(0.2, abs=4 * told.standard_error_um2_s)
    clean = diffusion_of(*in_a_channel(4, per_s=0.0, lasting=0.0), kinds=False)
    assert not clean.axes[2].at_most
    assert clean.axes[2].um2_s == pytest.approx(0.2, abs=4 * clean.axes[2].standard_error_um2_s)


def along_the_plane(seed, lasting):
    """Particles that only diffuse; their errors along y last over frames in the upper half of the channel."""
    tracks, frames = 900, 80
    rng = np.random.default_rng(seed)
    at = np.stack(
        [
            heights(3 * seed + axis, tracks, frames, sigma_um=0.1, lasting=lasting * (axis == 1), lasts_s=0.1)
            for axis in range(3)
        ]
    )
    at[2] += rng.uniform(10, 90, (tracks, 1))
    clean = heights(3 * seed + 1, tracks, frames, sigma_um=0.1)
    at[1] = np.where(at[2].mean(axis=1, keepdims=True) > 50, at[1], clean)
    return (
        np.repeat(np.arange(tracks), frames),
        np.tile(np.arange(frames) / RATE_HZ, tracks),
        at.reshape(3, -1),
    )


def test_over_the_height_d_does_not_rise_where_errors_in_the_plane_last():
    track, time_s, at = along_the_plane(0, 1.0)
    result = diffusion_of(track, time_s, at, kinds=False)
    assert result.axes[1].frames > 1
    assert result.axes[0].frames == 1
    over = along(result, 2, np.linspace(10, 90, 5))
    np.testing.assert_allclose(over.um2_s[1], D, atol=4 * over.standard_error_um2_s[1].max())
    single = along(replace(result, axes=tuple(replace(axis, frames=1) for axis in result.axes)), 2, [50, 90])
    assert single.um2_s[1, 0] > 2 * D  # what displacements of single frames say
    clean = diffusion_of(*along_the_plane(0, 0.0), kinds=False)
    assert [axis.frames for axis in clean.axes[:2]] == [1, 1]
