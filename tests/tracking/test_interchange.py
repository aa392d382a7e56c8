"""Trajectories that go into another program's format and come back, and files that are not as they should be."""

import json
import math

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, example, given, settings
from interchange_files import (
    FORMATS,
    PREDICTED,
    TENTATIVE,
    back,
    differing,
    everything,
    some_tracks,
    there,
    written,
)
from trajectory_files import FRAME_S, tracks, write

from stream.errors import ConfigurationError, OutputError, SourceError
from tracking.export import export
from tracking.imports import Assumed, recognise
from tracking.imports.graph import NO_LABEL, tracks_of
from tracking.trajectories.file import TrajectoryFile, read_trajectories

ALL = sorted(FORMATS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("interchange")


@pytest.fixture
def path(tmp_path):
    frames = [tracks(frame, 3, z_um=frame + 0.5, vx_um_s=10.0, confidence=0.5) for frame in range(5)]
    return write(tmp_path / "tracks.h5", frames)


@pytest.mark.parametrize("name", ALL)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(frames=some_tracks())
@example(frames=[tracks(4, [7])])
@example(frames=[tracks(0, [0], z_um=0.0), tracks(3, [0], PREDICTED, z_um=0.0)])
def test_what_a_row_holds_comes_back_as_it_was(folder, name, frames):
    path = written(folder, frames)
    if not len(everything(path)):
        with pytest.raises(SourceError, match="no particles"):
            back(there(path, name))
        return
    output, report = back(there(path, name))
    assert differing(path, output) == []
    assert report.remarks == ()


@pytest.mark.parametrize("name", ALL)
def test_frames_keep_times_and_focus_and_empty_ones_lie_between(tmp_path, name):
    path = tmp_path / "tracks.h5"
    frames = [tracks(frame, [0, 1], z_um=1.0) for frame in (2, 3, 7)]
    for frame in frames:
        object.__setattr__(frame.info, "focus_um", 12.5 + frame.info.frame)
    write(path, frames)
    output, _ = back(there(path, name))
    with TrajectoryFile(output) as file:
        assert file.frames["frame"].tolist() == [2, 3, 4, 5, 6, 7]
        assert file.frames["time_s"] == pytest.approx(FRAME_S * np.arange(2, 8))
        assert file.frames["focus_um"] == pytest.approx([14.5, 15.5, *[math.nan] * 3, 19.5], nan_ok=True)
        assert np.isnan(file.frames["wall_s"]).all()


@pytest.mark.parametrize("name", ALL)
def test_an_imported_file_says_where_it_comes_from_and_is_like_any_other(path, name):
    output, report = back(there(path, name))
    with TrajectoryFile(output) as file:
        file.check()
        assert file.finished
        assert file.attributes["source"] == f"{FORMATS[name][0]} ({report.format})"
        assert file.attributes["imported"]["file"] == FORMATS[name][0]
        assert file.attributes["statistics"]["tracks"] == report.tracks == 3
    assert export(output, output.with_suffix(".csv")).rows == 15


@pytest.mark.parametrize("name", ["geff", "flowtracks h5", "flowtracks zarr"])
def test_size_of_pixels_and_run_of_a_liveptv_file_survive(tmp_path, name):
    attributes = {
        "pixel_size_um": 0.25,
        "image_shape": [20, 30],
        "notes": "µ",
        "curve": np.array([1.0, np.nan]),
    }
    path = write(tmp_path / "tracks.h5", [tracks(0)], attributes)
    output, _ = back(there(path, name))
    with TrajectoryFile(output) as file:
        found = file.attributes
    assert (found["pixel_size_um"], found["image_shape"], found["notes"]) == (0.25, [20, 30], "µ")
    assert found["imported"]["attributes"]["run_id"] == "run"
    assert found["run_id"] == "imported"


def test_trackmate_keeps_the_size_of_pixels_only_where_it_was_known(tmp_path):
    known = write(tmp_path / "tracks.h5", [tracks(0)], {"pixel_size_um": 0.65})
    with TrajectoryFile(back(there(known, "trackmate"))[0]) as file:
        assert file.attributes["pixel_size_um"] == 0.65
        assert "image_shape" not in file.attributes
    not_known = write(tmp_path / "again.h5", [tracks(0)])
    with TrajectoryFile(back(there(not_known, "trackmate"))[0]) as file:
        assert "pixel_size_um" not in file.attributes


def test_rows_exchanged_by_a_later_decision_stay_as_they_were_decided(tmp_path):
    frames = [tracks(f, [0], z_um=3.0, z_other_um=-2.0, p_side=0.6) for f in range(3)]
    frames.append(tracks(3, [0], z_um=-2.0, z_other_um=3.0, p_side=0.9, revised=2))
    path = write(tmp_path / "tracks.h5", frames)
    assert everything(path).z_um.tolist() == [3, -2, -2, -2]
    for name in ALL:
        assert differing(path, back(there(path, name))[0]) == [], name


@pytest.mark.parametrize("name", ALL)
def test_an_export_without_rows_is_a_file_that_holds_no_particles(tmp_path, name):
    path = write(tmp_path / "tracks.h5", [tracks(frame, 0) for frame in range(3)])
    with pytest.raises(SourceError, match="holds no particles"):
        back(there(path, name))


@pytest.mark.parametrize("name", ["geff", "flowtracks zarr"])
def test_an_existing_folder_is_replaced_only_on_request_and_only_if_it_is_zarr(path, name):
    file, to = FORMATS[name]
    output = there(path, name)
    with pytest.raises(OutputError, match=r"exists.*--overwrite"):
        export(path, output, to=to)
    assert export(path, output, to=to, overwrite=True).rows == 15
    precious = path.with_name(f"precious{output.suffix}")
    precious.mkdir()
    (precious / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="not a Zarr folder"):
        export(path, precious, to=to, overwrite=True)
    assert (precious / "thesis.tex").read_text() == "mine"
    assert sorted(entry.name for entry in path.parent.iterdir()) == sorted([path.name, file, precious.name])


@pytest.mark.parametrize("name", ["geff", "flowtracks zarr"])
def test_an_export_that_fails_leaves_the_former_folder(path, name, monkeypatch):
    output = there(path, name)
    before = {file: file.read_bytes() for file in output.rglob("*") if file.is_file()}

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr.Group, "create_array", fail)
    with pytest.raises(OutputError, match="No space left"):
        there(path, name)
    assert {file: file.read_bytes() for file in output.rglob("*") if file.is_file()} == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == sorted([path.name, output.name])


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".zarr"])
def test_a_suffix_of_several_formats_asks_which(path, suffix):
    with pytest.raises(ConfigurationError, match=r"several formats.*--to flowtracks"):
        export(path, path.with_name(f"other{suffix}"))


