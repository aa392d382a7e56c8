"""The detections in a trajectory file, tracked again: the same rows with the same settings, others with others."""

import uuid
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from flows import channel_flow, info, with_second_detections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mirror_depths import two_sided
from numpy.lib.recfunctions import repack_fields

import liveptv
from liveptv.cli import run_command_line
from liveptv.config import build_experiment
from liveptv.workflows.retrack import NO_SLICES, retrack, settings_for
from stream.errors import ConfigurationError, OutputError, SourceError
from stream.links import open_receiver, open_sender
from stream.messages import Detections, Tracks
from stream.volume_info import VolumeInfo
from tracking.as_detected import OFFSET, as_kept, assumed_um, detections_in
from tracking.settings import TrackerSettings
from tracking.stage import TrackStage
from tracking.tracker import OnlineTracker
from tracking.trajectories.concatenation import join
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter
from tracking.trajectories.schema import FRAME_BEFORE_SLICES, FRAMES, MORE_BEFORE_DETECTED, MORE_ROWS, SLICES

KEPT = ["frame", "camera_frame", "time_s", "wall_s", "focus_um", "flow_ul_s", "rows"]


def run(path: Path, detections, max_rows=None, **tracker) -> Path:
    """A trajectory file as a live run with these detections and settings of the tracker leaves it."""
    chosen = TrackerSettings(**tracker)
    configuration = build_experiment({"tracker": tracker}, "the test").resolved()
    attributes = {"configuration": configuration, "pixel_size_um": detections[0].info.pixel_size_um}
    if max_rows is not None:
        configuration["detector"]["max_particles"] = max_rows // 2
        attributes["image_shape"] = [100, 100]
    with ExitStack() as stack:

        def link():
            address = f"inproc://{uuid.uuid4().hex}"
            sender = open_sender(address, run_id="run", source="test", slot_bytes=1_000_000, slots=8)
            stack.callback(sender.close)
            receiver = open_receiver(address)
            stack.callback(receiver.close)
            return sender, receiver

        (source, stage_end), (sender, output) = link(), link()
        stage = TrackStage(stage_end, OnlineTracker(chosen), [sender], max_rows=max_rows, say=lambda _: None)
        writer = stack.enter_context(TrajectoryWriter(path, run_id="first", attributes=attributes))
        for found in detections:
            source.send(found)
            delivery = None
            while delivery is None:
                stage.step(0.01)
                delivery = output.receive(0.0)
            assert isinstance(delivery.message, Tracks)
            writer.append(delivery.message)
            delivery.done()
        writer.finalize({"accounts": {"detect": {"particles": 7}}}, "done")
    return path


def stored(path):
    with h5py.File(path) as file:
        return file["tracks/rows"][:], file["tracks/more"][:], file[FRAMES][:][KEPT]


def again(path: Path, name="again.h5", overrides=(), said=None) -> Path:
    output = path.with_name(name)
    chosen = settings_for(path, list(overrides))
    chosen = chosen.model_copy(update={"run": chosen.run.model_copy(update={"output": output})})
    retrack(path, chosen, caution=(lambda _: None) if said is None else said.append)
    return output


def assert_same(one: Path, other: Path) -> None:
    for mine, theirs in zip(stored(one), stored(other), strict=True):
        assert len(mine) == len(theirs)
        assert repack_fields(mine).tobytes() == repack_fields(theirs).tobytes()


