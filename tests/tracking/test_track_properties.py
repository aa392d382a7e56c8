"""A track knows its particle better than one of its detections does, as far as their errors are independent."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from property_tracks import measured
from trajectory_files import info, tracks, write

from stream.errors import OutputError, SourceError
from stream.messages import NO_PROPERTIES, Detections, Properties, Tracks
from tracking.as_detected import as_kept, detections_in
from tracking.properties import Scatter, TrackProperties
from tracking.row_limit import without_excess
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker
from tracking.trajectories.compression import pack
from tracking.trajectories.concatenation import join
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter, read_trajectories
from tracking.trajectories.growing_file import WRITTEN
from tracking.trajectories.playback import play
from tracking.trajectories.recovery import recover
from tracking.trajectories.schema import PROPERTIES, PROPERTY_NAMES

SETTINGS = TrackerSettings(frame_rate_hz=20.0)


def followed(found: list[Detections]) -> list[Tracks]:
    tracker = OnlineTracker(SETTINGS)
    return [tracker.step(as_kept(detections, SETTINGS)) for detections in found]


def normalised(rows: Tracks, radius: np.ndarray) -> np.ndarray:
    """Errors of the tracks' radii over their standard errors; particles lie 50 um apart on a line."""
    particle = np.rint(rows.x_um / 50.0).astype(int)
    return (rows.properties.value("radius_um") - radius[particle]) / rows.properties.error("radius_um")


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("frame", [0, 3, 39])
def test_stated_errors_of_a_track_are_those_that_it_has_whatever_part_is_alike(alike, frame):
    found, radius = measured(alike=alike)
    rows = followed(found[: frame + 1])[-1]
    error = normalised(rows, radius)
    assert len(error) == 200
    assert 0.5 < error.std() < 1.2  # at alike = 0 it is known to a hundredth only that nothing is alike


def test_independent_errors_average_out_and_alike_ones_do_not():
    for alike, least, most in ((0.0, 0.0, 0.4), (1.0, 0.97, 1.03)):
        found, _ = measured(alike=alike)
        rows = followed(found)
        ratio = rows[-1].properties.error("radius_um") / rows[0].properties.error("radius_um")
        assert least <= np.median(ratio) < most


def test_before_much_is_known_a_mean_is_no_surer_than_one_detection():
    found, _ = measured(particles=3, frames=6)
    rows = followed(found)
    first = rows[0].properties.error("radius_um")
    assert (rows[-1].properties.error("radius_um") > 0.6 * first).all()


def test_without_stated_errors_the_error_of_a_mean_is_what_values_scatter():
    found, radius = measured(alike=0.0)
    blind = [
        replace(one, properties=replace(one.properties, errors=np.full((1, 200), np.nan))) for one in found
    ]
    rows = followed(blind)
    assert np.isnan(rows[0].properties.errors).all()
    assert 0.6 < normalised(rows[-1], radius).std() < 1.4


def test_a_wrong_link_now_and_then_does_not_hide_what_is_independent():
    found, _ = measured(alike=0.0)
    rng = np.random.default_rng(1)
    for one in found:
        wrong = rng.random(200) < 0.02
        one.properties.values[:, wrong] = rng.uniform(0.1, 0.5, wrong.sum())
    ratio = followed(found)[-1].properties.errors / followed(found[:1])[-1].properties.errors
    assert np.median(ratio) < 0.5


def test_an_angle_is_that_of_the_row_since_it_has_no_mean():
    turning = [
        Detections(
            info(frame),
            Detections.from_columns(info(frame), x_um=[0.0], y_um=0.0).table,
            Properties.from_columns({"angle_rad": [3.1 if frame % 2 else -3.1], "sigma_angle_rad": 0.1}, 1),
        )
        for frame in range(6)
    ]
    assert [float(rows.properties.values[0, 0]) for rows in followed(turning)] == pytest.approx(
        [-3.1, 3.1] * 3, abs=1e-6
    )


def test_a_predicted_row_keeps_what_is_known_of_the_particle_and_has_no_detection_of_its_own():
    found, _ = measured(particles=20, frames=10)
    found.append(Detections.empty(info(10)))
    rows = followed(found)
    assert (rows[-1].detection < 0).all()
    np.testing.assert_array_equal(rows[-1].properties.values, rows[-2].properties.values)
    assert np.isnan(rows[-1].detected.values).all()


def test_values_that_are_no_numbers_are_not_known():
    found, _ = measured(particles=4, frames=1)
    found[0].properties.values[0] = [np.inf, np.nan, 0.2, 0.2]
    found[0].properties.errors[0] = [0.1, 0.1, -1.0, 0.1]
    rows = followed(found)[0]
    assert np.isnan(rows.properties.values[0]).tolist() == [True, True, True, False]


