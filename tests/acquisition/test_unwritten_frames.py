import json
import math
import tracemalloc

import h5py
import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs
from hypothesis import given
from hypothesis import strategies as st

from acquisition.recording import open_recording
from acquisition.stacks.claimed_size import MOST_PLANES
from acquisition.stacks.unwritten_frames import written
from stream.errors import SourceError

IMAGE = (16, 20)


@given(st.integers(1, 30), st.integers(1, 7), st.data())
def test_frames_end_with_the_last_that_was_written_and_those_missing_before_it_are_told(frames, each, data):
    chunks = math.ceil(frames / each)
    kept = data.draw(st.sets(st.integers(0, chunks - 1), min_size=1))
    found = written("video", (frames, *IMAGE), (each, 8, 20), [(k, row, 0) for k in kept for row in range(2)])
    assert found.frames == min((max(kept) + 1) * each, frames)
    missing = [k for k in range(max(kept)) if k not in kept]
    assert ("left out" in found.remark) == (found.frames < frames)
    assert bool(found.holes) == bool(missing)
    if missing:
        assert f"the first at frame {each * missing[0]}" in found.holes


def test_what_lies_outside_the_grid_is_no_chunk_of_it():
    present = [(0, 0, 0), (7, 0, 0), (0, 0), (1, 2, 3, 4)]
    assert written("video", (5, *IMAGE), (1, *IMAGE), present).frames == 1


def test_an_array_of_which_nothing_was_written_is_refused():
    with pytest.raises(SourceError, match="none of its 5 frames"):
        written("video", (5, *IMAGE), (1, *IMAGE), [])


@pytest.mark.parametrize("claimed", [10**9, 10**12, 10**30])
@pytest.mark.parametrize("kept", [range(12), (0, 1, 2, 5, 11)])
def test_what_was_written_of_a_claim_of_any_size_is_found_at_once(claimed, kept):
    tracemalloc.start()
    try:
        found = written("video", (claimed, 3, *IMAGE), (1, 3, *IMAGE), [(k, 0, 0, 0) for k in kept])
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
    assert found.frames == 36
    assert f"only 36 of {3 * claimed} frames were written" in found.remark
    assert ("the first at frame 9" in found.holes) == (len(kept) < 12)


@pytest.mark.parametrize("claimed", [20, 10**7, 10**9, 10**30])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_small_zarr_that_claims_many_frames_is_cut_or_refused_with_their_number(
    tmp_path, zarr_format, claimed
):
    path = tmp_path / "video.zarr"
    array = zarr.create_array(
        str(path), shape=(12, *IMAGE), chunks=(1, *IMAGE), dtype="uint16", zarr_format=zarr_format
    )
    array[...] = images(12)
    change_metadata(path, zarr_format, shape=[claimed, *IMAGE])
    if claimed > MOST_PLANES:
        with pytest.raises(SourceError, match=f"claims {claimed} images"):
            numbers_read(path)
        return
    read, told = numbers_read(path)
    assert read == images(12)[:, 0, 0].tolist()
    assert f"only 12 of {claimed} frames were written" in told


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([0, *IMAGE], r"chunks of 0 x 16 x 20 pixels"),
        ([1, 16, 0], r"chunks of 1 x 16 x 0 pixels"),
        ([10**6, 10**5, 10**5], r"one of its chunks \(1000000 x 100000 x 100000\) has 2e\+04 TB"),
        ([2, *IMAGE], r"frame 0 .*its chunk does not have the 2 x 16 x 20 pixels"),
        ([1, 8, 20], r"frame 0 .*its chunk does not have the 1 x 8 x 20 pixels"),
    ],
)
def test_chunks_of_impossible_sizes_are_one_plain_line(tmp_path, chunks, said):
    path = tmp_path / "video.zarr"
    array = zarr.create_array(str(path), shape=(5, *IMAGE), chunks=(1, *IMAGE), dtype="uint16", zarr_format=2)
    array[...] = images(5)
    change_metadata(path, 2, chunks=chunks)
    with pytest.raises(SourceError, match=said) as caught:
        numbers_read(path)
    assert "\n" not in str(caught.value)


def test_an_hdf5_file_that_claims_many_frames_is_cut_at_once(tmp_path):
    path = tmp_path / "video.h5"
    with h5py.File(path, "w") as file:
        stack = file.create_dataset(
            "images", (20_000, *IMAGE), np.uint16, chunks=(1, *IMAGE), compression="gzip"
        )
        stack[:12] = images(12)
    read, told = numbers_read(path)
    assert len(read) == 12
    assert "only 12 of 20000 frames were written" in told


def change_metadata(path, zarr_format, **facts):
    file = path / (".zarray" if zarr_format == 2 else "zarr.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def images(count):
    return np.random.default_rng(1).integers(1, 999, (count, *IMAGE), np.uint16)


def numbers_read(path):
    recording = open_recording(path, run_id="test", frame_rate_hz=20, pixel_size_um=1)
    try:
        read = []
        while not recording.ended:
            read.append(int(recording.read(1).image[0, 0]))
        return read, recording.info.description
    finally:
        recording.close()


@pytest.mark.parametrize(
    "names", [{"zarr_format": 2}, {"zarr_format": 3}, {"zarr_format": 3, "shards": (4, *IMAGE)}]
)
def test_a_zarr_array_made_ready_for_more_frames_than_came_ends_with_the_last(tmp_path, names):
    path, stack = tmp_path / "video.zarr", images(8)
    array = zarr.create_array(str(path), shape=(1000, *IMAGE), chunks=(1, *IMAGE), dtype="uint16", **names)
    array[:8] = stack
    read, told = numbers_read(path)
    assert read == stack[:, 0, 0].tolist()
    assert "only 8 of 1000 frames were written" in told


@pytest.mark.parametrize("chunks", [(1, *IMAGE), (4, 8, 20)])
def test_an_hdf5_stack_made_ready_for_more_frames_than_came_ends_with_the_last(tmp_path, chunks):
    path, stack = tmp_path / "video.h5", images(8)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (1000, *IMAGE), "uint16", chunks=chunks)[:8] = stack
    read, told = numbers_read(path)
    assert read == stack[:, 0, 0].tolist()
    assert "only 8 of 1000 frames were written" in told


def test_a_stack_that_is_whole_says_nothing_of_it(tmp_path):
    path = tmp_path / "video.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images(8), chunks=(3, *IMAGE))
    read, told = numbers_read(path)
    assert len(read) == 8
    assert "written" not in told
    assert "missing" not in told


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("keep", [8, 100, 300])
def test_a_blosc_chunk_that_is_cut_is_refused_always(tmp_path, zarr_format, keep):
    blosc = numcodecs.Blosc() if zarr_format == 2 else zarr.codecs.BloscCodec()
    path = tmp_path / "video.zarr"
    array = zarr.create_array(
        str(path), shape=(3, *IMAGE), chunks=(1, *IMAGE), dtype="uint16", zarr_format=zarr_format,
        compressors=blosc,
    )  # fmt: skip
    array[...] = images(3)
    chunk = path / ("1.0.0" if zarr_format == 2 else "c/1/0/0")
    chunk.write_bytes(chunk.read_bytes()[:keep])
    with pytest.raises(SourceError, match=r"video\.zarr: the chunk .* is truncated"):
        numbers_read(path)
