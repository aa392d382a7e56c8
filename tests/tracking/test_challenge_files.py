"""Files of the Particle Tracking Challenge are read, recognised, written and read again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_damaged_imports import TRIES, damaged
from trajectory_files import tracks, write

from liveptv.workflows.interchange import convert
from stream.errors import SourceError
from tracking.imports import Assumed, read_foreign, recognise
from tracking.imports.challenge import is_challenge, read_tracks
from tracking.trajectories.file import read_trajectories

TRUTH = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<root>
<TrackContestISBI2012 SNR="7" density="low" generationDateTime="Thu Jan 05 2012" scenario="VIRUS">
<particle>
<detection t="0" x="10.5" y="20.25" z="3.5"/>
<detection t="1" x="11.5" y="21.25" z="4.5"/>
</particle>
<particle>
<detection t="1" x="100" y="200" z="0"/>
</particle>
</TrackContestISBI2012>
</root>
"""
BARE = (
    '<TrackContestISBI2012 snr="4"><particle><detection t="3" x="1" y="2"/></particle></TrackContestISBI2012>'
)


def written(folder, text=TRUTH, name="VIRUS snr 7 density low.xml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_each_particle_is_a_track_in_pixels_and_slices(tmp_path):
    found = read_tracks(written(tmp_path))
    assert found.track.tolist() == [0, 0, 1]
    assert found.frame.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(found.position, [[10.5, 20.25, 3.5], [11.5, 21.25, 4.5], [100, 200, 0]])
    assert found.facts == {"snr": "7", "density": "low", "scenario": "VIRUS"}
    assert found.has_depth


def test_a_file_without_an_outer_element_and_without_z_is_of_images(tmp_path):
    path = written(tmp_path, BARE)
    assert is_challenge(path)
    assert not read_tracks(path).has_depth
    imported = read_foreign(path, recognise(path), Assumed(length_um=0.1))
    assert np.isnan(imported.columns["z_um"]).all()
    assert not imported.remarks


def test_it_is_recognised_and_imported_in_um(tmp_path):
    path, output, said = written(tmp_path), tmp_path / "out.h5", []
    convert(path, output, pixel_size_um=0.1, say=said.append)
    found = read_trajectories(output)
    assert found.track.tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.x_um, [1.05, 1.15, 10.0], atol=1e-3)
    np.testing.assert_allclose(found.z_um, [0.35, 0.45, 0.0], atol=2e-3)
    assert any("slices" in line for line in said)


def test_the_size_of_a_pixel_is_asked_for(tmp_path):
    path = written(tmp_path)
    with pytest.raises(SourceError, match="--pixel-size"):
        read_foreign(path, recognise(path), Assumed())


def test_what_was_imported_is_written_as_it_was(tmp_path):
    path = written(tmp_path)
    convert(path, tmp_path / "one.h5", pixel_size_um=0.1)
    convert(tmp_path / "one.h5", tmp_path / "two.xml", to="challenge")
    again, first = read_tracks(tmp_path / "two.xml"), read_tracks(path)
    assert again.facts == first.facts
    np.testing.assert_array_equal(again.track, first.track)
    np.testing.assert_array_equal(again.frame, first.frame)
    np.testing.assert_allclose(again.position, first.position, atol=0.02)


def test_without_the_size_of_a_pixel_nothing_is_written(tmp_path):
    path = write(tmp_path / "tracks.h5", [tracks(0, 2, z_um=[1.0, 2.0])])
    with pytest.raises(SourceError, match="size of a pixel"):
        convert(path, tmp_path / "out.xml", to="challenge")
    assert not (tmp_path / "out.xml").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TRUTH.replace('x="10.5"', 'x="ten"'), "not a number"),
        (TRUTH.replace('x="10.5"', 'x="inf"'), "not finite"),
        (TRUTH.replace('t="0"', 't="0.5"'), "not a whole number"),
        (TRUTH.replace("<particle>", "", 1).replace("</particle>", "", 1), "in no <particle>"),
        (TRUTH[:200], "cut short"),
        ("<root><Tracks/></root>", "not of the Particle Tracking Challenge"),
    ],
)
def test_what_is_wrong_in_it_is_said(tmp_path, text, said):
    with pytest.raises(SourceError, match=said):
        read_tracks(written(tmp_path, text))


def test_whatever_is_damaged_ends_in_tracks_or_in_one_line(tmp_path):
    random = np.random.default_rng(0)
    for _ in range(TRIES):
        path = tmp_path / "damaged.xml"
        path.write_bytes(damaged(TRUTH.encode(), random))
        said = ""
        try:
            found = read_tracks(path)
        except SourceError as error:
            said = str(error)
        else:
            assert len(found.track) == len(found.frame) == len(found.position)
        assert "\n" not in said


@given(st.text(max_size=200))
def test_other_text_is_not_taken_for_it(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "a.xml"
    path.write_text(text, encoding="utf-8", errors="replace")
    assert not is_challenge(path) or "TrackContestISBI2012" in text
