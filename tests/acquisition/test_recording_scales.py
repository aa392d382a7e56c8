"""How large a pixel is and how far apart frames are, by the whole of each specification."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from acquisition.recording import open_recording, open_stack
from acquisition.stacks.scales import length, pixel_size, printed_size
from acquisition.stacks.tiff_facts import micromanager_scales
from acquisition.stacks.units import to_s, to_um
from acquisition.stacks.zarr_facts import zarr_axes, zarr_scales
from calibration.errors import CalibrationError
from calibration.scan.planes import FocusScan
from stream.errors import SourceError

STACK = np.random.default_rng(1).integers(0, 99, (6, 8, 9), np.uint8)


def described(path, **options):
    recording = open_recording(path, run_id="run", **options)
    recording.close()
    return recording


def zarr_image(
    path, *, level=None, image=None, units=("second", "micrometer", "micrometer"), version="0.4", **more
):
    """An OME-Zarr of t, y, x with the transformations of its level and of the whole image."""
    group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", shape=STACK.shape, dtype="uint8")[...] = STACK
    kinds = zip("tyx", ("time", "space", "space"), units, strict=True)
    axes = [{"name": n, "type": kind} | ({"unit": unit} if unit else {}) for n, kind, unit in kinds]
    dataset = {"path": "0"} | ({"coordinateTransformations": level} if level else {})
    facts = {"version": version, "axes": axes, "datasets": [dataset], **more}
    facts |= {"coordinateTransformations": image} if image else {}
    attributes = {"multiscales": [facts]}
    group.attrs.update(attributes if version == "0.4" else {"ome": {"version": version, **attributes}})
    return group


def scaled(*values):
    return [{"type": "scale", "scale": list(values)}]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("level", "image"), [
    (scaled(1.0, 1.0, 1.0), scaled(0.05, 0.5, 0.5)), (scaled(0.05, 0.5, 0.5), scaled(1.0, 1.0, 1.0)),
    (scaled(1.0, 0.5, 0.5), scaled(0.05, 1.0, 1.0)), (scaled(0.5, 0.25, 0.25), scaled(0.1, 2.0, 2.0)),
    ([{"type": "identity"}], scaled(0.05, 0.5, 0.5)), (scaled(0.05, 0.5, 0.5), None),
    ([*scaled(0.05, 0.5, 0.5), {"type": "translation", "translation": [3.0, 4.0, 5.0]}], None),
])  # fmt: skip
def test_the_scales_of_level_and_image_are_multiplied(tmp_path, level, image, version):
    path = tmp_path / "video.zarr"
    zarr_image(path, level=level, image=image, version=version)
    recording = described(path)
    assert recording.info.pixel_size_um == pytest.approx(0.5)
    assert recording.info.frame_rate_hz == pytest.approx(20)
    assert recording.remarks == ()


@given(*[st.tuples(*[st.floats(0.1, 10)] * 4)] * 4)
def test_a_place_goes_through_all_transformations_in_their_order(one, shift, two, shift_two):
    level = [{"type": "scale", "scale": one}, {"type": "translation", "translation": shift}]
    image = {
        "axes": [{"name": n, "type": "space", "unit": "micrometer"} for n in "qzyx"],
        "coordinateTransformations": [
            {"type": "scale", "scale": two},
            {"type": "translation", "translation": shift_two},
        ],
    }
    found = zarr_scales(image, {"coordinateTransformations": level}, "TZYX")
    assert found.z.value == pytest.approx(one[1] * two[1])
    assert found.z_first_um == pytest.approx(two[1] * shift[1] + shift_two[1])
    assert found.y.value == pytest.approx(one[2] * two[2])


@pytest.mark.parametrize(("units", "hz", "um"), [
    (("millisecond", "nanometer", "nanometer"), 20, 0.5), (("s", "um", "µm"), 20 / 1000, 500),
    (("microsecond", "angstrom", "angstrom"), 20_000, 0.05),
])  # fmt: skip
def test_units_of_axes_are_followed(tmp_path, units, hz, um):
    zarr_image(tmp_path / "v.zarr", level=scaled(50.0, 500.0, 500.0), units=units)
    info = described(tmp_path / "v.zarr").info
    assert info.pixel_size_um == pytest.approx(um)
    assert info.frame_rate_hz == pytest.approx(hz)


def test_scales_without_a_unit_are_um_and_s_and_said_to_be_assumed(tmp_path):
    zarr_image(tmp_path / "v.zarr", level=scaled(0.05, 0.5, 0.5), units=(None, None, None))
    recording = described(tmp_path / "v.zarr")
    assert recording.info.pixel_size_um == 0.5
    assert recording.info.frame_rate_hz == pytest.approx(20)
    assert sum("no unit in the file" in text for text in recording.remarks) == 2


def test_a_scale_that_is_kept_elsewhere_is_said_to_be_missing(tmp_path):
    zarr_image(tmp_path / "v.zarr", level=[{"type": "scale", "path": "scale"}])
    recording = described(tmp_path / "v.zarr")
    assert any("(scale in 'scale') is not supported" in text for text in recording.remarks)
    assert "1 um per pixel assumed (--pixel-size)" in recording.remarks
    assert "1 frame/s assumed (--frame-rate)" in recording.remarks


def test_of_several_images_one_is_asked_for_by_number_or_name(tmp_path):
    path = tmp_path / "v.zarr"
    group = zarr_image(path, level=scaled(0.05, 0.5, 0.5), name="left")
    first = group.attrs["multiscales"][0]
    second = {**first, "name": "right", "coordinateTransformations": scaled(1.0, 2.0, 2.0)}
    group.attrs["multiscales"] = [first, second]
    with pytest.raises(SourceError, match=r"2 images \(left, right\); select one, as in .*::0"):
        open_stack(path)
    sizes = {name: open_stack(f"{path}::{name}").info.pixel_size_um for name in ("0", "1", "left", "right")}
    assert sizes == {"0": 0.5, "1": 1.0, "left": 0.5, "right": 1.0}
    with pytest.raises(SourceError, match="no image 'middle'"):
        open_stack(f"{path}::middle")


def test_of_several_groups_with_images_one_is_asked_for(tmp_path):
    path = tmp_path / "plate.zarr"
    zarr.create_group(str(path), zarr_format=2)
    zarr_image(path / "0", level=scaled(0.05, 0.5, 0.5))
    assert open_stack(path).info.pixel_size_um == 0.5
    zarr_image(path / "1", level=scaled(0.05, 0.25, 0.25))
    with pytest.raises(SourceError, match=r"2 images \(0, 1\)"):
        open_stack(path)
    assert open_stack(f"{path}::1").info.pixel_size_um == 0.25


def test_a_zarr_of_a_later_version_is_refused_with_what_to_do():
    with pytest.raises(SourceError, match=r"later than 0\.5"):
        zarr_axes({"coordinateSystems": []}, 3)


@pytest.mark.parametrize(("axes", "letters"), [
    (["t", "z", "y", "x"], "TZYX"), (None, "ZYX"),
    ([{"name": "frames", "type": "time"}, {"name": "y"}, {"name": "x"}], "TYX"),
    ([{"name": "c", "type": "channel"}, {"name": "row", "type": "space"}, {"name": "col", "type": "space"}], "CYX"),
])  # fmt: skip
def test_axes_are_named_by_kind_and_by_name(axes, letters):
    assert zarr_axes({} if axes is None else {"axes": axes}, len(letters)) == letters


UNEVEN = {"imagej": 1.0, "ome": 1.0, "zarr": 0.4, "hdf5": 0.51, "cm": 0.25}


def write_uneven(kind, path, y_um):
    if kind == "imagej":
        tifffile.imwrite(
            path, STACK, imagej=True, resolution=(2, 1 / y_um), metadata={"axes": "TYX", "unit": "um"}
        )
    elif kind == "ome":
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 1000 * y_um, "PhysicalSizeYUnit": "nm"}
        tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "TYX", **size}, photometric="minisblack")
    elif kind == "zarr":
        zarr_image(path, level=scaled(1.0, y_um, 0.5))
    elif kind == "cm":
        resolution = (1e4 / 0.5, 1e4 / y_um)
        tifffile.imwrite(
            path, STACK, photometric="minisblack", resolution=resolution, resolutionunit="CENTIMETER"
        )
    else:
        with h5py.File(path, "w") as file:
            file["images"] = STACK
            file["images"].attrs["element_size_um"] = [1.0, y_um, 0.5]


NAMES = {"imagej": "v.tif", "ome": "v.ome.tif", "zarr": "v.zarr", "hdf5": "v.h5", "cm": "v.tif"}


@pytest.mark.parametrize(("kind", "y_um"), UNEVEN.items())
def test_pixels_that_are_not_square_are_refused_with_both_sizes(tmp_path, kind, y_um):
    path = tmp_path / NAMES[kind]
    write_uneven(kind, path, y_um)
    with pytest.raises(SourceError, match=rf"0\.5 um \(x\) by {y_um:g} um \(y\).*--pixel-size") as caught:
        described(path)
    assert "\n" not in str(caught.value)
    recording = described(path, pixel_size_um=0.5)
    assert any(f"by {y_um:g} um (y); 0.5 um is used for both" in text for text in recording.remarks)
    assert np.isnan(described(path, only_describe=True).info.pixel_size_um)


def test_a_scan_whose_pixels_are_not_square_is_refused_too(tmp_path):
    path = tmp_path / "scan.tif"
    facts = {"axes": "ZYX", "unit": "um", "spacing": 2.0}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(2, 1), metadata=facts)
    with pytest.raises(SourceError, match=r"0\.5 um \(x\) by 1 um \(y\)"):
        FocusScan(path)
    with FocusScan(path, pixel_size_um=0.5) as scan:
        assert any("used for both" in text for text in scan.remarks)


def test_sizes_that_differ_by_rounding_are_one():
    assert pixel_size(0.16125, 0.1613, "v.tif") == (0.16125, "")
    size_um, remark = pixel_size(0.500, 0.503, "v.tif")
    assert size_um == pytest.approx(0.5015)
    assert "used for both" in remark


UNITS = {
    "um": 1, "µm": 1, "μm": 1, "\\u00B5m": 1, "micron": 1, "Microns": 1, "micrometers": 1, "micrometre": 1,
    "nm": 1e-3, "nanometers": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400, "Å": 1e-4, "Âµm": 1, " um ": 1,
}  # fmt: skip
TIMES = {"s": 1, "sec": 1, "Seconds": 1, "ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3, "µs": 1e-6, "us": 1e-6,
         "min": 60, "minutes": 60, "h": 3600, "hours": 3600, "ns": 1e-9, "d": 86400}  # fmt: skip


@pytest.mark.parametrize(("unit", "um"), UNITS.items())
def test_units_of_length_are_known_as_files_spell_them(unit, um):
    assert to_um(2.0, unit) == pytest.approx(2 * um)


@pytest.mark.parametrize(("unit", "s"), TIMES.items())
def test_units_of_time_are_known_as_files_spell_them(unit, s):
    assert to_s(3.0, unit) == pytest.approx(3 * s)


@pytest.mark.parametrize("unit", ["micrometers", "micron", "\\u00B5m", "μm"])
def test_spellings_of_um_are_read_from_imagej_files(tmp_path, unit):
    path = tmp_path / "v.tif"
    facts = {"axes": "TYX", "unit": unit.replace("μ", "\\u00B5"), "finterval": 0.05}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(2, 2), metadata=facts)
    recording = described(path)
    assert recording.info.pixel_size_um == 0.5
    assert recording.remarks == ()


@pytest.mark.parametrize(("value", "unit", "what"), [
    (0, "um", "implausible"), (-0.5, "um", "implausible"), (1e9, "um", "implausible"),
    ("NaN", "um", "not a number"), ("half", "um", "not a number"), (0.5, "furlong", "unknown unit"),
    (0.5, "pixel", "no unit"),
    (np.inf, "um", "implausible"),
])  # fmt: skip
def test_sizes_that_cannot_be_are_told_and_not_used(value, unit, what):
    found = length(value, unit, "the pixel size")
    assert not found
    assert what in found.remark


@pytest.mark.parametrize(
    ("size", "unit"), [("0.0", "µm"), ("-1", "µm"), ("1e9", "µm"), ("NaN", "µm"), ("0.5", "furlong")]
)
def test_an_ome_file_with_such_a_size_says_so_and_assumes_one_um(tmp_path, size, unit):
    path = tmp_path / "v.ome.tif"
    units = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    facts = {"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, **units}
    tifffile.imwrite(path, STACK, ome=True, photometric="minisblack", metadata=facts)
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata.replace('="0.5"', f'="{size}"').replace("µm", unit)
    tifffile.tiffcomment(path, xml.encode())
    recording = described(path)
    assert recording.info.pixel_size_um == 1.0
    assert sum("the pixel size" in text for text in recording.remarks) == 1
    assert "1 um per pixel assumed (--pixel-size)" in recording.remarks
    assert not any("pixel" in text for text in described(path, pixel_size_um=0.5).remarks)


@pytest.mark.parametrize(("pixels", "unit", "um"), [
    (72, "inch", None), (96, "inch", None), (300, "inch", None), (28.35, "cm", None), (118.11, "cm", None),
    (1, "inch", None), (0, "cm", None), (np.nan, "cm", None), (20_000, "cm", 0.5), (50_800, "inch", 0.5),
])  # fmt: skip
def test_the_resolution_of_a_print_is_no_pixel_size(pixels, unit, um):
    found = printed_size(pixels, unit)
    assert bool(found) == (um is not None)
    if um is not None:
        assert found.value == pytest.approx(um)
        assert "from the resolution tags" in found.remark


def test_tags_of_pixels_that_are_not_square_are_told_even_without_a_size(tmp_path):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack", resolution=(204, 102), resolutionunit="INCH")
    assert any("2 times as tall as wide" in text for text in described(path).remarks)


@pytest.mark.parametrize(("summary", "plane", "um", "hz"), [
    ({"PixelSize_um": 0.5, "Interval_ms": 50}, {}, 0.5, 20), ({"PixelSizeUm": "0.5"}, {}, 0.5, None),
    ({"PixelSize_um": 0.0, "Interval_ms": 0.0}, {"PixelSizeUm": 0.5}, 0.5, None), ({}, {}, None, None),
    ({"PixelSize_um": -1, "Interval_ms": "soon"}, {}, None, None),
])  # fmt: skip
def test_micromanagers_summary_and_planes_tell_the_scales(summary, plane, um, hz):
    found = micromanager_scales(summary, plane)
    assert found.x.value == pytest.approx(um or np.nan, nan_ok=True)
    assert found.rate_hz == pytest.approx(hz or np.nan, nan_ok=True)
    assert bool(found.x.remark) == (summary.get("PixelSize_um") == -1)


def test_an_imagej_file_in_inches_of_the_screen_has_no_pixel_size(tmp_path):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, STACK, imagej=True, resolution=(72, 72), metadata={"axes": "TYX", "unit": "inch"})
    assert "1 um per pixel assumed (--pixel-size)" in described(path).remarks
    with pytest.raises(CalibrationError, match="--pixel-size"):
        FocusScan(path)


def test_hdf5_attributes_of_any_kind_are_checked(tmp_path):
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        file["images"] = STACK
        file["images"].attrs["pixel_size_um"] = "a half"
        file["images"].attrs["frame_rate_hz"] = -3.0
    remarks = described(path).remarks
    assert any("which is not a number" in text for text in remarks)
    assert any("-3.0 frames/s in the file is implausible" in text for text in remarks)
