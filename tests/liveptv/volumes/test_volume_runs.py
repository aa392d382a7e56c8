"""Runs with volumes: from a source to file, report, recording and replay; what happens where slices are missing."""

import numpy as np
import pytest
from made_volumes import (
    PIXEL_UM,
    SHAPE,
    SIGMA_PX,
    SIGMA_Z,
    Z_STEP_UM,
    drawn,
    truth_um,
    volumes_in_place_of_the_microscope,
)
from scipy.spatial import cKDTree
from small_run import Run

from engines.settings import DetectorSettings
from engines.volumes.detector import VolumeDetector, Voxel
from engines.volumes.psf import VolumePsf
from liveptv.cli.live import _facts
from liveptv.comparing.comparison import compare
from liveptv.config import build_experiment
from liveptv.reports.look import paper
from liveptv.reports.volume_figure import volume_figure
from liveptv.workflows.retrack import retrack, settings_for
from stream.messages import Detections, TrackFlag
from tracking.trajectories.file import TrajectoryFile, read_trajectories
from tracking.trajectories.snapshot import read_snapshot

SPOT_UM = [SIGMA_PX * PIXEL_UM, SIGMA_PX * PIXEL_UM, SIGMA_Z * Z_STEP_UM]
MISSING = {5: (2,), 9: (0, 3)}


