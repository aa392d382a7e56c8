"""Diffusion of a trajectory file: `liveptv diffusion`, the report, Python, and the live page's number."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import liveptv
from liveptv.cli.main import run_command_line
from liveptv.files import RunFiles
from liveptv.monitor.run_view import RunView
from liveptv.reports.page import write_report
from liveptv.session.run_card import RunCard
from stream.errors import ConfigurationError, SourceError
from stream.messages import FrameInfo, Tracks
from tracking.physics.diffusion.stokes_einstein import diffusion_um2_s
from tracking.physics.live.running_diffusion import RunningDiffusion
from tracking.trajectories.file import TrajectoryWriter

CELSIUS, VISCOSITY, DIAMETER = 20.0, 1.0016, 1.0
D = diffusion_um2_s(CELSIUS, VISCOSITY, DIAMETER)
RATE = 25.0


def messages(tracks=150, frames=40, seed=1, missing=0.03, **info):
    """Frames of particles between two walls 60 um apart, that drift along x."""
    rng = np.random.default_rng(seed)
    at = np.stack([rng.uniform(0, 100, tracks), rng.uniform(0, 100, tracks), rng.uniform(5, 55, tracks)])
    for frame in range(frames):
        at = at + np.sqrt(2 * D / RATE) * rng.normal(size=at.shape)
        at[0] += 5.0 / RATE
        seen = rng.random(tracks) >= missing
        x, y, z = (at + 0.03 * rng.normal(size=at.shape))[:, seen]
        of_frame = FrameInfo("run", frame, frame, frame / RATE, 0, 1e9 + frame / RATE, **info)
        columns = {"x_um": x, "y_um": y, "z_um": z, "age_frames": np.full(x.size, frame)}
        yield Tracks.from_columns(
            of_frame, track=np.flatnonzero(seen), detection=np.arange(x.size), **columns
        )


def file_of(path, frames, **attributes):
    attributes = {"pixel_size_um": 1.0, "refraction_factor": 1.0, "image_shape": [100, 100], **attributes}
    with TrajectoryWriter(path, run_id=path.stem, attributes=attributes) as writer:
        for one in frames:
            writer.append(one)
        writer.finalize({}, "done")
    return path


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    channel = {"width_um": 100.0, "depth_um": 60.0, "floor_um": 0.0}
    known = {"temperature_c": CELSIUS, "particle_diameter_um": DIAMETER}
    folder = tmp_path_factory.mktemp("diffusion")
    settings = {"channel": channel, "diffusion": known}
    return file_of(folder / "a.h5", messages(exposure_ms=0.01), configuration=settings)


def test_the_command_finds_d_and_the_viscosity_from_what_the_file_knows(tracks, capsys):
    assert run_command_line(["diffusion", str(tracks), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["um2_s"] == pytest.approx(D, abs=4 * found["standard_error_um2_s"])
    assert [axis["axis"] for axis in found["axes"]] == ["x", "y", "z"]
    viscosity = found["viscosity"]
    assert viscosity["unit"] == "mPa s"
    assert viscosity["value"] == pytest.approx(VISCOSITY, abs=4 * viscosity["standard_error"])
    assert 0.9 < found["far_from_walls"]["mean_factor"] < 1
    assert len(found["kinds"]) == 1
    assert sum(one["displacements"] for one in found["map"]) == pytest.approx(
        found["displacements"], rel=0.02
    )


def test_the_command_prints_words_and_writes_tables(tracks, tmp_path, capsys):
    table, msd = tmp_path / "d.csv", tmp_path / "msd.csv"
    arguments = ["diffusion", str(tracks), "-o", str(table), "--msd", str(msd)]
    assert run_command_line(arguments) == 0
    text = capsys.readouterr().out
    for words in (
        "µm²/s",
        "viscosity",
        "all tracks diffuse alike",
        "exponent",
        "displacements of 150 tracks",
    ):
        assert words in text
    by_track = pd.read_csv(table)
    assert len(by_track) == 150
    assert by_track.um2_s.mean() == pytest.approx(D, rel=0.1)
    curve = pd.read_csv(msd)
    assert curve.y_um2[0] == pytest.approx(2 * D / RATE + 2 * 0.03**2, rel=0.1)
    assert run_command_line(arguments) == 1
    assert "exists" in capsys.readouterr().err
    assert run_command_line([*arguments, "--overwrite"]) == 0


def test_options_take_the_place_of_the_files_settings(tmp_path, capsys):
    bare = file_of(tmp_path / "b.h5", messages(frames=25))
    assert run_command_line(["diffusion", str(bare), "--temperature", "20", "--water", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["diameter"]
    assert found["value"] == pytest.approx(DIAMETER, abs=4 * found["standard_error"])
    given = ["--temperature", "20", "--viscosity", "1", "--diameter", "1"]
    assert run_command_line(["diffusion", str(bare), *given]) == 2
    assert "leave out the one to find" in capsys.readouterr().err
    assert run_command_line(["diffusion", str(bare), "-o", str(tmp_path / "d.txt")]) == 2
    assert "not .csv" in capsys.readouterr().err


def test_from_python_there_are_tables(tracks):
    found = liveptv.diffusion(tracks)
    assert found.um2_s == pytest.approx(D, abs=4 * found.standard_error_um2_s)
    assert list(found.axes().axis) == ["x", "y", "z"]
    assert len(found.tracks()) == 150
    assert found.map().height_um.between(0, 60).all()
    alpha, error = found.msd(lags=10).attrs["exponents"]["all"]
    assert alpha == pytest.approx(1.0, abs=4 * error)
    assert found.msd(track=3).pairs.max() < 40
    assert "µm²/s" in repr(found)
    with pytest.raises(ConfigurationError, match="no rows of track 999"):
        found.msd(track=999)


def test_a_file_without_displacements_has_no_diffusion(tmp_path):
    path = file_of(tmp_path / "one.h5", messages(frames=1))
    with pytest.raises(SourceError, match="no diffusion to measure"):
        liveptv.diffusion(path)
    report = write_report(RunFiles.beside(path)).page.read_text(encoding="utf-8")
    assert "<h2>Diffusion" not in report


def test_the_report_has_a_section_on_diffusion(tracks):
    report = write_report(RunFiles.beside(tracks))
    page = report.page.read_text(encoding="utf-8")
    assert "<h2>Diffusion" in page
    assert "all tracks diffuse alike" in page
    assert "mPa s" in page
    assert RunFiles.beside(tracks).figure("diffusion") in report.figures


@pytest.mark.parametrize("tracks_in_view", [20, 600])
def test_d_on_the_live_page_is_that_of_the_particles(tracks_in_view):
    found = []
    for seed in range(5):
        running = RunningDiffusion()
        assert running.facts()["um2_s"] is None
        for message in messages(tracks_in_view, 200, seed, missing=0.02):
            running.update(message)
        facts = running.facts()
        found.append([(one["um2_s"] - D) / one["error_um2_s"] for one in facts["axes"]])
    assert facts["displacements"] > 500
    assert np.abs(np.mean(found)) < 4 / np.sqrt(15)
    assert 0.4 < np.std(found) < 1.8


def test_without_depth_the_live_page_has_two_axes():
    running = RunningDiffusion()
    for message in messages(50, 60):
        flat = Tracks.from_columns(
            message.info,
            track=message.track,
            detection=message.detection,
            x_um=message.x_um,
            y_um=message.y_um,
        )
        running.update(flat)
    facts = running.facts()
    assert [one["axis"] for one in facts["axes"]] == ["x", "y"]
    assert facts["um2_s"] == pytest.approx(D, abs=5 * facts["error_um2_s"])


def test_a_map_is_made_of_it_where_something_is_known_of_the_liquid(tracks):
    files = RunFiles.beside(tracks)
    report = write_report(files)
    assert files.figure("diffusion-map") in report.figures
    assert "D over the image" in report.page.read_text(encoding="utf-8")
    for known, shown in (({"particle_diameter_um": 1.0}, True), ({}, False)):
        view = RunView()
        view.introduce(RunCard("r", 1, 0.0, "t.h5", "e", "s", "c", configuration={"diffusion": known}))
        for message in messages(150, 60):
            view.take(message)
        assert ("map" in view.summary()["diffusion"]) is shown


def test_the_page_is_sent_the_number():
    view = RunView()
    assert view.summary()["diffusion"]["um2_s"] is None
    for message in messages(40, 60):
        view.take(message)
    assert view.summary()["diffusion"]["um2_s"] == pytest.approx(D, rel=0.3)
