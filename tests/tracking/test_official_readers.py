"""The official libraries of other formats read what is exported, and what they write is read back."""

import itertools
import warnings

import numpy as np
import pytest
from interchange_files import PREDICTED, back, differing, everything, there
from trajectory_files import tracks, write

from tracking.imports import Assumed, recognise


@pytest.fixture
def path(tmp_path):
    """Tracks 0 to 3 over frames 0 to 6, without 3; 2 has a predicted row, 5 has a single one."""
    random = np.random.default_rng(5)
    frames = []
    for frame in (0, 1, 2, 4, 5, 6):
        numbers = [0, 1, 2, 3, 5] if frame == 4 else [0, 1, 2, 3]
        own = [PREDICTED if n == 2 and frame == 2 else 0 for n in numbers]
        x, y, z, v = random.normal(0, 50, (4, len(numbers)))
        errors = {f"sigma_{axis}_um": 0.125 for axis in "xyz"}
        more = {"vx_um_s": v, "vy_um_s": 1.5, "vz_um_s": -v, "brightness": 200.0, "confidence": 0.75}
        frames.append(
            tracks(
                frame,
                numbers,
                own,
                x_um=x,
                y_um=y,
                z_um=z,
                detection=np.arange(len(numbers)),
                **errors,
                **more,
            )
        )
    return write(tmp_path / "tracks.h5", frames, {"pixel_size_um": 0.65, "image_shape": [300, 400]})


def links_of(t):
    """Pairs of (track, frame) that follow one another."""
    order = np.lexsort((t.frame, t.track))
    pairs = itertools.pairwise(order)
    return {(t.track[a], t.frame[a], t.frame[b]) for a, b in pairs if t.track[a] == t.track[b]}


# GEFF


def test_the_library_of_geff_validates_an_export_and_reads_every_value(path):
    from geff import validate_structure
    from geff.core_io import read_to_memory
    from geff.validate.data import ValidationConfig

    folder = there(path, "geff")
    validate_structure(folder)
    found = read_to_memory(folder, data_validation=ValidationConfig(graph=True, tracklet=True))
    truth = everything(path)
    columns = {name: values["values"] for name, values in found["node_props"].items()}
    assert all(values["missing"] is None for values in found["node_props"].values())
    for theirs, ours in (("t", "frame"), ("x", "x_um"), ("y", "y_um"), ("z", "z_um")):
        assert np.array_equal(columns[theirs], getattr(truth, ours)), theirs
    for name in (
        "track",
        "time_s",
        "sigma_z_um",
        "vx_um_s",
        "brightness",
        "confidence",
        "flags",
        "detection",
    ):
        assert np.array_equal(columns[name], getattr(truth, name)), name
    node = found["node_ids"]
    at = {int(number): row for row, number in enumerate(node)}
    links = {
        (truth.track[at[a]], truth.frame[at[a]], truth.frame[at[b]]) for a, b in found["edge_ids"].tolist()
    }
    assert links == links_of(truth)
    assert len(found["edge_ids"]) == len(links)


def test_the_axes_of_a_geff_have_their_units_and_ranges(path):
    from geff_spec import GeffMetadata

    facts = GeffMetadata.read(there(path, "geff"))
    truth = everything(path)
    axes = {axis.name: axis for axis in facts.axes}
    assert list(axes) == ["t", "z", "y", "x"]
    assert (axes["t"].type, axes["t"].unit, axes["t"].scale, axes["t"].scaled_unit) == (
        "time",
        "frame",
        0.05,
        "second",
    )
    assert {axes[name].unit for name in "xyz"} == {"micrometer"}
    assert (axes["x"].min, axes["x"].max) == (truth.x_um.min(), truth.x_um.max())
    assert facts.track_node_props == {"tracklet": "track"}
    assert facts.node_props_metadata["vx_um_s"].unit == "um/s"
    assert facts.extra["liveptv"]["pixel_size_um"] == 0.65


