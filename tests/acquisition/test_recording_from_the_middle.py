"""A recording that is read from a frame on gives the frames that it gives when read as a whole."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from acquisition.recorded_run.places import recorded_files
from acquisition.recorded_run.source import RecordedRun
from acquisition.recorder.frame_table import FrameRow, head_line, write
from acquisition.recording import open_recording
from stream.messages import FrameInfo


def facts(frame):
    info = frame.info
    known = (info.frame, info.camera_frame, info.time_s, info.focus_um, info.exposure_ms, info.pixel_size_um)
    return tuple(None if value != value else value for value in known), frame.image.tobytes()


def images(count, seed=3):
    return np.random.default_rng(seed).integers(0, 200, (count, 12, 16), np.uint8)


def tiff(folder):
    path = folder / "a.tif"
    meta = {"axes": "TYX", "finterval": 0.5}
    tifffile.imwrite(path, images(9), imagej=True, metadata=meta)
    return path


def numbered_images(folder):
    """Numbers 0 to 10 without 4 and 5: two frames lost."""
    place = folder / "images"
    place.mkdir()
    for number, image in zip([0, 1, 2, 3, 6, 7, 8, 9, 10], images(9), strict=True):
        tifffile.imwrite(place / f"img_{number:03d}.tif", image)
    return place


def ome_tiff(folder):
    path = folder / "b.ome.tif"
    tifffile.imwrite(path, images(9), metadata={"axes": "TYX", "TimeIncrement": 0.25})
    return path


def zarr_array(folder):
    path = folder / "c.zarr"
    array = zarr.create_array(path, shape=(9, 12, 16), chunks=(1, 12, 16), dtype="u1")
    array[:] = images(9)
    return path


def hdf5(folder):
    path = folder / "d.h5"
    with h5py.File(path, "w") as file:
        file["stack"] = images(9)
    return path


@pytest.mark.parametrize("make", [tiff, numbered_images, ome_tiff, zarr_array, hdf5])
@pytest.mark.parametrize("first", [0, 1, 4, 8, 9, 50])
def test_frames_after_a_skip_are_those_of_the_whole(make, first, tmp_path):
    path = make(tmp_path)
    whole, part = open_recording(path, run_id="a"), open_recording(path, run_id="a")
    expected = [facts(frame) for frame in whole.frames()]
    part.skip_to(first)
    assert [facts(frame) for frame in part.frames()] == expected[first:]
    assert part.counts() == whole.counts()
    assert part.first_number == whole.first_number
    whole.close()
    part.close()


@pytest.mark.parametrize("first", [0, 1, 4, 8, 9, 50])
def test_a_recorded_run_goes_on_in_its_middle_with_its_own_numbers(first, tmp_path):
    path = tmp_path / "tracks.frames.ome.tif"
    tifffile.imwrite(path, images(9), metadata={"axes": "TYX"})
    numbers = [2, 3, 4, 8, 9, 10, 11, 20, 21]
    rows = [FrameRow(n, None, FrameInfo("a", k, k, 0.1 * k, 0, 0.0)) for n, k in enumerate(numbers)]
    write(tmp_path / "tracks.frames.jsonl", head_line("a", "tracks.h5", path.name), rows)
    whole, part = (RecordedRun(recorded_files(path), run_id="b") for _ in range(2))
    expected = [facts(frame) for frame in whole.frames()]
    part.skip_to(first)
    assert [facts(frame) for frame in part.frames()] == expected[first:]
    assert [one[0][0] for one in expected] == numbers
    assert part.counts() == whole.counts()
    whole.close()
    part.close()


def test_a_stack_that_does_not_know_its_numbers_is_asked_by_reading(tmp_path):
    from acquisition.stacks.stack import Plane, camera_frame_of

    class Plain:
        info, damage = None, ""

        def read(self, index):
            return Plane(np.zeros((2, 2), np.uint8), camera_frame=7 + index)

        def close(self):
            pass

    assert camera_frame_of(Plain(), 3) == 10
