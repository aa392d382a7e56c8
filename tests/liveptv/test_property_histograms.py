"""How properties of particles are distributed, in the report and on the live page."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from page_runs import card_of, messages_of

from liveptv.monitor.run_view import RunView
from liveptv.reports.distributions import distributions
from liveptv.reports.profile import flow_profile
from liveptv.reports.property_results import histogram_of, of_tracks
from stream.messages import FrameInfo, Properties, TrackFlag, Tracks
from tracking.trajectories.file import TrajectoryWriter, read_trajectories


def test_each_track_counts_once_with_its_last_mean(tmp_path):
    path = tmp_path / "tracks.h5"
    with TrajectoryWriter(path, run_id="run", attributes={"pixel_size_um": 0.5}) as writer:
        for frame in range(6):
            info = FrameInfo("run", frame, frame, 0.1 * frame, 0, 0.0)
            number = np.arange(8)
            rows = Tracks.from_columns(
                info, track=number, x_um=number, y_um=1.0, z_um=0.5, flags=0, detection=number,
                vx_um_s=0.0, vy_um_s=0.0, vz_um_s=0.0,
            )  # fmt: skip
            value = 1.0 + number + (0.5 if frame < 5 else 0.0)
            known = Properties.from_columns({"radius_um": value, "sigma_radius_um": 0.25}, 8)
            writer.append(replace(rows, properties=known, detected=known))
        writer.finalize({}, "done")
    trajectories = read_trajectories(path)
    (found,) = of_tracks(trajectories)
    assert (found.tracks, found.middle, found.error) == (8, 4.5, 0.25)
    assert found.counts.sum() == 8
    assert found.unit == "µm"
    (drawn,) = distributions(trajectories, flow_profile(trajectories))["property"]
    assert drawn.title.startswith("radius_um: 4.5 in the middle")
    assert "standard error of one 0.25 (µm)" in drawn.title


@pytest.mark.parametrize("values", [[], [1.0] * 4, [np.nan] * 9])
def test_too_few_values_make_no_histogram(values):
    assert histogram_of("radius_um", np.array(values), np.zeros(len(values))) is None


def test_equal_values_and_wrong_ones_can_be_drawn():
    same = histogram_of("n", np.full(9, 1.5), np.full(9, np.nan))
    assert same is not None
    assert (np.diff(same.edges) > 0).all()
    assert "without stated errors" in same.in_words()
    wrong = histogram_of("n", np.append(np.linspace(1.0, 2.0, 500), 1e6), np.full(501, 0.1))
    assert wrong is not None
    assert wrong.edges[-1] < 3.0
    assert wrong.counts.sum() == 501


def test_the_page_gets_the_properties_of_confirmed_tracks_that_are_alive():
    view = RunView()
    view.introduce(card_of())
    _, _, tracks = messages_of(3)
    count = len(tracks)
    assert view.summary()["properties"] == []
    known = Properties.from_columns(
        {"radius_um": np.linspace(0.1, 0.8, count), "sigma_radius_um": 0.05}, count
    )
    flags = np.where(np.arange(count) == 0, float(TrackFlag.TENTATIVE), 0.0)
    table = np.array(tracks.table)
    table[Tracks.COLUMNS.index("flags")] = flags
    view.take(replace(tracks, table=table, properties=known, detected=known))
    (facts,) = json.loads(json.dumps(view.summary()["properties"]))
    assert facts["name"] == "radius_um"
    assert facts["tracks"] == sum(facts["counts"]) == count - 1
