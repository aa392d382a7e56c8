"""TIFF files of which the end is missing: the whole frames are read, the first that is not is named."""

import logging

import numpy as np
import pytest
import tifffile

from acquisition.recording import open_recording
from acquisition.stacks.library_errors import kept_quiet, plain
from stream.errors import SourceError

COUNT, SHAPE = 12, (48, 64)
STACK = np.random.default_rng(1).integers(1, 200, (COUNT, *SHAPE)).astype(np.uint16)


def one_by_one(path, **options):
    with tifffile.TiffWriter(path) as file:
        for image in STACK:
            file.write(image, photometric="minisblack", metadata=None, contiguous=False, **options)


KINDS = {
    "imagej": lambda path: tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "TYX"}),
    "imagej, slices": lambda path: tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "ZYX"}),
    "contiguous": lambda path: tifffile.imwrite(path, STACK, photometric="minisblack"),
    "big-endian": lambda path: tifffile.imwrite(path, STACK, photometric="minisblack", byteorder=">", bigtiff=True),
    "tiled": lambda path: tifffile.imwrite(path, STACK, photometric="minisblack", tile=(16, 16)),
    "compressed": lambda path: tifffile.imwrite(path, STACK, photometric="minisblack", compression="zlib"),
    "ome": lambda path: tifffile.imwrite(path, STACK, photometric="minisblack", ome=True),
    "pages": one_by_one,
}  # fmt: skip


def read_until_it_fails(path):
    recording = open_recording(path, run_id="run")
    frames = []
    try:
        while not recording.ended:
            frames.append(recording.read(0.1).image)
    except SourceError as error:
        return frames, str(error)
    finally:
        recording.close()
    pytest.fail("it was read as if it were whole")


@pytest.mark.parametrize("filled", [False, True], ids=["cut off", "filled with zeros"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8])
def test_the_whole_frames_of_a_broken_file_are_read_and_the_first_missing_one_is_named(
    tmp_path, kind, part, filled
):
    path = tmp_path / "broken.tif"
    KINDS[kind](path)
    data = path.read_bytes()
    kept = int(part * len(data))
    path.write_bytes(data[:kept] + bytes(len(data) - kept if filled else 0))
    frames, text = read_until_it_fails(path)
    assert part * COUNT - 1.1 <= len(frames) <= part * COUNT + 0.5
    np.testing.assert_array_equal(frames, STACK[: len(frames)])
    assert f"is damaged or truncated at frame {len(frames)}" in text
    assert ("only zeros" in text) == filled
    assert "tifffile" not in text
    assert "copy it again" in text
    if kind not in {"pages", "compressed"}:
        assert f"at frame {len(frames)} of {COUNT}" in text


@pytest.mark.parametrize("kind", ["imagej", "contiguous", "tiled"])
def test_black_frames_at_the_end_of_a_whole_file_are_frames(tmp_path, kind):
    path = tmp_path / "black.tif"
    KINDS[kind](path)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for page in list(file.pages)[6:]:
            file.filehandle.seek(page.dataoffsets[0])
            file.filehandle.write(bytes(sum(page.databytecounts)))
    recording = open_recording(path, run_id="run")
    frames = []
    while not recording.ended:
        frames.append(recording.read(0.1).image)
    recording.close()
    assert len(frames) == COUNT
    assert not np.any(frames[6:])


@pytest.mark.parametrize(
    "text",
    [
        "<tifffile.TiffPages @8> invalid page offset 74112",
        "<zarr.core.array.Array file:///x shape=(3,)> invalid page offset 74112",
        "<Array memory://1/0 shape=(1, 2) dtype=uint8>: invalid page offset 74112",
        '<HDF5 dataset "a": shape (3, 4), type "<u2"> invalid page offset 74112',
        "<_io.BytesIO object at 0x7f> invalid page offset 74112",
    ],
)
def test_how_a_library_prints_its_objects_reaches_no_user(text):
    assert plain(ValueError(text)).endswith("invalid page offset 74112")
    assert "<" not in plain(ValueError(text))
    heard = []
    with kept_quiet(heard):
        logging.getLogger("tifffile").error(text)
    assert heard == [plain(ValueError(text))]
