"""Trajectories for the Rerun viewer, where its package is installed."""

import sys

import numpy as np
import pytest
from trajectory_files import tracks, write

from stream.errors import ConfigurationError
from tracking.export import export
from tracking.export.rerun_recording import positions_um
from tracking.trajectories.file import read_trajectories


@pytest.fixture
def path(tmp_path):
    frames = [tracks(frame, 3, [0, 0, 0], z_um=5.0 + frame, vx_um_s=100.0) for frame in range(4)]
    return write(tmp_path / "tracks.h5", frames)


def test_a_rerun_recording_has_every_particle_at_its_frame_and_every_track(path, monkeypatch):
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    pytest.importorskip("rerun")
    from rerun.chunk import RrdReader

    output = path.with_suffix(".rrd")
    assert export(path, output, to="rerun").rows == 12
    chunks = {chunk.entity_path: chunk.to_record_batch() for chunk in RrdReader(str(output)).stream()}
    particles = chunks["/particles"].to_pydict()
    assert particles["frame"] == [0, 1, 2, 3]
    trajectories = read_trajectories(path)
    expected = positions_um(trajectories).reshape(4, 3, 3)
    np.testing.assert_allclose(particles["Points3D:positions"], expected, rtol=1e-6)
    strips = chunks["/tracks"].to_pydict()["LineStrips3D:strips"][0]
    assert [len(strip) for strip in strips] == [4, 4, 4]
    assert chunks["/count"].num_rows == 4


def test_a_run_without_a_single_row_is_an_empty_recording(tmp_path, monkeypatch):
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    pytest.importorskip("rerun")
    path = write(tmp_path / "tracks.h5", [tracks(frame, 0) for frame in range(3)])
    export(path, path.with_suffix(".rrd"))
    assert path.with_suffix(".rrd").stat().st_size > 0


def test_without_the_package_it_is_said_how_to_get_it(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ConfigurationError, match=r"liveptv\[viewer\]"):
        export(path, path.with_suffix(".rrd"))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_unknown_program_is_refused_with_those_that_are_known(path):
    with pytest.raises(ConfigurationError, match="rerun"):
        export(path, path.with_suffix(".x"), to="paintbrush")