def experiment(folder, frames=40, **sections):
    data = {
        "run": {"frames": frames, "output": str(folder / "tracks.h5")},
        "microscope": {"config": "simulated"},
        "detector": {"spot_um": SPOT_UM, "workers": 1},
        "session": {"mode": "threads", "monitor_hz": 10.0},
        "link": {"transport": "inproc", "policy": "block"},
    }
    for name, section in sections.items():
        data[name] = {**data.get(name, {}), **section}
    return build_experiment(data, "the test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 40 made volumes in which all images are kept; slices of two of them are missing."""
    folder = tmp_path_factory.mktemp("made")
    with volumes_in_place_of_the_microscope(40, missing=MISSING):
        run = Run(experiment(folder, record={"mode": "all"}))
    assert run.result.ok, run.result.failures
    return folder, run


def off_by_um(tracks):
    """Distance of each measured position from the nearest true one, um."""
    found = np.column_stack([tracks.x_um, tracks.y_um, tracks.z_um])
    return np.array(
        [cKDTree(truth_um(t)).query(place)[0] for t, place in zip(tracks.time_s, found, strict=True)]
    )


def test_particles_in_volumes_are_found_and_tracked_in_3d(made):
    folder, _ = made
    tracks = read_trajectories(folder / "tracks.h5")
    off_um = off_by_um(tracks)
    particles = len(truth_um(0.0))
    assert len(tracks) > 0.95 * 40 * particles
    assert np.median(off_um) < 0.25 * PIXEL_UM
    assert np.unique(tracks.track).size <= 1.2 * particles
    assert np.median(tracks.vx_um_s[tracks.frame > 20]) == pytest.approx(1.0, abs=0.2)


def test_the_file_says_what_a_voxel_is_and_which_volumes_were_partial(made):
    folder, run = made
    with TrajectoryFile(folder / "tracks.h5") as file:
        frames, attributes = file.frames, file.attributes
    assert attributes["volume"] == {
        "slices": SHAPE[0], "z_step_um": Z_STEP_UM, "voxel_size_um": [Z_STEP_UM, PIXEL_UM, PIXEL_UM],
        "whole": 38, "partial": 2, "slices_lost": 3,
    }  # fmt: skip
    assert attributes["image_shape"] == list(SHAPE[1:])
    partial = {
        number: int(n) for number, n in zip(frames["frame"], frames["slices"], strict=True) if n < SHAPE[0]
    }
    assert partial == {5: 5, 9: 4}
    assert frames["upwards"].tolist() == [1, 0] * 20
    said = dict(_facts(run.outcome))
    assert said["of these"] == "38 whole, 2 partial (3 slices without an image)"
    assert said["volumes lost"] == "none"


def test_the_report_shows_a_volume_from_three_sides(made):
    folder, _ = made
    snapshot = read_snapshot(folder / "tracks.h5")
    assert snapshot.sides is not None
    assert snapshot.image.shape == SHAPE[1:]
    assert snapshot.sides.z_um == pytest.approx((-0.2, 2.2))
    with paper():
        axes = volume_figure(snapshot, PIXEL_UM).axes
    assert [each.get_xlabel() or each.get_ylabel() for each in axes] == ["y (µm)", "x (µm)", "z (µm)"]
    page = (folder / "tracks.report.html").read_text(encoding="utf-8")
    assert "Maximum projections of one volume" in page
    assert "6 slices, 0.4 µm apart" in page


def test_a_replay_of_the_recorded_volumes_gives_the_same_rows(made, tmp_path):
    folder, _ = made
    again = build_experiment(
        {
            "run": {"output": str(tmp_path / "again.h5")},
            "recording": {"path": str(folder / "tracks.frames.ome.zarr")},
            "detector": {"spot_um": SPOT_UM, "workers": 1},
            "session": {"mode": "threads"},
            "link": {"transport": "inproc"},
        },
        "the test",
    )
    assert Run(again).result.ok
    before, after = (read_trajectories(path) for path in (folder / "tracks.h5", tmp_path / "again.h5"))
    for name in ("frame", "track", "x_um", "y_um", "z_um", "sigma_z_um", "time_offset_s"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    assert after.attributes["volume"] == before.attributes["volume"]
    assert after.frames["slices"].tolist() == before.frames["slices"].tolist()


def test_the_tracks_of_a_run_with_volumes_can_be_made_again_without_the_images(made, tmp_path):
    folder, _ = made
    first, second = folder / "tracks.h5", tmp_path / "again.h5"
    chosen, said = settings_for(first, [f"run.output={second.as_posix()}"]), []
    retrack(first, chosen, caution=said.append)
    assert compare(first, second)["identical_rows"]
    assert not said
    with TrajectoryFile(second) as file:
        volumes = list(file.volumes(file.frames))
    assert {number: v.missing for number, v in enumerate(volumes) if v.missing} == MISSING
    assert all(volume.time_s for volume in volumes)


def test_settings_that_were_written_down_find_the_same_doubtful_particles():
    """A run's file holds all settings, those left out too: a replay must not take them for given."""
    settings = DetectorSettings(spot_um=SPOT_UM, workers=1)
    read_back = DetectorSettings.model_validate(settings.model_dump(mode="json"))
    rng = np.random.default_rng(4)
    image = drawn([], 0).astype(float)
    z, y, x = (np.arange(float(size)) for size in SHAPE)
    for at in rng.uniform(0, SHAPE, (60, 3)):
        along = [
            np.exp(-0.5 * ((axis - c) / sigma) ** 2)
            for axis, c, sigma in zip((z, y, x), at, (SIGMA_Z, SIGMA_PX, SIGMA_PX), strict=True)
        ]
        image += rng.poisson(8.0 * along[0][:, None, None] * along[1][:, None] * along[2])
    volume = image.astype(np.uint16)
    found = []
    for each in (settings, read_back):
        voxel = Voxel(Z_STEP_UM, PIXEL_UM)
        detector = VolumeDetector(VolumePsf.gaussian(*SPOT_UM, voxel.zyx_um), voxel, each)
        heights_um = Z_STEP_UM * np.arange(float(SHAPE[0]))
        found.append(detector.detect(volume, np.zeros(SHAPE[0], bool), heights_um, np.zeros(SHAPE[0]))[0])
    confidence = found[0][Detections.COLUMNS.index("confidence")]
    assert ((confidence > 0.25) & (confidence < 0.5)).any()
    np.testing.assert_array_equal(found[1], found[0])


@pytest.mark.parametrize(("mode", "transport"), [("processes", "shm"), ("processes", "tcp")])
def test_volumes_pass_between_processes(tmp_path, mode, transport, made):
    folder, _ = made
    again = build_experiment(
        {
            "run": {"output": str(tmp_path / "again.h5"), "frames": 10},
            "recording": {"path": str(folder / "tracks.frames.ome.zarr")},
            "detector": {"spot_um": SPOT_UM, "workers": 1},
            "session": {"mode": mode},
            "link": {"transport": transport},
        },
        "the test",
    )
    assert Run(again).result.ok
    before, after = (read_trajectories(path) for path in (folder / "tracks.h5", tmp_path / "again.h5"))
    first = before.frame < 10
    assert after.frames["slices"].tolist() == [6] * 5 + [5] + [6] * 3 + [4]
    np.testing.assert_array_equal(after.x_um, before.x_um[first])


def test_live_volumes_that_are_too_many_are_left_out_by_declaration(tmp_path):
    with volumes_in_place_of_the_microscope(400, rate_hz=400.0):
        run = Run(experiment(tmp_path, frames=200, link={"policy": "live"}))
    assert run.result.ok, run.result.failures
    account = run.outcome.account
    assert account.exposed == run.result.count("acquire", "received") == 200
    assert account.in_file + account.total_lost == 200


def test_a_replay_of_volumes_without_time_for_the_fit_gives_the_same_rows(tmp_path):
    live = tmp_path / "live"
    live.mkdir()
    with volumes_in_place_of_the_microscope(400, rate_hz=400.0):
        run = Run(experiment(live, frames=60, link={"policy": "live"}, record={"mode": "all"}))
    assert run.result.ok, run.result.failures
    again = build_experiment(
        {
            "run": {"output": str(tmp_path / "again.h5")},
            "recording": {"path": str(live / "tracks.frames.ome.zarr")},
            "detector": {"spot_um": SPOT_UM, "workers": 1},
            "session": {"mode": "threads"},
            "link": {"transport": "inproc"},
        },
        "the test",
    )
    assert Run(again).result.ok
    before, after = (read_trajectories(path) for path in (live / "tracks.h5", tmp_path / "again.h5"))
    assert (before.flags & TrackFlag.REDUCED).any()
    assert run.result.count("detect", "reduced") > 0
    for name in ("frame", "track", "x_um", "y_um", "z_um", "sigma_z_um", "flags"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