def test_the_suffix_of_a_file_does_not_matter(path):
    xml = there(path, "trackmate")
    renamed = xml.rename(path.with_name("tracks.vtp"))
    assert recognise(renamed).kind == "trackmate"
    assert differing(path, back(renamed)[0]) == []
    assert recognise(path).kind == "liveptv"


# links of graphs


def paths(frame, links, label=None):
    found = tracks_of(np.array(frame), np.array(links, np.int64).reshape(-1, 2), label)
    return found.track.tolist(), found.remarks


def test_links_join_nodes_whatever_their_direction_and_gaps():
    assert paths([0, 1, 5, 5], [(1, 0), (1, 2), (2, 1)]) == ([0, 0, 0, 1], ())


def test_a_track_that_splits_ends_there_and_each_branch_is_a_track():
    track, remarks = paths([0, 1, 2, 2, 3, 3], [(0, 1), (1, 2), (1, 3), (2, 4), (3, 5)])
    assert track == [0, 0, 1, 2, 1, 2]
    assert "split (1 times)" in remarks[0]


def test_tracks_that_merge_end_there():
    track, remarks = paths([0, 0, 1, 2], [(0, 2), (1, 2), (2, 3)])
    assert track == [0, 1, 2, 2]
    assert "merge (1 times)" in remarks[0]