def in_volumes(said: str, frames=30, count=120):
    """Volumes, up and down in turn, with measured times, lost slices and lost volumes; some particles go straight.

    `said` is which detections have times of their own: all, some or none.
    """
    rng = np.random.default_rng(3)
    places = rng.uniform(0, [[60], [60], [9]], (3, count))
    velocity = np.where(rng.uniform(size=count) < 0.5, rng.normal(0, 4, (3, count)), 0.0)
    detections = []
    for frame in range(frames):
        if frame in {9, 10, 21}:
            continue
        upwards = frame % 2 == 0
        times_s = 0.008 * np.arange(10) + rng.normal(0, 1e-4, 10)
        missing = {4: (0,), 5: (3, 4, 5), 17: (2,)}.get(frame, ())
        times_s = times_s if upwards else times_s[::-1]
        volume = VolumeInfo(tuple(np.arange(10.0).tolist()), tuple(times_s.tolist()), missing, upwards)
        now = places + velocity * 0.1 * frame + rng.normal(0, 0.1, places.shape).cumsum(axis=1) * 0.02
        seen = rng.uniform(size=count) < 0.93
        seen &= ~np.isin(np.rint(now[2]), missing)
        table = np.full((len(Detections.COLUMNS), int(seen.sum())), np.nan)
        table[:3], table[3:6] = now[:, seen] + rng.normal(0, 0.05, (3, int(seen.sum()))), 0.05
        table[6], table[7], table[-1] = 20.0, 0.9, 0.0
        if said != "none":
            table[OFFSET] = np.interp(table[2], volume.z_um, volume.time_s) + 1e-4
        if said == "some":
            table[OFFSET, ::3] = np.nan
        there = replace(info(frame, time_s=0.1 * frame, focus_um=30.0), volume=volume)
        detections.append(Detections(there, table))
    return detections


@pytest.mark.parametrize("motion", ["auto", "flow"])
@pytest.mark.parametrize("said", ["all", "some", "none"])
def test_volumes_are_tracked_again_to_the_last_bit(said, motion, tmp_path):
    """Each at the time of its own slices, and what was in missing slices is not missed."""
    first = run(tmp_path / "tracks.h5", in_volumes(said), motion=motion)
    words = []
    second = again(first, said=words)
    assert_same(first, second)
    assert not any("nearly" in word for word in words)
    with TrajectoryFile(first) as file, TrajectoryFile(second) as other:
        volumes = list(file.volumes(file.frames))
        assert list(other.volumes(other.frames)) == volumes
        assert sum(not volume.is_whole for volume in volumes) == 3
        for name in ("slices", "upwards"):
            np.testing.assert_array_equal(other.frames[name], file.frames[name])
    rows = stored(first)[0]
    assert np.unique(rows["track"]).size > 100
    assert (rows["flags"] & 1).any()


def test_without_their_slices_volumes_are_tracked_again_with_a_word_on_what_is_lacking(tmp_path):
    first = run(tmp_path / "tracks.h5", in_volumes("none"))
    with h5py.File(first, "r+") as file:
        table = file[FRAMES][:]
        del file[FRAMES], file[SLICES]
        older = repack_fields(table[list(FRAME_BEFORE_SLICES.names)])
        file.create_dataset(FRAMES, data=older, maxshape=(None,), chunks=(64,))
    words = []
    again(first, said=words)
    assert [word for word in words if "nearly" in word] == [NO_SLICES.format(first)]


def crowded(frames=40, **more):
    """A channel flow in which particles cross, are missed, are seen twice, and are not there."""
    flow = channel_flow(count=120, frames=frames, displacement=0.3, missed=0.08, false=0.05, **more)
    return with_second_detections(flow, share=0.1)[0].detections


def test_with_the_same_settings_every_row_is_the_same_to_the_last_bit(tmp_path):
    first = run(tmp_path / "tracks.h5", crowded())
    rows, _, _ = stored(first)
    assert (rows["flags"] & 1).any()  # gaps
    assert (rows["flags"] & 2).any()  # second detections
    assert (rows["flags"] & 4).any()  # ghosts and beginnings
    assert_same(first, again(first))


def test_and_so_is_what_is_made_from_that(tmp_path):
    first = run(tmp_path / "tracks.h5", crowded(25))
    second = again(first, "second.h5", ["tracker.max_gap_frames=0"])
    assert_same(second, again(second, "third.h5"))
    assert_same(first, again(second, "fourth.h5", ["tracker.max_gap_frames=3"]))


