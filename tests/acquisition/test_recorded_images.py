"""A recording under way: what is committed is what other programs see, at every moment and after every end."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import ome_types
import pytest
import tifffile
import yaozarrs
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import facts, frame, images_in, info, pattern, wrong_in

from acquisition.recorder import files
from acquisition.recorder.compression_choice import CompressionChoice
from acquisition.recorder.frame_table import read_frame_table
from acquisition.recorder.tiff_images import TiffImages
from acquisition.recorder.zarr_images import ZarrImages
from acquisition.recording import open_stack
from stream.errors import NoRoomError, OutputError
from stream.links import open_sender

PER_SHARD = 5
KINDS = ["zarr auto", "zarr none", "zarr zstd", "tiff none", "tiff zstd"]
SHAPES = [((6, 8), "uint8"), ((7, 5), "uint16"), ((3, 4, 6), "uint8")]


def open_images(kind, folder, shape=(6, 8), dtype="uint8", overwrite=False):
    name, compression = kind.split()
    about = facts(shape, dtype)
    if name == "tiff":
        path = folder / "tracks.frames.ome.tif"
        return path, TiffImages(path, about, compression, overwrite=overwrite)
    path = folder / "tracks.frames.ome.zarr"
    choice = None if compression == "none" else CompressionChoice(compression)
    attributes = {"liveptv": {"run_id": "a run"}}
    shard = PER_SHARD * about.nbytes
    return path, ZarrImages(
        path, about, choice, attributes=attributes, overwrite=overwrite, shard_bytes=shard
    )


def shows(path, numbers, shape, dtype):
    found = images_in(path)
    return len(found) == len(numbers) and all(
        np.array_equal(image, pattern(number, shape, dtype))
        for image, number in zip(found, numbers, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "dtype"), SHAPES)
@pytest.mark.parametrize("direct", [False, True])
@given(st.lists(st.sampled_from(["append", "append", "hurry", "commit", "rollback"]), max_size=40))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_readers_see_what_was_committed_and_nothing_else(
    tmp_path, monkeypatch, kind, shape, dtype, direct, steps
):
    monkeypatch.setattr(files, "LEAST_DIRECT", 0 if direct else 1 << 60)
    folder = tmp_path / "one"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path, writer = open_images(kind, folder, shape, dtype)
    committed, appended, number = [], [], 0
    for step in [*steps, "end"]:
        if step in {"append", "hurry"}:
            writer.append(pattern(number, shape, dtype), info(number), hurried=step == "hurry")
            appended.append(number)
            number += 1
        elif step == "rollback":
            writer.rollback()
            appended = []
        else:
            writer.finish() if step == "end" else writer.commit()
            committed, appended = committed + appended, []
        assert writer.images == len(committed)
        assert shows(path, committed, shape, dtype)
    writer.close()


def whole(kind, folder, count=12, shape=(6, 8), dtype="uint8"):
    path, writer = open_images(kind, folder, shape, dtype)
    for number in range(count):
        writer.append(pattern(number, shape, dtype), info(number))
    writer.finish()
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "dtype"), SHAPES)
def test_our_own_reader_has_images_and_scales(tmp_path, kind, shape, dtype):
    path = whole(kind, tmp_path, shape=shape, dtype=dtype)
    stack = open_stack(path)
    assert (stack.info.pixel_size_um, stack.info.frame_rate_hz) == (0.5, 50.0)
    assert (stack.info.planes, stack.info.volume) == (
        12 * (shape[0] if len(shape) == 3 else 1),
        shape[0] if len(shape) == 3 else 1,
    )
    assert stack.info.remarks == ()
    stack.close()


@pytest.mark.parametrize("kind", ["zarr auto", "zarr none"])
def test_the_zarr_is_valid_ome_zarr_of_version_0_5(tmp_path, kind):
    path = whole(kind, tmp_path)
    yaozarrs.validate_zarr_store(str(path))
    group = zarr.open_group(str(path), mode="r")
    assert group.attrs["liveptv"] == {"run_id": "a run"}
    image = group.attrs["ome"]["multiscales"][0]
    assert [axis["name"] for axis in image["axes"]] == ["t", "y", "x"]
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [1 / 50, 0.5, 0.5]
    array = group["0"]
    assert (array.chunks, array.shards) == ((1, 6, 8), (PER_SHARD, 6, 8))


@pytest.mark.parametrize("finished", [False, True])
def test_the_ome_xml_has_sizes_from_the_beginning_and_times_at_the_end(tmp_path, finished):
    path, writer = open_images("tiff none", tmp_path)
    for number in range(3):
        writer.append(pattern(number, (6, 8), "uint8"), info(number))
    writer.finish() if finished else writer.commit()
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        text = file.ome_metadata
    pixels = ome_types.from_xml(text).images[0].pixels
    assert (pixels.size_x, pixels.size_y, pixels.size_t) == (8, 6, 3)
    assert (pixels.physical_size_x, pixels.time_increment) == (0.5, 1 / 50)
    times = [plane.delta_t for plane in pixels.planes]
    assert times == ([0.0, 0.02, 0.04] if finished else [])
    writer.close()


@pytest.mark.parametrize("kind", ["zarr none", "tiff none"])
def test_an_existing_file_stays_unless_it_may_be_replaced(tmp_path, kind):
    path = whole(kind, tmp_path)
    with pytest.raises(OutputError, match="exists"):
        open_images(kind, tmp_path)
    assert shows(path, list(range(12)), (6, 8), "uint8")
    path, writer = open_images(kind, tmp_path, overwrite=True)
    writer.append(pattern(7, (6, 8), "uint8"), info(7))
    writer.finish()
    assert shows(path, [7], (6, 8), "uint8")


def test_a_folder_that_is_no_zarr_is_never_replaced(tmp_path):
    mine = tmp_path / "tracks.frames.ome.zarr"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError):
        open_images("zarr none", tmp_path, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "mine"


def test_images_that_compress_take_less_room(tmp_path):
    path, writer = open_images("zarr zstd", tmp_path, (64, 64))
    writer.append(np.zeros((64, 64), np.uint8), info(0))
    assert writer.stored_bytes < 64 * 64 / 4
    writer.append(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), info(1))
    writer.finish()
    assert writer.stored_bytes <= 64 * 64 * 1.25 + 16  # noise is stored as it is
    assert len(images_in(path)) == 2


@pytest.mark.parametrize(("kind", "compression"), [("ome-zarr", "auto"), ("ome-tiff", "none")])
@pytest.mark.parametrize("after", [3, 40, 90])
def test_every_acknowledged_frame_of_a_killed_recorder_is_there(tmp_path, kind, compression, after):
    shape, dtype = (32, 40), "uint16"
    sender = open_sender("tcp://127.0.0.1:0", run_id="a run", source="test", slot_bytes=2560, slots=8)
    here = Path(__file__).parent
    asked = [sender.address, tmp_path / "tracks.h5", kind, compression, dtype]
    child = subprocess.Popen(
        [sys.executable, here / "recorded.py", *asked, *map(str, shape)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(here.parents[1]), str(here)))},
    )
    number, until_s = 0, time.monotonic() + 120
    while sender.account.acknowledged < after and time.monotonic() < until_s:
        try:
            sender.send(frame(number, shape, dtype), 0.1)
        except NoRoomError:
            continue
        number += 1
    child.kill()
    child.wait()
    time.sleep(0.1)  # acknowledgements on their way
    acknowledged = sender.account.acknowledged
    sender.close()
    assert acknowledged >= after
    table = read_frame_table(tmp_path / "tracks.frames.jsonl")
    assert len(table.rows) >= acknowledged
    images = tmp_path / f"tracks.frames.{'ome.zarr' if kind == 'ome-zarr' else 'ome.tif'}"
    assert wrong_in(images, table) == ""
    assert json.loads((tmp_path / "tracks.frames.jsonl").read_text().splitlines()[0])["images"] == images.name
