"""What the axes of a recording mean, by all that its file says, and where the user says otherwise."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from acquisition.recording import open_recording, open_stack
from acquisition.settings import RecordingSettings
from acquisition.stacks.axes import AxisEvidence, decide_axes, given_axes, parse_axes
from stream.errors import ConfigurationError, SourceError

STACK = np.random.default_rng(1).integers(0, 99, (6, 8, 9), np.uint8)


def write_imagej(path, stack=STACK, **facts):
    tifffile.imwrite(
        path, stack, imagej=True, resolution=(2.0, 2.0), metadata={"axes": "ZYX", "unit": "um", **facts}
    )


def write_ome(path, axes="ZYX", stack=STACK, **facts):
    tifffile.imwrite(path, stack, ome=True, photometric="minisblack", metadata={"axes": axes, **facts})


def opened(path, **options):
    """Focus positions, times and remarks of a recording."""
    recording = open_recording(path, run_id="run", pixel_size_um=0.5, **options)
    try:
        recording.start()
        frames = []
        while not recording.ended:
            frames.append(recording.read(0.5).info)
        return [f.focus_um for f in frames], [f.time_s for f in frames], recording.remarks
    finally:
        recording.close()


VIDEOS = {
    "interval and the spacing of 1 that nobody set": {"finterval": 0.05, "spacing": 1.0},
    "interval and no spacing": {"finterval": 0.05},
    "interval and the spacing that Set Scale gives": {"finterval": 0.05, "spacing": 0.5},
    "interval in ms": {"finterval": 50.0, "tunit": "ms", "spacing": 1.0},
}


@pytest.mark.parametrize("facts", VIDEOS.values(), ids=VIDEOS)
def test_slices_with_a_frame_interval_and_no_spacing_of_their_own_are_times(tmp_path, facts):
    path = tmp_path / "video.tif"
    write_imagej(path, **facts)
    focus, times, remarks = opened(path)
    assert np.isnan(focus).all()
    assert times == pytest.approx(np.arange(6) / 20)
    assert len(remarks) == 1
    assert "are taken as times" in remarks[0]
    assert "--axes ZYX" in remarks[0]


def test_slices_of_a_file_that_says_nothing_are_times(tmp_path):
    path = tmp_path / "video.tif"
    write_imagej(path)
    focus, _, remarks = opened(path)
    assert np.isnan(focus).all()
    assert any("has no information about the focus" in text for text in remarks)


@pytest.mark.parametrize("facts", [{"spacing": 2.0}, {"spacing": 2.0, "finterval": 0.05}, {"spacing": 1.0}])
def test_slices_with_a_spacing_are_a_focus_series_and_that_is_said(tmp_path, facts):
    path = tmp_path / "scan.tif"
    write_imagej(path, **facts)
    focus, _, remarks = opened(path)
    assert focus == pytest.approx(np.arange(6) * facts["spacing"])
    assert any("the focus moves (--axes TYX if they are times)" in text for text in remarks)


@pytest.mark.parametrize(("heights", "are_times"), [([5.0] * 6, True), ([0.0] * 6, True), (range(6), False)])
def test_focus_positions_of_the_planes_decide_where_the_file_has_them(tmp_path, heights, are_times):
    path = tmp_path / "video.ome.tif"
    plane = {"PositionZ": [float(z) for z in heights], "PositionZUnit": ["µm"] * 6}
    write_ome(path, Plane=plane, PhysicalSizeZ=1.0, TimeIncrement=0.05)
    focus, times, remarks = opened(path)
    assert focus == pytest.approx(list(map(float, heights)))
    assert times[1] == pytest.approx(0.05)
    assert ("the focus did not move" in remarks[0]) == are_times
    assert ("the focus moves" in remarks[0]) == (not are_times)


def test_an_ome_video_whose_frames_are_called_planes_is_a_video(tmp_path):
    path = tmp_path / "video.ome.tif"
    write_ome(path, PhysicalSizeZ=1.0, PhysicalSizeZUnit="µm", TimeIncrement=50.0, TimeIncrementUnit="ms")
    focus, times, _ = opened(path)
    assert np.isnan(focus).all()
    assert times == pytest.approx(np.arange(6) / 20)


def test_a_zarr_axis_z_beside_a_frame_interval_is_time(tmp_path):
    path = tmp_path / "video.zarr"
    group = zarr.create_group(str(path), zarr_format=2)
    group.create_array("0", shape=(1, 6, 8, 9), dtype="uint8")[...] = STACK[None]
    axes = [{"name": "t", "type": "time", "unit": "second"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    scale = [{"type": "scale", "scale": [0.05, 1.0, 0.5, 0.5]}]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["multiscales"] = [image]
    focus, times, remarks = opened(path)
    assert np.isnan(focus).all()
    assert times == pytest.approx(np.arange(6) / 20)
    assert "are taken as times" in remarks[0]


def test_a_scan_is_believed_to_be_one_more_readily(tmp_path):
    path = tmp_path / "scan.tif"
    write_imagej(path, spacing=1.0, finterval=0.05)
    stack = open_stack(path, is_scan=True)
    assert stack.info.axes == "Z"
    assert stack.read(3).focus_um == pytest.approx(3.0)
    stack.close()


EVIDENCE = st.builds(AxisEvidence, *[st.sampled_from([np.nan, 0.05, 1.0, 2.0])] * 3)


@given(st.sampled_from(["TZYX", "ZTYX", "TYX", "CZYX"]), EVIDENCE, st.booleans())
def test_axes_that_the_file_tells_apart_are_never_changed(axes, evidence, is_scan):
    sizes = [1 if name == "C" else 5 for name in axes]
    if "T" not in axes:
        sizes[axes.index("Z")] = 1
    assert decide_axes(axes, sizes, evidence, is_scan=is_scan) == (axes, "")


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["images"] = STACK


def write_pages(path):
    tifffile.imwrite(path, STACK, photometric="minisblack")


def write_zarr(path):
    zarr.create_array(str(path), shape=STACK.shape, dtype="uint8")[...] = STACK


UNNAMED = [("video.h5", write_hdf5), ("video.tif", write_pages), ("video.zarr", write_zarr)]


@pytest.mark.parametrize(("name", "write"), UNNAMED)
def test_axes_without_names_are_assumed_to_be_times_and_said(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    _, times, remarks = opened(path)
    assert times == pytest.approx(np.arange(6.0))
    assert any("TYX assumed (--axes)" in text for text in remarks)


@pytest.mark.parametrize(("name", "write"), [*UNNAMED, ("ij.tif", write_imagej), ("a.ome.tif", write_ome)])
@pytest.mark.parametrize("axes", ["ZYX", "TYX", "tyx"])
def test_the_user_says_what_the_axes_are(tmp_path, name, write, axes):
    path = tmp_path / name
    write(path)
    stack = open_stack(path, axes)
    assert stack.info.axes == axes[0].upper()
    assert not any("taken as" in text or "assumed" in text for text in stack.info.remarks)
    np.testing.assert_array_equal(stack.read(4).image, STACK[4])
    stack.close()


def test_a_folder_of_a_focus_scan_can_be_called_one(tmp_path):
    for number, image in enumerate(STACK):
        tifffile.imwrite(tmp_path / f"{number}.tif", image)
    assert open_stack(tmp_path, "ZYX").info.axes == "Z"
    with pytest.raises(ConfigurationError, match="6 x 8 x 9"):
        open_stack(tmp_path, "TZYX")


def test_axes_given_for_a_series_keep_the_spacing_of_its_file(tmp_path):
    path = tmp_path / "scan.tif"
    write_imagej(path, finterval=0.05, spacing=1.0)
    assert opened(path, axes="ZYX")[0] == pytest.approx(np.arange(6.0))
    assert np.isnan(opened(path, axes="TYX")[0]).all()


def test_frames_that_a_file_calls_channels_can_be_called_times(tmp_path):
    path = tmp_path / "video.ome.tif"
    write_ome(path, "CYX")
    with pytest.raises(SourceError, match=r"6 channels.*--axes TYX"):
        open_stack(path)
    assert len(opened(path, axes="TYX")[1]) == 6


@pytest.mark.parametrize(("axes", "what"), [
    ("XYT", "y and x must be the last two"), ("TQYX", "Q is not an axis"), ("TTYX", "once"), ("T", "last two"),
    ("", "last two"), ("time", "E, I, M is not an axis"),
])  # fmt: skip
def test_axes_that_cannot_be_are_refused_in_one_line(axes, what):
    with pytest.raises(ConfigurationError, match=what) as caught:
        parse_axes(axes)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=what):
        RecordingSettings(path="video.tif", axes=axes)


def test_axes_of_length_one_may_be_left_out(tmp_path):
    assert given_axes(tmp_path, (1, 6, 1, 8, 9), "TYX") == "CTZYX"
    assert given_axes(tmp_path, (1, 8, 9), "TYX") == "TYX"
    with pytest.raises(ConfigurationError, match="are 4, but"):
        given_axes(tmp_path, (6, 8, 9), "TZYX")


@pytest.mark.parametrize("labels", [("z", "y", "x"), ("depth", "height", "width")])
def test_labels_of_an_hdf5_dataset_name_its_axes(tmp_path, labels):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["images"] = STACK
        for dimension, label in zip(file["images"].dims, labels, strict=True):
            dimension.label = label
        file["images"].attrs["element_size_um"] = [2.0, 0.5, 0.5]
    stack = open_stack(path)
    assert stack.info.axes == "Z"
    assert stack.read(2).focus_um == 4.0
    assert stack.info.pixel_size_um == 0.5
    stack.close()