@pytest.mark.parametrize("motion", ["flow", "scan"])
def test_second_depths_classes_and_a_moving_focus_are_kept_exactly(motion, tmp_path):
    rng = np.random.default_rng(2)
    detections = []
    for found in two_sided(motion, frames=40, count=60).detections:
        table = np.array(found.table)
        table[Detections.COLUMNS.index("kind")] = rng.integers(0, 3, len(found))
        table[Detections.COLUMNS.index("p_kind")] = rng.uniform(0.3, 1, len(found))
        detections.append(Detections(found.info, table))
    first = run(tmp_path / "tracks.h5", detections)
    _, more, _ = stored(first)
    assert np.isfinite(more["z_other_detected_um"]).any()
    assert (more["kind_detected"] >= 0).mean() > 0.5  # the others are predicted rows
    assert_same(first, again(first))


def test_the_plain_method_is_the_same_as_well(tmp_path):
    first = run(tmp_path / "tracks.h5", crowded(15), mode="hungarian", min_length_frames=5)
    assert_same(first, again(first))


def test_lost_frames_empty_frames_and_times_of_their_own_stay(tmp_path):
    rng = np.random.default_rng(0)
    detections = [
        Detections.empty(found.info) if number % 11 == 5 else found
        for number, found in enumerate(crowded(40))
        if number not in {7, 20, 21, 22, 23, 24, 25}
    ]
    detections = [
        replace(
            d, info=replace(d.info, time_s=d.info.time_s + rng.normal(0, 1e-3), camera_frame=d.info.frame + 3)
        )
        for d in detections
    ]
    first = run(tmp_path / "tracks.h5", detections)
    assert_same(first, again(first))


def test_a_change_of_the_pixel_size_ends_all_tracks_there_as_in_the_run(tmp_path):
    detections = [
        replace(d, info=replace(d.info, pixel_size_um=0.5 if d.info.frame < 12 else 0.25))
        for d in crowded(24)
    ]
    first = run(tmp_path / "tracks.h5", detections)
    rows, _, _ = stored(first)
    assert not np.intersect1d(rows["track"][rows["frame"] < 12], rows["track"][rows["frame"] >= 12]).size
    assert_same(first, again(first))


def test_rows_that_a_run_had_no_room_for_are_left_out_again(tmp_path):
    first = run(tmp_path / "tracks.h5", crowded(20), max_rows=150)
    assert np.bincount(stored(first)[0]["frame"]).max() == 150
    assert_same(first, again(first))


COLUMNS = [name for name in Detections.COLUMNS if name not in {"flags", "chi_square"}]
VALUES = st.floats(-1e9, 1e9) | st.floats(0, 1) | st.just(np.nan) | st.floats(1e-9, 1e-3) | st.floats()
PLACES = st.floats(-50, 50) | st.just(np.nan)


@st.composite
def detections_of_frames(draw):
    """A few frames with arbitrary numbers in every column, most of them nonsense.

    They are picked from a few that are drawn: to draw each of hundreds took 11 ms an example, which fails the
    health check of hypothesis on a busy machine.
    """
    values = np.array(draw(st.lists(VALUES, min_size=1, max_size=16)))
    places = np.array(draw(st.lists(PLACES, min_size=1, max_size=8)))
    frames, number, time_s = [], 0, 0.0
    for _ in range(draw(st.integers(1, 6))):
        number += draw(st.integers(1, 4))
        time_s += draw(st.floats(0, 2))
        count = draw(st.integers(0, 4))
        table = np.zeros((len(Detections.COLUMNS), count))
        size = table.size
        picked = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8).reshape(table.shape)
        for row, name in enumerate(Detections.COLUMNS):
            if name in COLUMNS:
                table[row] = values[picked[row] % values.size]
        table[:2] = places[picked[:2] % places.size]
        focus_um = draw(st.floats(-1e4, 1e4) | st.just(np.nan))
        frames.append(Detections(info(number, time_s=time_s, focus_um=focus_um), table))
    return frames


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    detections_of_frames(),
    st.sampled_from([{}, {"confirm_hits": 1}, {"sigma_xy_um": 0.37}, {"mode": "hungarian"}]),
)
def test_whatever_the_detector_says_the_rows_are_the_same(tmp_path, detections, tracker):
    first = run(tmp_path / f"{uuid.uuid4().hex}.h5", detections, **tracker)
    assert_same(first, again(first, f"{uuid.uuid4().hex}.h5"))