def test_a_circle_of_links_is_cut_where_it_splits_and_merges():
    track, remarks = paths([0, 1, 2], [(0, 1), (1, 2), (2, 0)])
    assert len(set(track)) == 3
    assert remarks


def test_links_within_a_frame_are_left_out():
    track, remarks = paths([0, 0, 1], [(0, 1), (1, 2)])
    assert track == [0, 1, 1]
    assert remarks == ("1 links within one frame are left out",)


def test_tracks_keep_their_numbers_unless_a_branch_has_them_already():
    label = np.array([7, 7, 7, 7, NO_LABEL, 3])
    track, remarks = paths([0, 1, 2, 2, 5, 6], [(0, 1), (1, 2), (1, 3)], label)
    assert track[:2] == [7, 7]
    assert track[5] == 3
    assert len(set(track)) == 5
    assert max(track) < 12
    assert "2 tracks have new numbers" in remarks[1]


# GEFF that is not as it should be


@pytest.fixture
def geff(path):
    return there(path, "geff")


def metadata(folder, change):
    file = folder / ".zattrs"
    facts = json.loads(file.read_text())
    change(facts["geff"])
    file.write_text(json.dumps(facts))


def claim(array, **changes):
    file = array / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_values_that_are_too_few_are_named(geff):
    claim(geff / "nodes/props/x/values", shape=[14])
    with pytest.raises(SourceError, match="nodes/props/x/values has 14 values, not 15"):
        back(geff)
    claim(geff / "nodes/props/x/values", shape=[5, 3], chunks=[5, 3])
    with pytest.raises(SourceError, match="5 x 3 values"):
        back(geff)


def test_sizes_that_the_disk_does_not_hold_are_refused(geff):
    for name in ("nodes/ids", "edges/ids"):
        claim(geff / name, shape=[10**13, 2][: 1 + ("edges" in name)])
        with pytest.raises(SourceError, match=r"claims .* it is damaged or forged"):
            back(geff)
        there(geff.with_name("tracks.h5"), "geff")
    claim(geff / "nodes/ids", chunks=[10**13])
    with pytest.raises(SourceError, match=r"claims .* it is damaged or forged"):
        back(geff)


def test_codecs_that_do_not_hold_numbers_are_refused(geff):
    claim(geff / "nodes/ids", compressor={"id": "pickle", "protocol": 5})
    with pytest.raises(SourceError, match=r"cannot read|pickle"):
        back(geff)


def test_two_nodes_of_one_id_and_edges_to_nowhere_are_refused(geff):
    zarr.open_array(geff, path="nodes/ids", mode="r+")[3] = 2
    with pytest.raises(SourceError, match="two nodes have the id 2"):
        back(geff)
    zarr.open_array(geff, path="nodes/ids", mode="r+")[3] = 99
    with pytest.raises(SourceError, match="an edge leads to node 3, which is not there"):
        back(geff)


def test_a_truncated_chunk_is_one_line(geff):
    chunk = geff / "nodes/props/x/values/0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(SourceError, match="cannot read") as error:
        back(geff)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("facts", ["text", [], {"geff_version": "2.0"}, {"geff_version": "x"}])
def test_metadata_of_another_kind_or_version_are_refused(geff, facts):
    (geff / ".zattrs").write_text(json.dumps({"geff": facts}))
    with pytest.raises(SourceError):
        back(geff)


def test_lengths_in_pixels_need_the_size_of_a_pixel(geff):
    def in_pixels(facts):
        for axis in facts["axes"][1:]:
            axis["unit"] = "pixel"

    metadata(geff, in_pixels)
    with pytest.raises(SourceError, match="in pixels; give --pixel-size"):
        back(geff)
    output, _ = back(geff, assumed=Assumed(length_um=0.5))
    assert everything(output).x_um.max() == 2.0


