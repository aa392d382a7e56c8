"""Bright and dark references: any numeric type and form is read; what cannot be used is named."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from acquisition.recording import open_recording
from acquisition.references import read_image, read_reference
from engines.flatfield import load_flat_field
from stream.errors import ConfigurationError, LivePTVError, SourceError

TYPES = [
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
]


def light(shape=(30, 40)):
    return np.random.default_rng(1).integers(60, 120, shape).astype(np.float64)


def write_float_imagej(path, image):
    tifffile.imwrite(path, image.astype(np.float32), imagej=True)


def write_single_axes(path, image):
    tifffile.imwrite(path, image[None, None, :, :].astype(np.float32), photometric="minisblack")


def write_stack(path, image):
    tifffile.imwrite(
        path, np.stack([image - 3, image, image + 3]).astype(np.float32), photometric="minisblack"
    )


def write_hyperstack(path, image):
    stack = np.stack([image - 3, image + 3]).astype(np.float32)[:, None]
    tifffile.imwrite(path, stack, ome=True, photometric="minisblack", metadata={"axes": "TZYX"})


def write_tiles(path, image):
    tifffile.imwrite(
        path, image.astype(np.float64), tile=(16, 16), compression="zlib", photometric="minisblack"
    )


def write_big(path, image):
    tifffile.imwrite(path, image.astype(">f4"), byteorder=">", bigtiff=True, photometric="minisblack")


FORMS = [write_float_imagej, write_single_axes, write_stack, write_hyperstack, write_tiles, write_big]


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_reference_may_have_any_numeric_type(tmp_path, dtype, byteorder):
    path = tmp_path / "bright.tif"
    tifffile.imwrite(path, light().astype(dtype), byteorder=byteorder, photometric="minisblack")
    image, remarks = read_reference(path, "bright")
    np.testing.assert_array_equal(image, light())
    assert not remarks
    assert load_flat_field(path, None).grey_values == pytest.approx(light().mean())


@pytest.mark.parametrize("write", FORMS, ids=lambda f: f.__name__[6:])
def test_a_reference_may_be_one_image_or_several_in_any_form(tmp_path, write):
    path = tmp_path / "bright.tif"
    write(path, light())
    np.testing.assert_allclose(read_reference(path, "bright")[0], light())
    assert load_flat_field(path, None).grey_values == pytest.approx(light().mean())


def test_a_reference_may_be_a_picture_a_folder_or_a_dataset(tmp_path):
    Image.fromarray(light().astype(np.uint8)).save(tmp_path / "bright.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bright.png"), light())
    (tmp_path / "folder").mkdir()
    for number, offset in enumerate((-2.5, 2.5)):
        tifffile.imwrite(tmp_path / "folder" / f"{number}.tif", light() + offset)
    np.testing.assert_array_equal(read_image(tmp_path / "folder"), light())
    with h5py.File(tmp_path / "bright.h5", "w") as file:
        file["mean"] = light().astype(">f4")
    np.testing.assert_array_equal(read_image(tmp_path / "bright.h5"), light())
    np.testing.assert_array_equal(read_image(Path(f"{tmp_path / 'bright.h5'}::mean")), light())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["bright", "dark"])
@pytest.mark.parametrize("stack", [False, True])
def test_values_that_are_no_numbers_are_refused_with_how_many_and_where(tmp_path, value, what, stack):
    image = light().astype(np.float32)
    image[[7, 7, 20], [5, 9, 0]] = value
    path = tmp_path / "reference.tif"
    tifffile.imwrite(path, np.stack([image, image - 1]) if stack else image, photometric="minisblack")
    good = tmp_path / "good.tif"
    tifffile.imwrite(good, 200 + light(), photometric="minisblack")
    for read in (
        lambda: read_reference(path, what),
        lambda: load_flat_field(path, None) if what == "bright" else load_flat_field(good, path),
    ):
        with pytest.raises(
            ConfigurationError, match=rf"{what} reference.*3 pixels.*first at x = 5, y = 7"
        ) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [(0, 0), (29, 39), (12, 20)])
def test_a_dead_pixel_of_a_bright_reference_gets_its_neighbours_value_and_is_named(tmp_path, place):
    image = np.full((30, 40), 80.0, np.float32)
    image[place] = 0
    path = tmp_path / "bright.tif"
    tifffile.imwrite(path, image, photometric="minisblack")
    found, remarks = read_reference(path, "bright")
    np.testing.assert_array_equal(found, 80.0)
    assert len(remarks) == 1
    assert f"1 pixel, at x = {place[1]}, y = {place[0]}" in remarks[0]
    assert "median" in remarks[0]


def test_a_dark_reference_may_be_0_anywhere_and_a_bright_one_may_not(tmp_path):
    image = light()
    image[:, :4] = 0
    path = tmp_path / "reference.tif"
    tifffile.imwrite(path, image, photometric="minisblack")
    np.testing.assert_array_equal(read_reference(path, "dark")[0], image)
    for read in (lambda: read_reference(path, "bright"), lambda: load_flat_field(path, None)):
        with pytest.raises(ConfigurationError, match=r"0 in 120 pixels of 1200, the first at x = 0, y = 0"):
            read()


def test_colours_and_what_is_no_image_are_refused_as_references(tmp_path):
    tifffile.imwrite(tmp_path / "colour.tif", np.ones((16, 16, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "complex.tif", np.ones((16, 16), np.complex64), photometric="minisblack")
    (tmp_path / "text.tif").write_text("not an image")
    for name in ("colour.tif", "complex.tif", "text.tif", "nothing.tif"):
        for read in (
            lambda name=name: read_reference(tmp_path / name, "bright"),
            lambda name=name: load_flat_field(tmp_path / name, None),
        ):
            with pytest.raises(LivePTVError, match=name) as caught:
                read()
            assert "\n" not in str(caught.value)


def test_a_recording_of_such_types_is_refused_with_how_to_convert_it(tmp_path):
    path = tmp_path / "video.tif"
    tifffile.imwrite(path, np.ones((4, 16, 16), np.float32), photometric="minisblack")
    with pytest.raises(SourceError, match="16-bit"):
        open_recording(path, run_id="run")