@given(detections_of_frames())
def test_what_is_kept_is_kept_once_and_for_all(detections):
    for found in detections:
        kept = as_kept(found, TrackerSettings())
        np.testing.assert_array_equal(kept.table, as_kept(kept, TrackerSettings()).table)


def test_what_is_kept_differs_from_what_was_detected_by_far_less_than_its_errors():
    for found in crowded(3):
        kept = as_kept(found, TrackerSettings())
        assert np.abs(kept.x_um - found.x_um).max() <= 2.0**-13
        assert np.abs(kept.z_um - found.z_um).max() <= 2.0**-10
        assert np.abs(kept.sigma_x_um / found.sigma_x_um - 1).max() <= 2.0**-7


# other settings


def test_a_longer_gap_joins_tracks_and_leaves_every_detection_as_it_was(tmp_path):
    first = run(tmp_path / "tracks.h5", crowded(40), max_gap_frames=0)
    more = again(first, overrides=["tracker.max_gap_frames=4"])
    mine, theirs = stored(first)[0], stored(more)[0]
    assert not (mine["flags"] & 1).any()
    assert (theirs["flags"] & 1).any()
    assert theirs["track"].max() < mine["track"].max()
    columns = ["frame", "detection", "x_um", "y_um", "z_um", "sigma_x_um", "brightness"]
    measured = [np.sort(repack_fields(rows[rows["detection"] >= 0][columns])) for rows in (mine, theirs)]
    assert measured[0].tobytes() == measured[1].tobytes()


def test_an_assumed_standard_error_can_be_set_anew_and_a_stated_one_cannot(tmp_path):
    unstated = [
        Detections(d.info, np.vstack([d.table[:3], np.full((1, len(d)), np.nan), d.table[4:]]))
        for d in crowded(10)
    ]
    first = run(tmp_path / "tracks.h5", unstated, sigma_xy_um=0.3)
    rows = stored(again(first, overrides=["tracker.sigma_xy_um=0.6"]))[0]
    measured = rows[rows["detection"] >= 0]
    assert np.unique(measured["sigma_x_um"]) == pytest.approx(0.6, rel=0.01)
    assert np.unique(measured["sigma_y_um"]) == pytest.approx(0.1, rel=0.01)
    assert assumed_um(TrackerSettings(sigma_xy_um=0.6))[0] == measured["sigma_x_um"][0]


def test_other_settings_than_the_trackers_are_refused(tmp_path):
    first = run(tmp_path / "tracks.h5", crowded(4))
    with pytest.raises(ConfigurationError, match=r"only \[tracker\]"):
        settings_for(first, ["detector.min_confidence=0.9"])
    with pytest.raises(ConfigurationError, match="max_gap_frames"):
        settings_for(first, ["tracker.max_gap_frames=-1"])


# what the new file says


def test_the_new_file_names_the_first_one_its_settings_and_its_own(tmp_path):
    first = run(tmp_path / "tracks.h5", crowded(6))
    second = again(first, "second.h5", ["tracker.confirm_hits=4"])
    third = again(second, "third.h5", ["tracker.max_gap_frames=1"])
    with TrajectoryFile(third) as file, TrajectoryFile(second) as before:
        attributes, origin = file.attributes, file.attributes["retracked"]
        assert origin["file"] == "second.h5"
        assert origin["run_id"] == before.attributes["run_id"]
        assert origin["from"]["run_id"] == "first"
        assert attributes["run_id"] not in {"first", before.attributes["run_id"]}
        assert attributes["configuration"]["tracker"]["confirm_hits"] == 4
        assert attributes["configuration"]["tracker"]["max_gap_frames"] == 1
        assert attributes["accounts"]["detect"] == {"particles": 7}
        assert attributes["accounts"]["track"]["born"] > 0
        assert [e["kind"] for e in file.events()] == ["retracked"] * 2
        assert file.finished