def test_other_units_of_length_and_time_are_converted(geff):
    def in_nanometres(facts):
        for axis in facts["axes"][1:]:
            axis["unit"] = "nanometer"
        facts["axes"][0] |= {"scale": 20, "scaled_unit": "millisecond"}
        facts["extra"] = {}

    metadata(geff, in_nanometres)
    zarr.open_array(geff, path="nodes/props/x/values", mode="r+")[:] = np.repeat(np.arange(5) * 1000.0, 3)
    output, _ = back(geff)
    assert everything(output).x_um.tolist() == np.repeat(np.arange(5.0), 3).tolist()


def test_without_any_time_one_frame_a_second_is_assumed_and_said(geff):
    def timeless(facts):
        del facts["axes"][0]["scale"], facts["axes"][0]["scaled_unit"]
        del facts["node_props_metadata"]["time_s"]

    metadata(geff, timeless)
    (geff / "nodes/props/time_s").rename(geff / "other")
    output, report = back(geff)
    assert any("1 frame/s assumed (--frame-rate)" in remark for remark in report.remarks)
    with TrajectoryFile(output) as file:
        assert file.frames["time_s"].tolist() == [0, 1, 2, 3, 4]
    output, report = back(geff, assumed=Assumed(frame_rate_hz=4.0))
    assert report.remarks == ()
    with TrajectoryFile(output) as file:
        assert file.frames["time_s"].tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_properties_of_other_programs_are_named_if_they_are_not_read(geff):
    (geff / "nodes/props/brightness_of_the_day").mkdir()
    for file in (geff / "nodes/props/x").rglob("*"):
        target = geff / "nodes/props/brightness_of_the_day" / file.relative_to(geff / "nodes/props/x")
        if file.is_dir():
            target.mkdir()
        else:
            target.write_bytes(file.read_bytes())
    for name in (".zgroup", ".zattrs"):
        source = geff / "nodes/props/x" / name
        if source.exists():
            (geff / "nodes/props/brightness_of_the_day" / name).write_bytes(source.read_bytes())
    assert any("the property brightness_of_the_day" in remark for remark in back(geff)[1].remarks)


def test_a_graph_inside_a_group_is_found_and_several_are_asked_for(path, tmp_path):
    zarr.open_group(tmp_path / "data.zarr", mode="w", zarr_format=2)
    export(path, tmp_path / "data.zarr" / "tracks.geff")
    assert differing(path, write_of(tmp_path / "data.zarr", tmp_path)) != ["x"]
    export(path, tmp_path / "data.zarr" / "more.geff")
    with pytest.raises(SourceError, match="several graphs"):
        recognise(tmp_path / "data.zarr")


def write_of(folder, tmp_path):
    return back(folder, tmp_path / "inner.h5")[0]


# XML that is not as it should be

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE TrackMate [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><TrackMate><Log>&i;</Log></TrackMate>"
)


@pytest.mark.parametrize("name", ["trackmate", "vtp"])
def test_a_truncated_file_says_in_which_line_it_ends(path, name):
    file = there(path, name)
    whole = file.read_bytes()
    for length in (len(whole) // 3, len(whole) // 2, len(whole) - 20):
        file.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"line \d+: .*cut short or damaged") as error:
            back(file)
        assert "\n" not in str(error.value)


def test_entities_that_multiply_are_refused(tmp_path):
    file = tmp_path / "laughs.xml"
    file.write_text(LAUGHS)
    with pytest.raises(SourceError, match="document type"):
        back(file)
    other = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><TrackMate/>'
    file.write_text(other)
    with pytest.raises(SourceError, match="document type"):
        back(file)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('POSITION_X="0.0"', 'POSITION_X="east"', "POSITION_X is 'east', not a number"),
        ('POSITION_X="0.0"', "", "POSITION_X is missing"),
        ('ID="1"', 'ID="0"', "two spots have the ID 0"),
        ('ID="1"', 'ID="x"', "ID is 'x', not a number"),
        ('SPOT_SOURCE_ID="0"', 'SPOT_SOURCE_ID="77"', "leads to spot 77"),
        ('spatialunits="micron"', 'spatialunits="furlong"', "'furlong'; give --length-unit"),
        ('spatialunits="micron"', 'spatialunits="pixel"', "in pixels; give --pixel-size"),
        ('FRAME="0"', 'FRAME="-3"', "frames run from -3"),
        ('FRAME="0"', 'FRAME="99999999999999999999"', "beyond 2"),
        ("<Spot ", "<Spat ", "leads to spot"),
    ],
)
def test_what_is_wrong_in_a_file_of_trackmate_is_named(path, old, new, why):
    file = there(path, "trackmate")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(SourceError, match=why):
        back(file)


