"""TIFF files that are damaged, hostile or unusual: read right or refused in a line; nothing huge is allocated."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from micromanager_files import write_ndtiff, write_split

from acquisition.recording import open_recording
from stream.errors import SourceError

SHAPE = (20, 30)


def images(count=6, dtype=np.uint16):
    return np.random.default_rng(1).integers(0, 200, (count, *SHAPE)).astype(dtype)


def replay(path, **options):
    recording = open_recording(Path(path), run_id="run", **options)
    try:
        frames = []
        while not recording.ended:
            frames.append(recording.read(0.1).image)
        return recording, np.stack(frames)
    finally:
        recording.close()


def refused(path):
    with pytest.raises(SourceError) as caught:
        replay(path)
    assert "\n" not in str(caught.value)
    assert Path(str(path)).name.partition(".")[0] in str(caught.value)
    return str(caught.value)


def tag_at(path, code, page=0):
    with tifffile.TiffFile(path) as file:
        return file.pages[page].tags[code]


def overwrite(path, code, value, page=0):
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[page].tags[code].overwrite(value, dtype=4 if code in (256, 257) else None)


# sizes that cannot be


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("size", [(10**9, 10**9), (10**9, 30), (20, 2 * 10**9), (70_000, 70_000)])
def test_a_page_that_claims_more_pixels_than_any_camera_has_is_refused_before_it_is_allocated(
    tmp_path, compression, size
):
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, images(1)[0], photometric="minisblack", compression=compression)
    overwrite(path, 257, size[0])
    overwrite(path, 256, size[1])
    tracemalloc.start()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_page_that_is_larger_than_its_pixels_is_refused(tmp_path):
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, images(1)[0], photometric="minisblack")
    overwrite(path, 257, 25_000)
    refused(path)


@pytest.mark.parametrize("size", ["SizeX", "SizeY", "SizeT", "SizeZ", "SizeC"])
@pytest.mark.parametrize("value", ["1000000000", "0", "-4", "many", "99999999999999999999"])
def test_impossible_sizes_in_ome_are_refused(tmp_path, size, value):
    path = tmp_path / "claims.ome.tif"
    tifffile.imwrite(path, images(), ome=True, photometric="minisblack", metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
        before = text.partition(f'{size}="')[2].partition('"')[0]
    tifffile.tiffcomment(path, text.replace(f'{size}="{before}"', f'{size}="{value}"').encode())
    refused(path)


def test_an_index_that_claims_impossible_images_is_refused(tmp_path):
    write_ndtiff(tmp_path / "run", [({"time": t}, image) for t, image in enumerate(images())], 1)
    index = tmp_path / "run" / "NDTiff.index"
    data = index.read_bytes()
    index.write_bytes(data.replace((30).to_bytes(4, "little"), (2 * 10**9).to_bytes(4, "little")))
    with pytest.raises(SourceError, match="claims"):
        replay(index)
    far = [({"time": t}, image) for t, image in zip((0, 1, 2 * 10**9), images(3), strict=True)]
    write_ndtiff(tmp_path / "far", far, 1)
    with pytest.raises(SourceError, match="damaged"):
        replay(tmp_path / "far")


# damage


def write_plain(path, stack):
    tifffile.imwrite(path, stack, photometric="minisblack")


def write_ome(path, stack):
    tifffile.imwrite(path, stack, ome=True, photometric="minisblack", metadata={"axes": "TYX"})


def write_tiles(path, stack):
    tifffile.imwrite(path, stack, tile=(16, 16), compression="zlib", photometric="minisblack")


def write_micromanager(path, stack):
    write_split(path.parent, stack, 2, path.name.partition(".")[0])


WRITERS = [write_plain, write_ome, write_tiles, write_micromanager]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__[6:])
def test_whatever_bytes_are_wrong_no_library_raises_and_no_frame_is_invented(tmp_path_factory, write, data):
    path = tmp_path_factory.mktemp("damaged") / "run_MMStack_Pos0.ome.tif"
    stack = images()
    write(path, stack)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, max(len(content) - 4, 0)))
        content[place : place + data.draw(st.integers(1, 4))] = data.draw(st.binary(max_size=4))
    path.write_bytes(bytes(content))
    said = ""
    try:
        count = len(replay(path)[1])
    except SourceError as error:
        count, said = 0, str(error)
    assert "\n" not in said
    assert count <= len(stack)


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__[6:])
@pytest.mark.parametrize("part", [0.05, 0.3, 0.7, 0.97])
def test_of_a_file_that_is_cut_short_only_true_frames_come_and_then_an_error(tmp_path, write, part):
    path = tmp_path / "run_MMStack_Pos0.ome.tif"
    stack = images(12)
    write(path, stack)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    frames = []
    with pytest.raises(SourceError, match="run_MMStack_Pos0"):  # noqa: PT012
        recording = open_recording(path, run_id="run")
        try:
            while not recording.ended:
                frames.append(recording.read(0.1).image)
        finally:
            recording.close()
    for frame, expected in zip(frames, stack, strict=False):
        np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("size", [0, 1, 4, 8, 100])
def test_a_file_of_a_few_bytes_is_refused(tmp_path, size):
    path = tmp_path / "short.tif"
    path.write_bytes(b"II*\0".ljust(size, b"\0")[:size])
    refused(path)


# unusual forms


def test_a_pyramid_is_read_at_its_full_resolution(tmp_path):
    stack = images()
    for name, options in (("plain.tif", {}), ("named.ome.tif", {"metadata": {"axes": "TYX"}})):
        path = tmp_path / name
        with tifffile.TiffWriter(path, ome=bool(options)) as writer:
            writer.write(stack, subifds=1, photometric="minisblack", tile=(16, 16), **options)
            writer.write(stack[:, ::2, ::2], subfiletype=1, photometric="minisblack", tile=(16, 16))
        np.testing.assert_array_equal(replay(path)[1], stack)


def test_a_thumbnail_beside_the_frames_is_left_out_and_said(tmp_path):
    path = tmp_path / "video.tif"
    stack = images()
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8), photometric="rgb", metadata=None)
        for image in stack:
            writer.write(image, photometric="minisblack", contiguous=False, metadata=None)
    recording, frames = replay(path)
    np.testing.assert_array_equal(frames, stack)
    assert any("left out" in text for text in recording.remarks)


def test_two_videos_in_a_file_are_asked_for(tmp_path):
    path = tmp_path / "two.tif"
    stack = images()
    with tifffile.TiffWriter(path) as writer:
        writer.write(stack, photometric="minisblack")
        writer.write(stack[:4, ::2], photometric="minisblack")
    text = refused(path)
    assert "6 x 20 x 30, 4 x 10 x 30" in text
    np.testing.assert_array_equal(replay(f"{path}::series=1")[1], stack[:4, ::2])


def test_a_frame_of_another_type_in_between_is_refused_or_left_out_never_bent(tmp_path):
    path = tmp_path / "mixed.tif"
    stack = images()
    with tifffile.TiffWriter(path) as writer:
        for number, image in enumerate(stack):
            odd = image.astype(np.uint8) if number == 3 else image
            writer.write(odd, photometric="minisblack", contiguous=False, metadata=None)
    recording, frames = replay(path)
    np.testing.assert_array_equal(frames, np.delete(stack, 3, axis=0))
    assert any("1 images of another size or type" in text for text in recording.remarks)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_are_refused_in_either_arrangement(tmp_path, planar):
    path = tmp_path / "colour.tif"
    shape = (4, *SHAPE, 3) if planar == "contig" else (4, 3, *SHAPE)
    tifffile.imwrite(path, np.zeros(shape, np.uint8), photometric="rgb", planarconfig=planar)
    assert "grey" in refused(path)


def test_a_colour_table_is_refused(tmp_path):
    path = tmp_path / "palette.tif"
    table = np.random.default_rng(1).integers(0, 2**16, (3, 256), np.uint16)
    tifffile.imwrite(path, images(dtype=np.uint8), photometric="palette", colormap=table)
    assert "colour" in refused(path)


def test_the_colours_in_which_imagej_shows_grey_values_do_not_matter(tmp_path):
    path = tmp_path / "fire.tif"
    table = np.random.default_rng(1).integers(0, 2**16, (3, 256), np.uint16)
    stack = images(dtype=np.uint8)
    tifffile.imwrite(path, stack, imagej=True, colormap=table, metadata={"axes": "TYX"})
    recording, frames = replay(path)
    np.testing.assert_array_equal(frames, stack)
    with tifffile.TiffFile(path) as file:
        if file.pages[0].photometric == tifffile.PHOTOMETRIC.PALETTE:
            assert any("only affect the display" in text for text in recording.remarks)


def test_an_image_in_which_0_is_white_says_so(tmp_path):
    path = tmp_path / "white.tif"
    tifffile.imwrite(path, images(), photometric="miniswhite")
    recording, frames = replay(path)
    np.testing.assert_array_equal(frames, images())
    assert any("0 is white" in text for text in recording.remarks)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int16, np.int32, np.float16, np.complex64])
def test_pixels_that_are_no_cameras_are_refused_with_what_to_do(tmp_path, dtype):
    path = tmp_path / "odd.tif"
    tifffile.imwrite(path, images(dtype=dtype), photometric="minisblack")
    assert "16-bit" in refused(path)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "lzw", "predictor": True}, {"rowsperstrip": 3}, {"tile": (16, 32)}]
)
def test_every_arrangement_of_pixels_gives_the_same_frames(tmp_path, byteorder, bigtiff, options):
    path = tmp_path / "video.tif"
    stack = images()
    tifffile.imwrite(path, stack, byteorder=byteorder, bigtiff=bigtiff, photometric="minisblack", **options)
    np.testing.assert_array_equal(replay(path)[1], stack)


def write_packed(path, stack, bits):
    """Pixels of so many bits, one row after the other, as some cameras' programs write them."""
    rows = []
    for row in stack.reshape(-1, SHAPE[1]):
        text = "".join(f"{value:0{bits}b}" for value in row)
        text = text.ljust(-(-len(text) // 8) * 8, "0")
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    data = b"".join(rows)
    tags = [
        (256, 3, SHAPE[1]), (257, 3, SHAPE[0]), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
        (278, 3, SHAPE[0]), (279, 4, len(data)),
    ]  # fmt: skip
    ifd = len(tags).to_bytes(2, "little")
    for code, kind, value in tags:
        ifd += code.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little")
        ifd += value.to_bytes(4, "little")
    at = 8 + len(data) + len(data) % 2
    path.write_bytes(b"II*\0" + at.to_bytes(4, "little") + data.ljust(at - 8, b"\0") + ifd + bytes(4))


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_pixels_are_unpacked(tmp_path, bits):
    path = tmp_path / "packed.tif"
    stack = np.random.default_rng(1).integers(0, 2**bits, (1, *SHAPE), np.uint16)
    write_packed(path, stack, bits)
    np.testing.assert_array_equal(replay(path)[1], stack)


def test_pixels_of_one_bit_are_refused(tmp_path):
    path = tmp_path / "bits.tif"
    write_packed(path, np.ones((1, *SHAPE), np.uint16), 1)
    refused(path)