def test_a_run_that_was_continued_begins_anew_where_it_did(tmp_path):
    one = run(tmp_path / "one.h5", crowded(12))
    two = run(tmp_path / "two.h5", crowded(12, seed=5))
    join(one, two, tmp_path / "joined.h5")
    rows = stored(again(tmp_path / "joined.h5"))[0]
    before = stored(tmp_path / "joined.h5")[0]
    for name in ("track", "frame", "detection", "flags"):
        np.testing.assert_array_equal(rows[name], before[name])
    np.testing.assert_allclose(
        rows["vx_um_s"], before["vx_um_s"], rtol=1e-2, atol=1e-3
    )  # times differ by 1e-13


# files


def of_an_earlier_version(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        more = file[MORE_ROWS][:]
        attributes = dict(file[MORE_ROWS].attrs)
        del file[MORE_ROWS]
        file.create_dataset(
            MORE_ROWS,
            data=repack_fields(more[list(MORE_BEFORE_DETECTED.names)]),
            maxshape=(None,),
            chunks=(64,),
        ).attrs.update(attributes)


def test_a_file_of_an_earlier_version_can_be_tracked_again_with_a_word_on_what_it_lacks(tmp_path):
    first = run(tmp_path / "tracks.h5", two_sided("flow", frames=12, count=30).detections)
    of_an_earlier_version(first)
    with TrajectoryFile(first) as file:
        assert not file.keeps_detections
        assert file.known()
    said = []
    rows = stored(again(first, said=said))[0]
    assert len(said) == 1
    assert "earlier version" in said[0]
    assert (rows["detection"] >= 0).sum() == (stored(first)[0]["detection"] >= 0).sum()


def test_a_file_that_is_not_finished_or_would_be_replaced_is_refused(tmp_path):
    first = run(tmp_path / "tracks.h5", crowded(4))
    with pytest.raises(OutputError):
        again(first, "tracks.h5")
    (tmp_path / "there.h5").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        again(first, "there.h5")
    assert (tmp_path / "there.h5").read_bytes() == b"mine"
    with h5py.File(first, "r+") as file:
        del file.attrs["end_reason"]
    with pytest.raises(SourceError, match="not finished"):
        again(first)


def test_the_command_tracks_a_table_or_a_trajectory_file_again(tmp_path, capsys):
    first = run(tmp_path / "tracks.h5", crowded(12))
    output = tmp_path / "again.h5"
    assert run_command_line(["track", str(first), "-o", str(output)]) == 0
    assert_same(first, output)
    assert "trajectories (median length" in capsys.readouterr().out
    wrong = ["track", str(first), "-o", str(tmp_path / "b.h5")]
    assert run_command_line([*wrong, "--columns", "x=x_um[um]"]) != 0
    assert run_command_line([*wrong, "--frame-rate", "50"]) != 0
    assert "times of its own" in " ".join(capsys.readouterr().err.split())
    assert run_command_line([*wrong, "--set", "detector.workers=1"]) != 0
    assert "only [tracker] has an effect" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "b.h5").exists()


def test_from_python_the_trajectories_come_as_a_table(tmp_path):
    first = run(tmp_path / "tracks.h5", crowded(25))
    same = liveptv.retrack(first)
    expected = liveptv.open_trajectories(first).to_pandas()
    assert same.equals(expected)
    fewer = liveptv.retrack(first, output=tmp_path / "fewer.h5", confirm_hits=12)
    assert fewer["track"].nunique() < same["track"].nunique()
    assert (tmp_path / "fewer.h5").exists()


def test_the_detections_of_a_frame_come_back_in_their_places():
    found = as_kept(crowded(1)[0], TrackerSettings())
    tracks = OnlineTracker(TrackerSettings()).step(found)
    back = detections_in(tracks)
    for name in ("x_um", "y_um", "z_um", "sigma_x_um", "brightness", "confidence"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
