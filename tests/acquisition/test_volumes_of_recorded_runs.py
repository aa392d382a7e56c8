"""Recorded volumes have their sizes and slices for other programs, and come back as they were."""

from dataclasses import replace

import numpy as np
import ome_types
import pytest
import tifffile
import zarr
from recorded import pattern

from acquisition.recorded_run.places import recorded_files
from acquisition.recorded_run.source import RecordedRun
from acquisition.recorder.compression_choice import CompressionChoice
from acquisition.recorder.frame_table import FrameRow, head_line, line, parse, write
from acquisition.recorder.image_writer import ImageFacts
from acquisition.recorder.tiff_images import TiffImages
from acquisition.recorder.zarr_images import ZarrImages
from stream.errors import SourceError
from stream.messages import FrameInfo
from stream.volume_info import VolumeInfo

SHAPE = (4, 6, 9)
Z_UM = (0.0, 0.7, 1.4, 2.2)
FACTS = ImageFacts(SHAPE, "uint16", 0.25, 20.0, "a run", "tracks", "made up", z_step_um=0.7)


def info_of(frame, **changes):
    upwards = frame % 2 == 0
    times_s = tuple(0.01 * (k if upwards else 3 - k) for k in range(4))
    volume = VolumeInfo(Z_UM, times_s, (2,) if frame == 1 else (), upwards)
    return replace(
        FrameInfo("a run", frame, frame, frame / 20, 5, 1.7e9, focus_um=40.0, exposure_ms=4.0, pixel_size_um=0.25,
                  volume=volume),
        **changes,
    )  # fmt: skip


def recorded(folder, kind, infos):
    if kind == "zarr":
        path = folder / "tracks.frames.ome.zarr"
        writer = ZarrImages(path, FACTS, CompressionChoice("auto"), attributes={})
    else:
        path = folder / "tracks.frames.ome.tif"
        writer = TiffImages(path, FACTS, "zstd")
    for info in infos:
        writer.append(pattern(info.frame, SHAPE, "uint16"), info)
    writer.finish()
    rows = [FrameRow(index, None, info) for index, info in enumerate(infos)]
    write(folder / "tracks.frames.jsonl", head_line("a run", "tracks.h5", path.name), rows)
    return path


@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_a_recorded_volume_comes_back_with_its_voxels_its_slices_and_what_was_missing(tmp_path, kind):
    infos = [info_of(frame) for frame in (0, 1, 2, 5)]
    path = recorded(tmp_path, kind, infos)
    source = RecordedRun(recorded_files(path), run_id="again")
    assert (source.info.depth, source.info.height, source.info.width) == SHAPE
    assert source.info.z_step_um == pytest.approx(0.7)
    assert source.info.frames == 4
    frames = list(source.frames())
    for info, frame in zip(infos, frames, strict=True):
        np.testing.assert_array_equal(frame.image, pattern(info.frame, SHAPE, "uint16"))
        assert frame.info.volume == info.volume
        assert frame.info.focus_um == info.focus_um
    assert source.counts()["not_recorded"] == 2
    np.testing.assert_array_equal(source.image(3), pattern(5, SHAPE, "uint16"))
    source.close()


def test_other_programs_find_the_size_of_a_voxel_and_the_height_and_time_of_each_slice(tmp_path):
    infos = [info_of(0), info_of(1)]
    folder = tmp_path / "zarr"
    folder.mkdir()
    recorded(folder, "zarr", infos)
    ome = zarr.open_group(str(folder / "tracks.frames.ome.zarr"), mode="r").attrs["ome"]["multiscales"][0]
    assert [(axis["name"], axis.get("unit")) for axis in ome["axes"]] == [
        ("t", "second"), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer"),
    ]  # fmt: skip
    scale = ome["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == pytest.approx([0.05, 0.7, 0.25, 0.25])
    path = recorded(tmp_path, "tiff", infos)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "TZYX"
        assert file.series[0].shape == (2, *SHAPE)
    pixels = ome_types.from_tiff(path).images[0].pixels
    assert (pixels.physical_size_z, pixels.size_z, pixels.size_t) == (0.7, 4, 2)
    planes = {(plane.the_t, plane.the_z): plane for plane in pixels.planes}
    assert planes[0, 3].position_z == pytest.approx(42.2)
    assert planes[0, 3].delta_t == pytest.approx(0.03)
    assert planes[1, 3].delta_t == pytest.approx(0.05)  # downwards: the highest slice is taken first


def test_a_recording_whose_volumes_have_unequal_depths_is_refused(tmp_path):
    other = replace(info_of(1), volume=VolumeInfo((0.0, 1.0)))
    path = recorded(tmp_path, "tiff", [info_of(0), other])
    with pytest.raises(SourceError, match="volumes of 2 to 4 slices; it is damaged"):
        RecordedRun(recorded_files(path), run_id="again")


@pytest.mark.parametrize(
    "broken", [b'"z_um":[]', b'"z_um":[0.0,0.7,0.7,2.2]', b'"z_um":"far"', b'"z_um":[1e400]']
)
def test_a_row_with_slices_that_cannot_be_is_not_read(broken):
    text = line(FrameRow(0, None, info_of(0)))
    assert parse(text).info.volume == info_of(0).volume
    assert parse(text.replace(b'"z_um":[0.0,0.7,1.4,2.2]', broken)) is None
