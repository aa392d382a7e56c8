"""Files that hold volumes, taken as they are written: half of one is waited for, what does not come is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from test_watched import QUICK, nothing_comes, read, until, watching

from acquisition.source_settings import SourceSettings
from acquisition.watched_folder.watched import open_watched
from stream.errors import SourceError

SHAPE = (4, 12, 16)
OME = {
    "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.2, "PhysicalSizeYUnit": "µm",
    "PhysicalSizeZ": 0.5, "PhysicalSizeZUnit": "µm",
}  # fmt: skip


def volume(number: int, shape: tuple[int, ...] = SHAPE) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(number).integers(1, 4000, shape).astype(np.uint16)


def save_ome(path: Path, images: npt.NDArray[np.uint16], axes: str, **facts: Any) -> None:
    tifffile.imwrite(path, images, photometric="minisblack", metadata=OME | {"axes": axes} | facts)


def missing(frame: Any) -> tuple[int, ...]:
    found: tuple[int, ...] = frame.info.volume.missing
    return found


def test_each_file_is_one_volume(tmp_path: Path) -> None:
    for number in range(3):
        save_ome(tmp_path / f"run_{number:03d}.ome.tif", volume(number), "ZYX")
    with watching(tmp_path) as (source, _):
        info = source.info
        assert (info.depth, info.height, info.width) == SHAPE
        assert (info.pixel_size_um, info.z_step_um) == (pytest.approx(0.2), pytest.approx(0.5))
        frames = read(source, 3)
        save_ome(tmp_path / "run_004.ome.tif", volume(4), "ZYX")
        frames += read(source, 1)
        assert [frame.info.camera_frame for frame in frames] == [0, 1, 2, 4]
        for frame in frames:
            np.testing.assert_array_equal(frame.image, volume(frame.info.camera_frame))
            assert frame.info.volume.z_um == pytest.approx((0.0, 0.5, 1.0, 1.5))
        assert source.counts()["lost_in_folder"] == 1


def test_or_several_one_for_each_time(tmp_path: Path) -> None:
    for number in range(2):
        images = np.stack([volume(3 * number + k) for k in range(3)])
        save_ome(tmp_path / f"run_{number}.ome.tif", images, "TZYX")
    with watching(tmp_path) as (source, _):
        frames = read(source, 6)
        assert [frame.info.camera_frame for frame in frames] == list(range(6))
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, volume(number))


def test_a_stack_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "run_1.tif"
    tifffile.imwrite(tmp_path / "run_0.tif", volume(0), photometric="minisblack", metadata=None)
    settings = {"axes": "ZYX", "z_step_um": 0.5, "pixel_size_um": 0.2, "missing_s": 20}
    with watching(tmp_path, **settings) as (source, _):
        read(source, 1)
        with tifffile.TiffWriter(path) as writer:
            for z in range(4):
                writer.write(volume(1)[z], contiguous=False, metadata=None)
                if z == 2:
                    nothing_comes(source)
        (frame,) = read(source, 1)
        np.testing.assert_array_equal(frame.image, volume(1))
        assert missing(frame) == ()


def test_slices_that_never_come_are_missing(tmp_path: Path) -> None:
    settings = {"axes": "ZYX", "z_step_um": 0.5, "pixel_size_um": 0.2}
    for number, slices in enumerate((4, 3, 4)):
        tifffile.imwrite(
            tmp_path / f"run_{number}.tif", volume(number)[:slices], photometric="minisblack", metadata=None
        )
    with watching(tmp_path, **settings) as (source, _):
        frames = read(source, 3)
        assert [missing(frame) for frame in frames] == [(), (3,), ()]
        np.testing.assert_array_equal(frames[1].image[:3], volume(1)[:3])
        assert not frames[1].image[3].any()
        assert frames[1].info.volume.z_um == pytest.approx((0.0, 0.5, 1.0, 1.5))


def ome_zarr(path: Path, times: int) -> zarr.Array:
    group = zarr.open_group(str(path), mode="w")
    axes = [{"name": "t", "type": "time", "unit": "second"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [0.1, 0.5, 0.2, 0.2]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    array = group.create_array("0", shape=(times, *SHAPE), chunks=(1, 1, *SHAPE[1:]), dtype="uint16")
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return array


def test_a_zarr_is_taken_volume_by_volume_while_its_slices_come(tmp_path: Path) -> None:
    array = ome_zarr(tmp_path / "run.zarr", 6)
    array[0] = volume(0)
    with watching(tmp_path, missing_s=20) as (source, _):
        frames = read(source, 1)
        for number in range(1, 4):
            array[number, :2] = volume(number)[:2]
            nothing_comes(source, 0.15)
            array[number, 2:] = volume(number)[2:]
            frames += read(source, 1)
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, volume(number))
            assert missing(frame) == ()


def test_of_a_zarr_what_does_not_come_is_missing_or_lost(tmp_path: Path) -> None:
    array = ome_zarr(tmp_path / "run.zarr", 6)
    array[0], array[1, [0, 2, 3]], array[3] = volume(0), volume(1)[[0, 2, 3]], volume(3)
    with watching(tmp_path) as (source, _):
        frames = read(source, 3)
        assert [(frame.info.camera_frame, missing(frame)) for frame in frames] == [
            (0, ()),
            (1, (1,)),
            (3, ()),
        ]
        assert source.counts()["lost_in_folder"] == 1


def test_a_file_of_another_depth_or_distance_is_lost_and_the_run_goes_on(tmp_path: Path) -> None:
    save_ome(tmp_path / "run_0.ome.tif", volume(0), "ZYX")
    save_ome(tmp_path / "run_1.ome.tif", volume(1, (6, 12, 16)), "ZYX")
    save_ome(tmp_path / "run_2.ome.tif", volume(2), "ZYX", PhysicalSizeZ=0.9)
    save_ome(tmp_path / "run_3.ome.tif", volume(3), "ZYX")
    with watching(tmp_path) as (source, said):
        frames = read(source, 2)
        assert [frame.info.camera_frame for frame in frames] == [0, 3]
        assert source.counts()["lost_in_folder"] == 2
        assert any("0.9 um apart" in text for text in said)


def test_voxels_that_no_file_tells_are_asked_for_at_once(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "run_0.tif", volume(0), photometric="minisblack", metadata=None)
    for settings, reason in (
        ({"axes": "ZYX"}, "source.z_step_um and source.pixel_size_um"),
        ({"axes": "ZYX", "pixel_size_um": 0.2}, "give source.z_step_um"),
        ({"axes": "ZYX", "z_step_um": 0.5}, "give source.pixel_size_um"),
    ):
        with pytest.raises(SourceError, match=reason) as caught:
            open_watched(SourceSettings(watch=tmp_path, **QUICK, **settings), run_id="run", say=print)
        assert "--" not in str(caught.value)
    with watching(tmp_path, axes="ZYX", z_step_um=0.5, pixel_size_um=0.2) as (source, _):
        (frame,) = read(source, 1)
        np.testing.assert_array_equal(frame.image, volume(0))


def test_a_stack_that_is_gone_in_the_middle_costs_that_volume(tmp_path: Path) -> None:
    for number in range(3):
        save_ome(tmp_path / f"run_{number}.ome.tif", volume(number), "ZYX")
    (tmp_path / "run_1.ome.tif").write_bytes(b"II*\0 no tiff at all")
    with watching(tmp_path, quiet_s=2.0) as (source, _):
        frames = read(source, 2)
        assert [frame.info.camera_frame for frame in frames] == [0, 2]
        until(lambda: source.read(0.01) is None and source.ended)
        assert source.counts()["lost_in_folder"] == 1