def test_a_geff_without_depth_has_two_dimensions_and_one_without_rows_none(tmp_path):
    from geff import validate_structure
    from geff_spec import GeffMetadata

    flat = there(write(tmp_path / "tracks.h5", [tracks(0), tracks(1)]), "geff")
    validate_structure(flat)
    assert [axis.name for axis in GeffMetadata.read(flat).axes] == ["t", "y", "x"]
    empty = there(write(tmp_path / "tracks2.h5", [tracks(0, 0)]), "geff")
    validate_structure(empty)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_graph_that_geff_has_written_is_read_with_splits_as_tracks(tmp_path, zarr_format):
    import geff
    import networkx

    graph = networkx.DiGraph()
    nodes = {3: (0, 1.5), 9: (1, 2.5), 4: (2, 3.5), 7: (2, 9.5), 100: (3, 4.5)}
    for number, (frame, x) in nodes.items():
        graph.add_node(number, time=frame, y=2.0 * x, x=x, snr=3.0)
    graph.add_edges_from([(3, 9), (9, 4), (9, 7), (4, 100)])
    folder = tmp_path / "graph.zarr"
    geff.write(
        graph,
        folder,
        axis_names=["time", "y", "x"],
        axis_types=["time", "space", "space"],
        axis_units=["frame", "nanometer", "nanometer"],
        zarr_format=zarr_format,
    )
    output, report = back(folder, tmp_path / "back.h5", Assumed(frame_rate_hz=10.0))
    found = everything(output)
    assert found.x_um.tolist() == pytest.approx([0.0015, 0.0025, 0.0035, 0.0095, 0.0045], abs=2e-4)
    assert found.track[0] == found.track[1]
    assert len(set(found.track)) == 3
    assert np.isnan(found.z_um).all()
    text = " ".join(report.remarks)
    assert "split (1 times)" in text
    assert "the property snr" in text


def test_what_geff_reads_and_writes_again_is_the_same_to_us(path):
    import geff

    folder = there(path, "geff")
    graph, facts = geff.read(folder, backend="networkx")
    again = folder.with_name("again.geff")
    geff.write(graph, again, metadata=facts)
    output, report = back(again)
    assert differing(path, output) == []
    assert report.remarks == ()