TRACKMATE = """<?xml version="1.0" encoding="UTF-8"?>
<TrackMate version="7.14.0"><Log>Starting</Log>
<Model spatialunits="mm" timeunits="ms"><FeatureDeclarations><SpotFeatures>
<Feature feature="QUALITY" name="Quality" shortname="Quality" dimension="QUALITY" isint="false" />
<Feature feature="SNR_CH1" name="SNR" shortname="SNR" dimension="NONE" isint="false" />
</SpotFeatures></FeatureDeclarations>
<AllSpots nspots="6">
<SpotsInFrame frame="0">
<Spot ID="10" name="a" QUALITY="9" SNR_CH1="1" POSITION_X="0.001" POSITION_Y="0.002" POSITION_Z="0" POSITION_T="0" FRAME="0"/>
<Spot ID="11" name="b" QUALITY="9" SNR_CH1="1" POSITION_X="0.1" POSITION_Y="0.2" POSITION_Z="0" POSITION_T="0" FRAME="0"/>
</SpotsInFrame><SpotsInFrame frame="2">
<Spot ID="12" name="c" QUALITY="9" SNR_CH1="1" POSITION_X="0.003" POSITION_Y="0.002" POSITION_Z="0" POSITION_T="40" FRAME="2"/>
<Spot ID="13" name="d" QUALITY="9" SNR_CH1="1" POSITION_X="0.1" POSITION_Y="0.2" POSITION_Z="0" POSITION_T="40" FRAME="2"/>
</SpotsInFrame><SpotsInFrame frame="3">
<Spot ID="14" name="e" QUALITY="9" SNR_CH1="1" POSITION_X="0.005" POSITION_Y="0.002" POSITION_Z="0" POSITION_T="60" FRAME="3"/>
<Spot ID="15" name="f" QUALITY="9" SNR_CH1="1" POSITION_X="0.005" POSITION_Y="0.009" POSITION_Z="0" POSITION_T="60" FRAME="3"/>
</SpotsInFrame></AllSpots>
<AllTracks>
<Track name="Track_4" TRACK_ID="4"><Edge SPOT_SOURCE_ID="12" SPOT_TARGET_ID="10"/><Edge SPOT_SOURCE_ID="12" SPOT_TARGET_ID="14"/></Track>
<Track name="Track_6" TRACK_ID="6"><Edge SPOT_SOURCE_ID="11" SPOT_TARGET_ID="13"/></Track>
</AllTracks><FilteredTracks><TrackID TRACK_ID="4"/></FilteredTracks></Model>
<Settings><ImageData width="64" height="48" pixelwidth="0.00065" pixelheight="0.00065" timeinterval="20"/></Settings>
</TrackMate>
"""  # noqa: E501


def test_a_file_that_trackmate_has_saved_is_read_in_our_units(tmp_path):
    file = tmp_path / "experiment.xml"
    file.write_text(TRACKMATE)
    output, report = back(file)
    found = everything(output)
    assert report.format == "TrackMate 7.14.0"
    assert found.track.tolist() == [4, 6, 4, 6, 4, 7]
    assert found.x_um.tolist() == pytest.approx([1, 100, 3, 100, 5, 5], abs=2e-4)
    assert np.isnan(found.z_um).all()
    assert np.isnan(found.confidence).all()  # the quality of TrackMate is no probability
    assert found.time_s.tolist() == pytest.approx([0, 0, 0.04, 0.04, 0.06, 0.06])
    assert found.flags.tolist() == [0, TENTATIVE, 0, TENTATIVE, 0, TENTATIVE]
    assert read_trajectories(output).track.tolist() == [4, 4, 4]
    text = " ".join(report.remarks)
    assert "1 spots of no track are flagged tentative" in text
    assert "1 tracks that TrackMate's filters hide" in text
    assert "features of spots (QUALITY, SNR_CH1)" in text
    with TrajectoryFile(output) as file:
        assert file.attributes["pixel_size_um"] == pytest.approx(0.65)
        assert file.attributes["image_shape"] == [48, 64]