def test_tracks_without_properties_have_none():
    detections = Detections.from_columns(info(0), x_um=[1.0], y_um=1.0)
    assert followed([detections])[0].properties is NO_PROPERTIES


def test_rows_that_do_not_fit_take_their_properties_with_them():
    found, _ = measured(particles=5, frames=5)
    only = replace(found[-1], table=found[-1].table[:, :3], properties=found[-1].properties.of(slice(3)))
    rows = followed([*found[:-1], only])[-1]
    some, left_out = without_excess(rows, 4)
    assert left_out == 1
    assert some.properties.values.shape == (1, 4)


@given(st.floats(-8.0, 8.0), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_variance_of_normal_numbers_is_known_to_a_tenth_on_any_scale(exponent, seed):
    scatter = Scatter(1)
    numbers = np.random.default_rng(seed).normal(0.0, 1.0, 40_000)
    scatter.add(0, numbers**2 * 2.0**exponent)
    assert scatter.variance()[0] == pytest.approx(2.0**exponent, rel=0.1)


# The file


def same_properties(a: Tracks, b: Tracks) -> bool:
    return a.properties.names == b.properties.names and all(
        np.array_equal(x.astype(np.float32), y.astype(np.float32), equal_nan=True)
        for x, y in (
            (a.properties.values, b.properties.values),
            (a.detected.values, b.detected.values),
            (a.detected.errors, b.detected.errors),
        )
    )


def test_a_file_gives_back_what_is_known_of_each_row(tmp_path):
    rows = followed(measured(particles=7, frames=12)[0])
    path = write(tmp_path / "tracks.h5", rows)
    for _ in range(2):
        with TrajectoryFile(path) as file:
            assert file.property_names == ("radius_um",)
            assert all(same_properties(a, b) for a, b in zip(rows, play(file), strict=True))
        whole = read_trajectories(path)
        assert whole.properties.values.shape == (1, len(whole))
        assert set(whole.columns()) > {"radius_um", "sigma_radius_um", "detected_radius_um"}
        pack(path)


def test_the_tracker_can_be_given_the_same_detections_again(tmp_path):
    found = [as_kept(one, SETTINGS) for one in measured(particles=7, frames=12)[0]]
    path = write(tmp_path / "tracks.h5", followed(found))
    with TrajectoryFile(path) as file:
        for given_once, stored in zip(found, play(file), strict=True):
            again = detections_in(stored).properties
            np.testing.assert_array_equal(again.values, given_once.properties.values)
            np.testing.assert_array_equal(again.errors, given_once.properties.errors)


def test_properties_are_read_while_the_file_is_written(tmp_path):
    rows = followed(measured(particles=3, frames=4)[0])
    path = tmp_path / "tracks.h5"
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        writer.append(tracks(0, 2))
        writer.commit()
        with TrajectoryFile(path) as file:
            assert file.property_names == ()
            for one in rows[1:]:
                writer.append(one)
            writer.commit()
            file.refresh()
            assert file.property_names == ("radius_um",)
            values = file.properties(0, file.row_count)[0].values
            assert np.isnan(values[0]).tolist() == [True] * 2 + [False] * 9


def test_a_crash_in_the_middle_of_a_commit_costs_no_property_of_committed_rows(tmp_path):
    rows = followed(measured(particles=3, frames=4)[0])
    crashed = tmp_path / "crashed.h5"
    for torn_entries in (np.zeros(5), np.arange(5) + 12):  # claimed and never written; of rows not committed
        with TrajectoryWriter(tmp_path / "live.h5", run_id="run", attributes={}, overwrite=True) as writer:
            for one in rows:
                writer.append(one)
            writer.commit()
            dataset = writer._file._sets[WRITTEN.index(PROPERTIES)]
            torn = np.zeros(5, dataset.dtype)
            torn["row"], torn["sigma"] = torn_entries, torn_entries
            written = dataset.shape[0]
            dataset.resize((written + 5,))
            dataset[written:] = torn
            dataset.flush()
            crashed.write_bytes((tmp_path / "live.h5").read_bytes())
        recover(crashed)
        with TrajectoryFile(crashed) as file:
            assert all(same_properties(a, b) for a, b in zip(rows, play(file), strict=True))
        with h5py.File(crashed) as file:
            assert file[PROPERTIES].shape == (12,)
        crashed.unlink()


def test_two_runs_joined_keep_the_properties_of_both(tmp_path):
    one, other = (followed(measured(particles=3, frames=4, seed=seed)[0]) for seed in (1, 2))
    renamed = [
        replace(
            rows,
            properties=replace(rows.properties, names=("refractive_index",)),
            detected=replace(rows.detected, names=("refractive_index",)),
        )
        for rows in other
    ]
    write(tmp_path / "one.h5", one)
    write(tmp_path / "other.h5", renamed)
    join(tmp_path / "one.h5", tmp_path / "other.h5", tmp_path / "both.h5")
    found = read_trajectories(tmp_path / "both.h5")
    assert found.properties.names == ("radius_um", "refractive_index")
    assert np.isnan(found.properties.value("radius_um")[12:]).all()
    assert np.isfinite(found.properties.value("refractive_index")[12:]).all()


def test_a_file_without_properties_reads_as_before(tmp_path):
    path = write(tmp_path / "tracks.h5", [tracks(frame) for frame in range(3)])
    with h5py.File(path, "r+") as file:  # as an earlier version wrote it
        del file[PROPERTIES], file[PROPERTY_NAMES]
    found = read_trajectories(path)
    assert found.properties is NO_PROPERTIES or not found.properties.names
    assert recover(path).already_whole


def test_more_properties_than_a_file_holds_are_refused(tmp_path):
    def with_names(frame: int, names: list[str]) -> Tracks:
        rows = tracks(frame, 1)
        known = Properties.from_columns(dict.fromkeys(names, 1.0), 1)
        return replace(rows, properties=known, detected=known)

    with TrajectoryWriter(tmp_path / "tracks.h5", run_id="run", attributes={}) as writer:
        writer.append(with_names(0, [f"a{i}" for i in range(8)]))
        with pytest.raises(OutputError, match="8 properties"):
            writer.append(with_names(1, ["b"]))


@pytest.mark.parametrize("names", [[b"Radius"], [b"a", b"a"], [b"\xff"], [b"a"] * 9, [b"sigma_a"], []])
def test_names_that_cannot_be_are_damage(tmp_path, names):
    path = write(tmp_path / "tracks.h5", followed(measured(particles=3, frames=4)[0]))
    with h5py.File(path, "r+") as file:
        file[PROPERTY_NAMES].resize((len(names),))
        file[PROPERTY_NAMES][:] = np.array(names, "S40")
    with pytest.raises(SourceError, match="damaged"):
        read_trajectories(path)


NUMBERS = hnp.arrays(
    np.float64, (2, 4), elements=st.one_of(st.just(np.nan), st.floats(-(2.0**99), 2.0**99, width=32))
)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5), st.integers(1, 3))
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_values_come_back_in_single_precision(tmp_path, frames, committed):
    path = tmp_path / "any.h5"
    given_rows = []
    for number, (value, error, seen, seen_error) in enumerate(frames):
        mean = Properties(("a", "b"), value, np.where(np.isnan(value), np.nan, np.abs(error) + 1e-3))
        own = Properties(("a", "b"), seen, np.where(np.isnan(seen), np.nan, np.abs(seen_error) + 1e-3))
        given_rows.append(replace(tracks(number, 4), properties=mean, detected=own))
    with TrajectoryWriter(path, run_id="run", attributes={}, overwrite=True) as writer:
        for count, rows in enumerate(given_rows):
            writer.append(rows)
            if count % committed == 0:
                writer.commit()
    with TrajectoryFile(path) as file:
        for rows, stored in zip(given_rows, play(file), strict=True):
            known = np.isfinite(rows.properties.values) | np.isfinite(rows.detected.values)
            for a, b in ((rows.properties, stored.properties), (rows.detected, stored.detected)):
                if not b.names:
                    assert not known.any()
                    continue
                np.testing.assert_array_equal(
                    np.where(known, a.values, np.nan).astype(np.float32), b.values.astype(np.float32)
                )
                np.testing.assert_allclose(b.errors, np.where(known, a.errors, np.nan), rtol=2**-7)


def test_only_tracks_that_are_alive_are_remembered():
    remembered = TrackProperties()
    found, _ = measured(particles=3, frames=2)
    rows = Tracks.from_columns(info(0), track=[0, 1, 2], detection=[0, 1, 2])
    remembered.write(rows, found[0])
    again = remembered.write(Tracks.from_columns(info(1), track=[1, 3], detection=[1, 2]), found[1])
    assert again.properties.values[0, 1] == found[1].properties.values[0, 2]  # a new track begins anew
    mean = np.average(
        [found[0].properties.values[0, 1], found[1].properties.values[0, 1]],
        weights=[found[0].properties.errors[0, 1] ** -2, found[1].properties.errors[0, 1] ** -2],
    )
    assert again.properties.values[0, 0] == pytest.approx(mean)