def test_geffs_own_reader_of_trackmate_reads_ours(path):
    import geff
    from geff.convert import from_trackmate_xml_to_geff

    folder = path.with_name("by_geff.geff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses the image, and calls TrackMate's micron unknown
        from_trackmate_xml_to_geff(there(path, "trackmate"), folder)
        graph, facts = geff.read(folder, backend="networkx")
    truth = everything(path)
    assert {axis.unit for axis in facts.axes if axis.type == "space"} <= {"micron", "micrometer"}
    found = dict(graph.nodes(data=True))
    assert len(found) == len(truth)
    for row in range(len(truth)):
        assert found[row]["POSITION_X"] == truth.x_um[row]
        assert found[row]["VX_UM_S"] == truth.vx_um_s[row]
    assert graph.number_of_edges() == len(links_of(truth))
    output, _ = back(folder)
    found = everything(output)
    assert np.array_equal(found.x_um, truth.x_um)
    assert np.array_equal(found.y_um, truth.y_um)
    assert np.array_equal(found.z_um, truth.z_um)


# TrackMate


def test_pytrackmate_reads_the_spots_and_tracks_of_an_export(path):
    from pytrackmate import trackmate_peak_import

    truth = everything(path)
    table = trackmate_peak_import(there(path, "trackmate"), get_tracks=True).sort_values("spot_id")
    assert table["t_stamp"].to_numpy().tolist() == truth.frame.tolist()
    for theirs, ours in (("x", "x_um"), ("y", "y_um"), ("z", "z_um"), ("t", "time_s"), ("q", "confidence")):
        assert np.array_equal(table[theirs], getattr(truth, ours)), theirs
    groups = table["label"].to_numpy()
    assert len(np.unique(groups)) == 5
    for track in range(5):
        assert len(np.unique(groups[truth.track == track])) <= 1


# flowtracks


def agrees(trajectories, truth):
    by_number = {int(t.trajid()): t for t in trajectories}
    assert sorted(by_number) == sorted(set(truth.track.tolist()))
    for number, found in by_number.items():
        rows = np.flatnonzero(truth.track == number)
        position = np.stack([truth.x_um, truth.y_um, truth.z_um], axis=1)[rows] * 1e-6
        velocity = np.stack([truth.vx_um_s, truth.vy_um_s, truth.vz_um_s], axis=1)[rows] * 1e-6
        np.testing.assert_allclose(found.pos(), position, rtol=1e-12)
        np.testing.assert_allclose(found.velocity(), velocity, rtol=1e-6)
        assert found.time().tolist() == truth.frame[rows].tolist()


def test_flowtracks_reads_an_export_to_zarr_in_metres(path):
    from flowtracks.io import read_zarr_trajectories
    from flowtracks.writers import trajectory_units
    from flowtracks.zarr_scene import ZarrScene

    folder, truth = there(path, "flowtracks zarr"), everything(path)
    agrees(read_zarr_trajectories(folder), truth)
    scene = ZarrScene(folder)
    agrees(scene.iter_trajectories(), truth)
    frames = list(scene.iter_frames())
    assert [len(frame) for frame in frames] == [4, 4, 4, 0, 5, 4, 4]
    assert trajectory_units(folder) == {"pos": "m", "vel": "m s-1", "time": "frame"}


def test_what_flowtracks_writes_to_zarr_is_read(path):
    from flowtracks.io import read_zarr_trajectories, save_zarr_trajectories

    trajectories = read_zarr_trajectories(there(path, "flowtracks zarr"))
    for trajectory in trajectories:
        trajectory.create_property("accel", np.ones((len(trajectory), 3)))
    folder = path.with_name("by_flowtracks.zarr")
    save_zarr_trajectories(trajectories, folder, units={"pos": "m", "vel": "m s-1"})
    output, report = back(folder, assumed=Assumed(frame_rate_hz=20.0))
    found, truth = everything(output), everything(path)
    assert recognise(folder).kind == "flowtracks.zarr"
    for name in ("track", "frame", "x_um", "y_um", "z_um", "vx_um_s", "vz_um_s", "time_s"):
        assert np.array_equal(getattr(found, name), getattr(truth, name)), name
    assert np.isnan(found.sigma_x_um).all()
    assert report.remarks == ("not read, because a trajectory file does not have it: accelerations",)


def test_flowtracks_reads_an_export_to_hdf5_with_every_column(path):
    pytest.importorskip("tables")
    from flowtracks.io import trajectories_table
    from flowtracks.scene import Scene

    file, truth = there(path, "flowtracks h5"), everything(path)
    agrees(trajectories_table(str(file)), truth)
    scene = Scene(str(file))
    agrees(scene.iter_trajectories(), truth)
    assert scene.trajectory_tags().tolist() == [[0, 0, 6], [1, 0, 6], [2, 0, 6], [3, 0, 6], [5, 4, 4]]
    one = scene.trajectory_by_id(2)
    rows = truth.track == 2
    assert one.sigma_x_um().tolist() == truth.sigma_x_um[rows].tolist()
    assert one.flags().tolist() == truth.flags[rows].tolist()
    assert [len(frame) for frame in scene.iter_frames()] == [4, 4, 4, 0, 5, 4, 4]


def test_what_flowtracks_writes_to_hdf5_is_read(path):
    pytest.importorskip("tables")
    from flowtracks.io import read_zarr_trajectories, save_particles_table

    file = path.with_name("by_flowtracks.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_particles_table(str(file), read_zarr_trajectories(there(path, "flowtracks zarr")))
    output, _ = back(file, assumed=Assumed(frame_rate_hz=20.0))
    found, truth = everything(output), everything(path)
    for name in ("track", "frame", "x_um", "z_um", "vx_um_s", "time_s"):
        assert np.array_equal(getattr(found, name), getattr(truth, name)), name


# VTK


def polydata_of(file):
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(file))
    reader.Update()
    return reader.GetOutput()


def test_vtk_reads_the_points_lines_and_arrays_of_an_export(path):
    pytest.importorskip("vtk")
    from vtkmodules.util.numpy_support import vtk_to_numpy

    found, truth = polydata_of(there(path, "vtp")), everything(path)
    points = vtk_to_numpy(found.GetPoints().GetData())
    assert np.array_equal(points, np.stack([truth.x_um, truth.y_um, truth.z_um], axis=1))
    data = found.GetPointData()
    for name in ("track", "frame", "time_s", "brightness", "flags", "detection"):
        assert np.array_equal(vtk_to_numpy(data.GetArray(name)), getattr(truth, name)), name
    assert np.array_equal(vtk_to_numpy(data.GetArray("velocity_um_s"))[:, 0], truth.vx_um_s)
    lines = set()
    for number in range(found.GetNumberOfCells()):
        ids = found.GetCell(number).GetPointIds()
        rows = [ids.GetId(i) for i in range(ids.GetNumberOfIds())]
        lines |= {(truth.track[a], truth.frame[a], truth.frame[b]) for a, b in itertools.pairwise(rows)}
    assert lines == links_of(truth)


@pytest.mark.parametrize("mode", ["Ascii", "Binary", "Appended"])
@pytest.mark.parametrize("compressor", ["None", "ZLib", "LZ4", "LZMA"])
@pytest.mark.parametrize("more", ["", "header 64", "not encoded", "big endian"])
def test_what_vtk_writes_in_any_encoding_is_read(path, mode, compressor, more):
    pytest.importorskip("vtk")
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

    writer = vtkXMLPolyDataWriter()
    writer.SetInputData(polydata_of(there(path, "vtp")))
    file = path.with_name("by_vtk.vtp")
    writer.SetFileName(str(file))
    getattr(writer, f"SetDataModeTo{mode}")()
    getattr(writer, f"SetCompressorTypeTo{compressor}")()
    if more == "header 64":
        writer.SetHeaderTypeToUInt64()
    if more == "big endian":
        writer.SetByteOrderToBigEndian()
    writer.SetEncodeAppendedData(more != "not encoded")
    writer.SetBlockSize(64)
    assert writer.Write()
    assert differing(path, back(file)[0]) == []


def test_laptrack_reads_a_geff_and_what_it_writes_is_read(path):
    pytest.importorskip("laptrack")
    import geff
    from laptrack.data_conversion import digraph_to_geff_networkx, geff_networkx_to_tree_coords_mapping

    graph, _ = geff.read(there(path, "geff"), backend="networkx")
    tree, places, _ = geff_networkx_to_tree_coords_mapping(graph, "t", ["z", "y", "x"])
    truth = everything(path)
    assert [len(frame) for frame in places] == [4, 4, 4, 0, 5, 4, 4]
    assert np.array_equal(places[0], np.stack([truth.z_um, truth.y_um, truth.x_um], axis=1)[truth.frame == 0])
    assert tree.number_of_edges() == len(links_of(truth))
    again = digraph_to_geff_networkx(tree, places, ["frame", "z", "y", "x"])
    folder = path.with_name("by_laptrack.geff")
    geff.write(again, folder)
    output, report = back(folder, assumed=Assumed(1.0, 20.0))
    found = everything(output)
    for name in ("frame", "x_um", "y_um", "z_um"):
        assert np.array_equal(getattr(found, name), getattr(truth, name)), name
    assert len(links_of(found)) == len(links_of(truth))
    assert any("axes taken by their names" in remark for remark in report.remarks)
