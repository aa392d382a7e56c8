"""Bright and dark references: any numeric type and form is read; what cannot be used is named."""

import os
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
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


def both_readers(path):
    """The bright reference as the calibration and as the detector read it."""
    return read_reference(path, "bright")[0], 1 / load_flat_field(path, None).factor


places_of_ones = st.lists(st.integers(0, 2), max_size=4)
forms_of_tiff = st.sampled_from(
    [{}, {"imagej": True}, {"ome": True}, {"compression": "zlib"}, {"bigtiff": True}]
)


@settings(max_examples=60, deadline=None)
@example(height=5, width=5, ones=[1], dtype="uint8", form={"compression": "zlib"}, byteorder="<", seed=0)
@given(
    height=st.integers(5, 40),
    width=st.integers(5, 40),
    ones=places_of_ones,
    dtype=st.sampled_from(TYPES),
    form=forms_of_tiff,
    byteorder=st.sampled_from("<>"),
    seed=st.integers(0, 99),
)
def test_axes_of_length_1_and_the_numeric_type_never_change_a_reference(
    height, width, ones, dtype, form, byteorder, seed
):
    image = np.random.default_rng(seed).integers(1, 120, (height, width)).astype(dtype)
    shape = [height, width]
    for place in sorted(ones, reverse=True):
        shape.insert(place, 1)
    if form.get("imagej") and (len(shape) > 5 or dtype not in ("uint8", "uint16", "float32")):
        form = {}
    if form.get("ome") and dtype in ("uint64", "int64", "float16"):
        form = {}  # OME knows none of these
    if form.get("ome"):
        form = {**form, "metadata": {"axes": "TZCAQ"[: len(shape) - 2] + "YX"}}
        shape = [1] * (len(shape) - 2) + [height, width]  # OME puts y and x last
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        path = Path(folder) / "bright.tif"
        order = {} if form.get("imagej") else {"byteorder": byteorder}
        tifffile.imwrite(path, image.reshape(shape), photometric="minisblack", **order, **form)
        for found in both_readers(path):
            np.testing.assert_allclose(found, image.astype(np.float64), rtol=1e-6)


@pytest.mark.parametrize(
    "shape", [(30, 40), (1, 30, 40), (1, 1, 30, 40), (30, 40, 1), (1, 30, 40, 1), (30, 1, 40)]
)
@pytest.mark.parametrize("name", ["bright.tif", "bright.h5"])
def test_size_1_axes_may_be_anywhere_in_tiff_and_hdf5(tmp_path, shape, name):
    path = tmp_path / name
    image = light().astype(np.float32)
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["mean"] = image.reshape(shape)
    else:
        tifffile.imwrite(path, image.reshape(shape), photometric="minisblack")
    for found in both_readers(path):
        np.testing.assert_allclose(found, light(), rtol=1e-6)


def test_the_mean_of_repeats_does_not_depend_on_how_they_are_stored(tmp_path):
    repeats = np.random.default_rng(2).integers(50, 150, (5, 30, 40)).astype(np.int16)
    tifffile.imwrite(tmp_path / "plain.tif", repeats, photometric="minisblack")
    tifffile.imwrite(tmp_path / "tight.tif", repeats, photometric="minisblack", compression="zlib")
    tifffile.imwrite(tmp_path / "one_by_one.tif", repeats[:, :, :, None], photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "appended.tif") as file:
        for image in repeats:
            file.write(image, photometric="minisblack", contiguous=False)
    with h5py.File(tmp_path / "repeats.h5", "w") as file:
        file["images"] = repeats
    (tmp_path / "folder").mkdir()
    for number, image in enumerate(repeats):
        tifffile.imwrite(tmp_path / "folder" / f"{number}.tif", image, photometric="minisblack")
    for name in ("plain.tif", "tight.tif", "one_by_one.tif", "appended.tif", "repeats.h5", "folder"):
        for found in both_readers(tmp_path / name):
            np.testing.assert_allclose(found, repeats.mean(axis=0), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_a_signed_reference_with_negative_values_is_refused(tmp_path, dtype):
    image = light().astype(dtype)
    image[3, 4] = -1
    tifffile.imwrite(tmp_path / "bright.tif", image, photometric="minisblack")
    for read in (read_reference, lambda path, _: load_flat_field(path, None)):
        with pytest.raises(ConfigurationError, match=f"bright.tif has negative {dtype} values"):
            read(tmp_path / "bright.tif", "bright")


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("colours", [3, 4])
def test_colours_are_refused_however_the_file_calls_them(tmp_path, photometric, dtype, colours):
    image = np.repeat(light()[..., None], colours, axis=2).astype(dtype)
    path = tmp_path / "bright.tif"
    tifffile.imwrite(path, image, photometric=photometric)
    for read in (read_reference, lambda path, _: load_flat_field(path, None)):
        with pytest.raises(ConfigurationError, match=r"colours or channels.*grey"):
            read(path, "bright")


def test_images_of_several_sizes_in_a_folder_are_refused(tmp_path):
    for number, width in enumerate((40, 41)):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.ones((30, width), np.float32))
    for read in (read_reference, lambda path, _: load_flat_field(path, None)):
        with pytest.raises(ConfigurationError, match="one size"):
            read(tmp_path, "bright")


def test_a_reference_cut_short_is_refused_in_one_line(tmp_path):
    path = tmp_path / "bright.tif"
    tifffile.imwrite(path, np.ones((3, 64, 64), np.float32), photometric="minisblack")
    path.write_bytes(path.read_bytes()[: 3 * 64 * 64 * 2])
    for read in (read_reference, lambda path, _: load_flat_field(path, None)):
        with pytest.raises(ConfigurationError, match=r"bright\.tif") as caught:
            read(path, "bright")
        assert "\n" not in str(caught.value)


def test_the_detector_corrects_by_an_averaged_reference_and_refuses_one_of_another_size(tmp_path):
    tifffile.imwrite(tmp_path / "bright.tif", light().astype(np.float32)[None, None], imagej=True)
    flat = load_flat_field(tmp_path / "bright.tif", None)
    out = np.empty((30, 40), np.float32)
    flat.correct(light().astype(np.uint8), out)
    assert np.abs(out).max() < 1e-5
    with pytest.raises(ConfigurationError, match=r"\(30, 40\).*\(30, 41\)"):
        flat.check((30, 41))
