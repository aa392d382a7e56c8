import json

import h5py
import numpy as np
import pandas
import pytest

from liveptv.cli import run_command_line
from liveptv.track_scores import read_points, score_trajectories
from stream.errors import ConfigurationError, SourceError
from stream.messages import FrameInfo, Tracks
from tracking.export import export
from tracking.trajectories.file import TrajectoryWriter


@pytest.fixture
def truth(tmp_path):
    """Ten particles on parallel paths over twenty frames, as the simulated camera writes them."""
    frame, particle = (a.ravel() for a in np.meshgrid(np.arange(20), np.arange(10), indexing="ij"))
    table = pandas.DataFrame(
        {"frame": frame, "particle": particle, "x_um": 1.0 * frame, "y_um": 30.0 * particle, "z_um": 5.0}
    )
    path = tmp_path / "truth.csv"
    table.to_csv(path, index=False)
    return path


def found_file(path, broken: bool = False):
    """The same as a trajectory file; broken, one trajectory gets a new number half-way."""
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        for frame in range(20):
            track = np.arange(10)
            if broken and frame >= 10:
                track[0] = 10
            info = FrameInfo("run", frame, frame, frame / 10, 0, 0.0)
            order = np.argsort(track)
            writer.append(
                Tracks.from_columns(
                    info,
                    track=track[order],
                    x_um=1.0 * frame,
                    y_um=30.0 * np.arange(10)[order],
                    z_um=5.5,
                    detection=0.0,
                    flags=0.0,
                )
            )
        writer.finalize({}, "done")
    return path


def evaluate(capsys, truth, found) -> dict:
    assert run_command_line(["evaluate", "--truth", str(truth), "--found", str(found), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_trajectory_file_is_scored_against_the_truth(tmp_path, capsys, truth):
    scores = evaluate(capsys, truth, found_file(tmp_path / "tracks.h5"))
    assert scores["missed"] == scores["false"] == 0
    tracks = scores["tracks"]
    assert tracks["alpha"] == pytest.approx(1 - 0.5 / 30)
    assert (tracks["jsc"], tracks["jsc_tracks"], tracks["f1"], tracks["fragments"]) == (1, 1, 1, 1)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_broken_trajectory_costs_a_link_and_shows_as_a_fragment_in_any_format(
    tmp_path, capsys, truth, suffix
):
    tracks = found_file(tmp_path / "tracks.h5", broken=True)
    scores = evaluate(capsys, truth, export(tracks, tmp_path / f"tracks.{suffix}").output)["tracks"]
    assert (scores["true_links"], scores["found_links"], scores["wrong_links"]) == (190, 189, 0)
    assert scores["fragments"] == pytest.approx(1.1)
    assert scores["jsc_tracks"] == pytest.approx(10 / 11)


def test_the_scores_are_said_in_words(tmp_path, capsys, truth):
    found = found_file(tmp_path / "tracks.h5")
    assert run_command_line(["evaluate", "--truth", str(truth), "--found", str(found)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "10 true trajectories, 10 found: alpha 0.983" in said
    assert "precision 1.0000" in said


def test_without_trajectories_only_detections_are_scored(tmp_path, capsys, truth):
    pandas.read_csv(truth).drop(columns="particle").to_csv(tmp_path / "found.csv", index=False)
    assert "tracks" not in evaluate(capsys, truth, tmp_path / "found.csv")


def test_columns_of_an_hdf5_table_are_read_too(tmp_path, truth):
    table = pandas.read_csv(truth)
    with h5py.File(tmp_path / "table.h5", "w") as file:
        for name in table:
            file[name] = table[name].to_numpy()
    points = read_points(tmp_path / "table.h5")
    scores = score_trajectories(points, read_points(truth), 4.0, 30.0)
    assert scores.tracks.alpha == pytest.approx(1.0)
    assert scores.to_dict()["rmse"] == 0.0


def test_points_without_a_number_are_refused(tmp_path, truth):
    table = pandas.read_csv(truth).astype({"particle": float})
    table.loc[3, "particle"] = np.nan
    table.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(SourceError, match="rows without a track number"):
        read_points(tmp_path / "table.parquet")


def test_two_points_of_a_trajectory_in_one_frame_are_refused(tmp_path, truth):
    table = pandas.read_csv(truth)
    table.loc[1, "particle"] = 0
    table.to_csv(tmp_path / "twice.csv", index=False)
    points = read_points(tmp_path / "twice.csv")
    with pytest.raises(ConfigurationError, match="two points in frame 0"):
        score_trajectories(points, points, 4.0, None)


def test_a_recovered_file_is_packed_as_well(tmp_path, capsys):
    path = tmp_path / "tracks.h5"
    found_file(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["end_reason"]
    assert run_command_line(["recover", str(path)]) == 0
    assert "is repaired: 20 frames, 200 rows" in " ".join(capsys.readouterr().out.split())
    with h5py.File(path) as file:
        assert "VTKHDF" in file
