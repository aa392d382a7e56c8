"""Slices of which no chunk was ever written are missing from their volumes, not black."""

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acquisition.recording import open_recording, open_stack
from stream.errors import SourceError

SHAPE = (7, 9)


def volumes(*lead):
    return np.random.default_rng(1).integers(1, 999, (*lead, *SHAPE), np.uint16)


def ome_zarr(path, shape, axes="TZYX", zarr_format=3, **how):
    """An array of an OME-Zarr, nothing written yet."""
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    array = group.create_array(
        "0", shape=shape, dtype="uint16", **{"chunks": (1,) * (len(shape) - 2) + SHAPE, **how}
    )
    units = {"T": "second", "Z": "micrometer", "Y": "micrometer", "X": "micrometer"}
    image = {
        "axes": [
            {"name": axis.lower(), "type": "time" if axis == "T" else "space", "unit": units[axis]}
            for axis in axes
        ],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {
                        "type": "scale",
                        "scale": [{"T": 0.5, "Z": 0.3, "Y": 0.1, "X": 0.1}[axis] for axis in axes],
                    }
                ],
            }
        ],
    }
    if zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **image}]
    return array


def read(path, **options):
    recording = open_recording(path, run_id="run", volumes=True, **options)
    try:
        return recording, list(recording.frames())
    finally:
        recording.close()


LAYOUTS = {
    "a slice a chunk": {},
    "zarr 2": {"zarr_format": 2},
    "tiles": {"chunks": (1, 1, 4, 5)},
    "shards": {"chunks": (1, 1, *SHAPE), "shards": (2, 4, *SHAPE)},
    "tiles in shards": {"chunks": (1, 1, 4, 5), "shards": (2, 2, 8, 10)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1))
def test_of_a_zarr_the_slices_that_were_written_are_there_and_the_others_missing(tmp_path, layout, written):
    images = volumes(5, 4)
    array = ome_zarr(tmp_path / "run.zarr", images.shape, **LAYOUTS[layout])
    for t, z in sorted(written):
        array[t, z] = images[t, z]
    recording, frames = read(tmp_path / "run.zarr")
    there = sorted({t for t, _ in written})
    expected = {t: {z for z in range(4) if (t, z) not in written} for t in there}
    assert [set(frame.info.volume.missing) for frame in frames] == [expected[t] for t in there]
    for t, frame in zip(there, frames, strict=True):
        known = [z for z in range(4) if (t, z) in written]
        np.testing.assert_array_equal(frame.image[known], images[t, known])
        assert not frame.image[sorted(expected[t])].any()
    partial = sum(bool(each) for each in expected.values())
    told = [text for text in recording.remarks if "lack slices" in text]
    assert len(told) == bool(partial)
    if partial:
        assert f"{partial} of its {len(there)} volumes" in told[0]
        assert "were never written" in told[0]
    lost = there[-1] - there[0] + 1 - len(there)
    assert recording.counts()["lost_in_recording"] == lost
    assert any("no slice at all" in text for text in recording.remarks) == bool(lost)


def test_slices_of_one_chunk_are_missing_together(tmp_path):
    images = volumes(3, 6)
    array = ome_zarr(tmp_path / "run.zarr", images.shape, chunks=(1, 3, *SHAPE))
    array[0], array[1, 3:], array[2] = images[0], images[1, 3:], images[2]
    _, frames = read(tmp_path / "run.zarr")
    assert [frame.info.volume.missing for frame in frames] == [(), (0, 1, 2), ()]
    np.testing.assert_array_equal(frames[1].image[3:], images[1, 3:])


def test_one_volume_that_is_not_whole_is_partial_and_no_series_of_images(tmp_path):
    path, images = tmp_path / "run.zarr", volumes(6)
    ome_zarr(path, images.shape, axes="ZYX")[:4] = images[:4]
    recording, (frame,) = read(path)
    assert frame.info.volume.missing == (4, 5)
    np.testing.assert_array_equal(frame.image[:4], images[:4])
    assert any("2 of 6 slices were never written" in text for text in recording.remarks)
    stack = open_stack(path, is_scan=True)
    np.testing.assert_array_equal(stack.read(3).image, images[3])
    with pytest.raises(SourceError, match="was never written"):
        stack.read(4)
    stack.close()


def test_a_channel_that_was_written_is_not_that_which_was_not(tmp_path):
    images = volumes(2, 2, 3)  # T C Z
    array = ome_zarr(tmp_path / "run.zarr", images.shape, axes="TZYX")  # axes are given below
    array[:, 0], array[0, 1], array[1, 1, 2] = images[:, 0], images[0, 1], images[1, 1, 2]
    options = {"axes": "TCZYX", "z_step_um": 0.3, "pixel_size_um": 0.1, "frame_rate_hz": 2.0}
    path = tmp_path / "run.zarr" / "0"
    _, whole = read(path.with_name("0::channel=0"), **options)
    assert [frame.info.volume.missing for frame in whole] == [(), ()]
    _, partial = read(path.with_name("0::channel=1"), **options)
    assert [frame.info.volume.missing for frame in partial] == [(), (0, 1)]


@pytest.mark.parametrize("chunks", [(1, 1, *SHAPE), (1, 2, 4, 9)])
def test_of_an_hdf5_dataset_too(tmp_path, chunks):
    images = volumes(3, 4)
    with h5py.File(tmp_path / "run.h5", "w") as file:
        data = file.create_dataset("images", images.shape, np.uint16, chunks=chunks)
        data[0], data[1, 2:], data[2] = images[0], images[1, 2:], images[2]
    _, frames = read(tmp_path / "run.h5", z_step_um=0.3, pixel_size_um=0.1, frame_rate_hz=2.0)
    assert [frame.info.volume.missing for frame in frames] == [(), (0, 1), ()]


def test_images_that_were_never_written_are_black_as_ever_and_told(tmp_path):
    images = volumes(6)
    array = zarr.create_array(
        str(tmp_path / "video.zarr"), shape=images.shape, chunks=(1, *SHAPE), dtype="uint16"
    )
    array[:2], array[4:] = images[:2], images[4:]
    recording = open_recording(tmp_path / "video.zarr", run_id="run", frame_rate_hz=2.0)
    assert not recording.image(3).any()
    assert any("they are black frames" in text for text in recording.remarks)
    recording.close()