def test_trackmates_simple_export_of_tracks_is_read(tmp_path):
    file = tmp_path / "tracks.xml"
    file.write_text(
        '<?xml version="1.0"?>\n<!-- TrackMate --><Tracks nTracks="2" spaceUnits="micron" frameInterval="0.5" '
        'timeUnits="sec" from="TrackMate v7.11.1">\n<particle nSpots="2"><detection t="3" x="1.5" y="2" z="0.0"/>'
        '<detection t="4" x="2.5" y="2" z="0.0"/></particle><particle nSpots="1">'
        '<detection t="3" x="9" y="9" z="0"/></particle></Tracks>'
    )
    output, _ = back(file)
    found = everything(output)
    assert found.track.tolist() == [0, 1, 0]
    assert found.time_s.tolist() == [1.5, 1.5, 2.0]


def test_two_rows_of_a_track_in_one_frame_are_refused(tmp_path):
    file = tmp_path / "tracks.xml"
    file.write_text(
        '<Tracks spaceUnits="um"><particle><detection t="3" x="1" y="2"/>'
        '<detection t="3" x="1" y="3"/></particle></Tracks>'
    )
    with pytest.raises(SourceError, match="track 0 has two rows in frame 3"):
        back(file)


# VTK


def polydata(points, arrays, lines="", more=""):
    data = "".join(
        f'<DataArray type="{kind}" Name="{name}" NumberOfComponents="{width}" format="ascii">{values}</DataArray>'
        for name, kind, width, values in arrays
    )
    offsets, connectivity = lines or ("", "")
    return (
        f'<?xml version="1.0"?><VTKFile type="PolyData" version="0.1" byte_order="LittleEndian">{more}<PolyData>'
        f'<Piece NumberOfPoints="{len(points)}" NumberOfLines="{len(offsets.split())}">'
        f"<PointData>{data}</PointData>"
        '<Points><DataArray type="Float32" NumberOfComponents="3" format="ascii">'
        f"{' '.join(' '.join(map(str, point)) for point in points)}</DataArray></Points><Lines>"
        f'<DataArray type="Int64" Name="connectivity" format="ascii">{connectivity}</DataArray>'
        f'<DataArray type="Int64" Name="offsets" format="ascii">{offsets}</DataArray></Lines>'
        "</Piece></PolyData></VTKFile>"
    )


POINTS = [(1, 2, 3), (2, 2, 3), (5, 5, 5)]
TIME, TRAJID = ("time", "Int64", 1, "0 1 1"), ("trajid", "Int32", 1, "8 8 9")


def test_poly_lines_of_another_program_need_a_unit_of_length(tmp_path):
    file = tmp_path / "trajectories.vtp"
    file.write_text(polydata(POINTS, [TIME, TRAJID, ("speed", "Float32", 1, "1 1 1")], ("2", "0 1")))
    with pytest.raises(SourceError, match="give --length-unit"):
        back(file)
    output, report = back(file, assumed=Assumed(length_um=1000.0))
    found = everything(output)
    assert found.x_um.tolist() == [1000, 2000, 5000]
    assert found.track.tolist() == [8, 8, 9]
    assert "the array speed" in " ".join(report.remarks)


