"""`liveptv compare` says what differs between two trajectory files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import liveptv
from liveptv.cli.main import run_command_line
from liveptv.comparing import comparison
from liveptv.comparing.comparison import compare
from liveptv.comparing.detections import Moves, pairs_of
from liveptv.comparing.words import in_words
from stream.messages import Decisions, FitDecision, FrameInfo, TrackFlag, Tracks
from tracking.trajectories.control_record import store_control
from tracking.trajectories.file import TrajectoryWriter
from tracking.trajectories.schema import ROW

SPACING_UM = 40.0


def tracks_of(frame, numbers, x_um=None, **more):
    number = np.asarray(numbers)
    at = np.arange(len(number))
    columns = {
        "x_um": SPACING_UM * at if x_um is None else np.asarray(x_um, float),
        "y_um": 3.0 * at,
        "detection": at,
    }
    info = FrameInfo("run", frame, frame, 0.1 * frame, 0, 1e9)
    columns = {name: np.broadcast_to(values, number.shape) for name, values in (columns | more).items()}
    return Tracks.from_columns(info, track=number, **columns)


def file_of(path, frames, **attributes):
    attributes = {"pixel_size_um": 1.0, "refraction_factor": 1.0, "image_shape": [100, 100], **attributes}
    with TrajectoryWriter(path, run_id=path.stem, attributes=attributes) as writer:
        for one in frames:
            writer.append(one)
        writer.finalize({}, "done")
    return path


@pytest.fixture
def five(tmp_path):
    return file_of(tmp_path / "a.h5", [tracks_of(n, [0, 1, 2]) for n in range(5)])


def test_two_files_of_the_same_rows_are_identical_whenever_and_wherever_they_were_made(tmp_path, five):
    later = file_of(tmp_path / "b.h5", [tracks_of(n, [0, 1, 2]) for n in range(5)], user="somebody else")
    found = compare(five, later)
    assert found == liveptv.compare(five, str(later))
    assert found["identical_rows"]
    assert found["detections"]["same"] == 15
    assert found["tracks"]["same"] == 3
    assert ("rows", "identical rows") in in_words(found)


def test_what_neither_file_knows_is_no_difference(tmp_path):
    a, b = (file_of(tmp_path / name, [tracks_of(0, [0])], frame_rate_hz=np.nan) for name in ("a.h5", "b.h5"))
    assert compare(a, b)["source"] == {}


def test_a_file_without_decisions_has_not_decided_otherwise(tmp_path, five):
    frames = [tracks_of(n, [0, 1, 2]) for n in range(5)]
    made = Decisions(predicted_from=3, fit=FitDecision.WHOLE)
    decided = [replace(one, info=replace(one.info, decisions=made)) for one in frames]
    imported, run = five, file_of(tmp_path / "b.h5", decided)
    assert compare(imported, run)["frames"]["other_decisions"] == 0
    assert compare(run, run)["frames"]["other_decisions"] == 0


def test_a_person_is_shown_names_of_files_and_not_their_hashes(tmp_path):
    a, b = (
        file_of(tmp_path / name, [tracks_of(0, [0])], model={"file": model, "sha256": model * 32})
        for name, model in (("a.h5", "m1"), ("b.h5", "m2"))
    )
    found = compare(a, b)
    assert [line for name, line in in_words(found) if name == "model"] == ["file: m1 in A, m2 in B"]
    assert set(found["model"]) == {"file", "sha256"}


def test_a_section_that_one_file_has_is_one_line_for_a_person(tmp_path):
    live = {"microscope": {"config": "scope.cfg", "read_hz": 20.0, "pump": None}, "recording": None}
    replay = {"microscope": None, "recording": {"path": "x.tif", "pace": False, "axes": "TYX"}}
    a, b = (
        file_of(tmp_path / name, [tracks_of(0, [0])], configuration=made)
        for name, made in (("a.h5", live), ("b.h5", replay))
    )
    said = [line for name, line in in_words(compare(a, b)) if name == "settings"]
    assert said == ["microscope: only in A", "recording: only in B"]


def test_a_single_digit_makes_rows_different(tmp_path, five):
    frames = [tracks_of(n, [0, 1, 2]) for n in range(5)]
    frames[3] = tracks_of(3, [0, 1, 2], [0.0, SPACING_UM, 2 * SPACING_UM + 0.001])
    found = compare(five, file_of(tmp_path / "b.h5", frames))
    assert not found["identical_rows"]
    assert found["detections"]["same"] == 14
    assert found["detections"]["moved"]["greatest_um"] == pytest.approx(0.001, rel=0.2)
    assert found["tracks"]["same"] == 3


def test_a_split_and_a_joined_track_and_their_links_are_counted(tmp_path, five):
    other = [[0, 1, 2]] * 2 + [[0, 1, 3]] * 3
    found = compare(five, file_of(tmp_path / "b.h5", [tracks_of(n, names) for n, names in enumerate(other)]))
    tracks = found["tracks"]
    assert (tracks["a"], tracks["b"], tracks["same"], tracks["split"], tracks["joined"]) == (3, 4, 2, 1, 0)
    assert (tracks["links_a"], tracks["shared_links"], tracks["other_links_a"]) == (12, 12, 1)
    back = compare(tmp_path / "b.h5", five)["tracks"]
    assert (back["split"], back["joined"], back["other_links_b"]) == (0, 1, 1)


def test_two_tracks_that_have_changed_places_are_two_other_links(tmp_path, five):
    other = [[0, 1, 2]] * 3 + [[1, 0, 2]] * 2
    tracks = compare(
        five, file_of(tmp_path / "b.h5", [tracks_of(n, names) for n, names in enumerate(other)])
    )["tracks"]
    assert (tracks["same"], tracks["split"], tracks["joined"], tracks["other_links_a"]) == (1, 2, 2, 2)


def test_missing_frames_and_detections_are_told_apart_and_predicted_rows_are_none(tmp_path, five):
    frames = [tracks_of(n, [0, 1, 2], flags=[0, 0, TrackFlag.PREDICTED]) for n in (0, 1, 4)]
    found = compare(five, file_of(tmp_path / "b.h5", frames))
    assert found["frames"] == {"common": 3, "only_a": 2, "only_b": 0, "other_decisions": 0}
    assert (found["detections"]["same"], found["detections"]["only_a"], found["detections"]["only_b"]) == (
        6,
        9,
        0,
    )


def test_settings_model_versions_and_commands_are_named(tmp_path):
    frames = [tracks_of(0, [0])]
    one = file_of(
        tmp_path / "a.h5", frames, configuration={"tracker": {"max_gap_frames": 2}}, model={"sha256": "1"}
    )
    two = file_of(
        tmp_path / "b.h5", frames, configuration={"tracker": {"max_gap_frames": 3}}, model={"sha256": "2"}
    )
    command = {
        "wall_s": 1.0,
        "kind": "command",
        "text": "",
        "command": "set_flow",
        "value": 0.1,
        "decided_on_frame": 7,
    }
    store_control(one, [command])
    store_control(two, [{**command, "wall_s": 2.0, "value": 0.2}])
    found = compare(one, two)
    assert found["settings"] == {"tracker.max_gap_frames": [2, 3]}
    assert found["model"] == {"sha256": ["1", "2"]}
    assert found["commands"] == {"a": 1, "b": 1, "same": 0, "first_difference": 7}
    assert ("settings", "tracker.max_gap_frames: 2 in A, 3 in B") in in_words(found)


def test_long_files_are_compared_in_pieces_with_the_same_result(tmp_path, five, monkeypatch):
    other = [[0, 1, 2]] * 2 + [[0, 1, 3]] * 3
    second = file_of(tmp_path / "b.h5", [tracks_of(n, names) for n, names in enumerate(other)])
    at_once = compare(five, second)
    monkeypatch.setattr(comparison, "ROWS_AT_A_TIME", 2)
    assert compare(five, second) == at_once


def test_the_exit_status_is_that_of_identity_only_where_it_is_asked_for(tmp_path, five, capsys):
    second = file_of(tmp_path / "b.h5", [tracks_of(0, [0])])
    assert run_command_line(["compare", str(five), str(second)]) == 0
    assert run_command_line(["compare", str(five), str(second), "--must-be-identical"]) == 1
    assert run_command_line(["compare", str(five), str(five), "--must-be-identical"]) == 0
    capsys.readouterr()
    assert run_command_line(["compare", str(five), str(five), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical_rows"] is True


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 100), st.floats(0, 100)), max_size=30),
    st.floats(0.01, 5),
)
@settings(max_examples=60, deadline=None)
def test_a_pair_is_of_one_frame_near_each_other_and_nobody_has_two_partners(places, within_um):
    rows = np.zeros(len(places), ROW)
    for n, (frame, x, y) in enumerate(places):
        rows["frame"][n], rows["x_um"][n], rows["y_um"][n] = frame, x, y
    rows["z_um"] = np.nan
    rows = rows[np.argsort(rows["frame"], kind="stable")]
    moved = rows[::2].copy()
    moved["x_um"] += 0.3 * within_um
    at, other = pairs_of(rows, moved, within_um)
    assert len(set(at.tolist())) == len(at)
    assert len(set(other.tolist())) == len(other)
    assert (rows["frame"][at] == moved["frame"][other]).all()
    assert (
        np.hypot(rows["x_um"][at] - moved["x_um"][other], rows["y_um"][at] - moved["y_um"][other])
        <= within_um
    ).all()


def test_quantiles_of_moves_need_no_more_memory_than_bins():
    moves = Moves()
    for part in np.array_split(np.geomspace(1e-3, 1.0, 10_001), 7):
        moves.add(part)
    assert moves.quantile_um(0.5) == pytest.approx(10**-1.5, rel=0.07)
    assert moves.greatest_um == 1.0