def test_points_are_joined_by_numbers_of_tracks_or_by_lines(tmp_path):
    file = tmp_path / "trajectories.vtp"
    metres = Assumed(length_um=1.0)
    file.write_text(polydata(POINTS, [TIME, TRAJID]))
    assert everything(back(file, assumed=metres)[0]).track.tolist() == [8, 8, 9]
    file.write_text(polydata(POINTS, [TIME], ("2", "1 0")))
    assert everything(back(file, assumed=metres)[0]).track.tolist() == [0, 0, 1]
    file.write_text(polydata(POINTS, [TIME]))
    with pytest.raises(SourceError, match="neither lines nor numbers of tracks"):
        back(file, assumed=metres)
    file.write_text(polydata(POINTS, [TRAJID]))
    with pytest.raises(SourceError, match="no array of frames"):
        back(file, assumed=metres)


@pytest.mark.parametrize(
    ("arrays", "lines", "why"),
    [
        ([("time", "Int64", 1, "0 1"), TRAJID], "", "the array time has 2 x 1 values, not 3 x 1"),
        ([("time", "Int64", 1, "0 1 zwei"), TRAJID], "", "something that is not a number"),
        ([("time", "Float32", 1, "0 1 1.5"), TRAJID], "", "values that are not frames"),
        ([("time", "Quad", 1, "0 1 2"), TRAJID], "", "of type Quad"),
        ([TIME], ("2", "0 7"), "a point that is not there"),
        ([TIME], ("5", "0 1"), "offsets of its lines are out of order"),
    ],
)
def test_what_is_wrong_in_a_vtk_file_is_named(tmp_path, arrays, lines, why):
    file = tmp_path / "trajectories.vtp"
    file.write_text(polydata(POINTS, arrays, lines))
    with pytest.raises(SourceError, match=why):
        back(file, assumed=Assumed(length_um=1.0))


def test_other_vtk_and_xml_files_are_named(tmp_path):
    file = tmp_path / "grid.vti"
    file.write_text('<VTKFile type="ImageData"></VTKFile>')
    with pytest.raises(SourceError, match="ImageData, not PolyData"):
        back(file)
    file.write_text("<svg></svg>")
    with pytest.raises(SourceError, match="<svg>, not a file of trajectories"):
        recognise(file)


def test_arrays_that_claim_more_than_the_file_are_refused(path):
    file = there(path, "vtp")
    text = file.read_text()
    start = text.index('Name="frame" format="binary">') + len('Name="frame" format="binary">\n')
    file.write_text(text[:start] + "/////////38" + text[start + 11 :])
    with pytest.raises(SourceError, match=r"frame is cut short|cannot read"):
        back(file)


# flowtracks


def test_flowtracks_zarr_in_other_units_is_converted_or_asks(path):
    folder = there(path, "flowtracks zarr")
    group = zarr.open_group(folder, mode="r+")["trajectories"]
    group.attrs.update({"pos_units": "mm", "vel_units": "m frame-1"})
    del zarr.open_group(folder, mode="r+")["liveptv"]
    output, report = back(folder)
    assert everything(output).x_um.max() == pytest.approx(4e-6 * 1e3, abs=1e-3)
    assert any("m frame-1 are left out" in remark for remark in report.remarks)
    assert np.isnan(everything(output).vx_um_s).all()
    group.attrs.update({"pos_units": "cubits"})
    with pytest.raises(SourceError, match="'cubits'; give --length-unit"):
        back(folder)
    output, _ = back(folder, assumed=Assumed(1e6, 20.0))
    assert everything(output).vx_um_s[0] == pytest.approx(200, rel=1e-2)


def test_other_hdf5_files_are_no_trajectories(tmp_path):
    import h5py

    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["images"] = np.zeros((2, 3, 4))
    with pytest.raises(SourceError, match="not of liveptv or flowtracks"):
        recognise(tmp_path / "images.h5")
    with h5py.File(tmp_path / "calibration.h5", "w") as file:
        file.attrs["schema"] = "liveptv-calibration"
    with pytest.raises(SourceError, match="liveptv-calibration, not a file of trajectories"):
        recognise(tmp_path / "calibration.h5")
    (tmp_path / "images").mkdir()
    with pytest.raises(SourceError, match="not a Zarr group"):
        recognise(tmp_path / "images")
