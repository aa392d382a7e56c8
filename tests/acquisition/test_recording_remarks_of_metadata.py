"""What a file says twice, wrongly or not at all is told in a line with the value and its place, or refused."""

import json

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from acquisition.recording import open_recording
from acquisition.stacks.scales import number
from acquisition.stacks.times import frame_times
from stream.errors import SourceError

STACK = np.random.default_rng(1).integers(0, 200, (12, 20, 30)).astype(np.uint16)


def micromanager(path, facts):
    with tifffile.TiffWriter(path) as file:
        for number, (image, said) in enumerate(zip(STACK, facts, strict=True)):
            text = json.dumps({"FrameIndex": number, "PixelSizeUm": 0.5, **said})
            file.write(image, metadata=None, contiguous=False, extratags=[(51123, 2, 0, text, True)])
    return path


def ome(path, change=lambda xml: xml, **facts):
    facts = {"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "TimeIncrement": 0.05, **facts}
    tifffile.imwrite(path, STACK, ome=True, photometric="minisblack", metadata=facts)
    tifffile.tiffcomment(path, change(tifffile.tiffcomment(path)).encode())
    return path


def hdf5(path, **attributes):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=STACK).attrs.update(attributes)
    return path


def ome_zarr(path, *scales):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=STACK, chunks=(1, 20, 30))
    units = ("second", "micrometer", "micrometer")
    level = {
        "path": "0",
        "coordinateTransformations": [{"type": "scale", "scale": scale} for scale in scales],
    }
    axes = [{"name": name, "unit": unit} for name, unit in zip("tyx", units, strict=True)]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [level]}]
    return path


def opened(path, **options):
    recording = open_recording(path, run_id="run", **options)
    recording.close()
    return recording


def elapsed(values):
    return [{"ElapsedTime-ms": value} for value in values]


@pytest.mark.parametrize("first", [1, 6, 11])
@pytest.mark.parametrize("later_um", [0.25, 1.0, 0])
def test_a_pixel_size_that_changes_within_a_recording_is_refused_where_it_does(tmp_path, first, later_um):
    sizes = [0.5 if number < first else later_um for number in range(12)]
    path = micromanager(tmp_path / "video.tif", [{"PixelSizeUm": size} for size in sizes])
    with pytest.raises(SourceError, match=rf"0.5 um, but of {later_um:g} um from frame {first} on") as caught:
        opened(path)
    assert "--pixel-size" in str(caught.value)
    recording = opened(path, pixel_size_um=0.7)
    assert recording.info.pixel_size_um == 0.7
    assert any(f"from frame {first} on; 0.7 um is used" in text for text in recording.remarks)
    assert np.isnan(opened(path, only_describe=True).info.pixel_size_um)


def test_pixel_sizes_that_differ_by_rounding_are_one(tmp_path):
    path = micromanager(
        tmp_path / "video.tif", [{"PixelSizeUm": 0.5 + 1e-5 * (number % 2)} for number in range(12)]
    )
    assert opened(path).info.pixel_size_um == 0.5


def test_two_rates_that_differ_are_told(tmp_path):
    recording = opened(hdf5(tmp_path / "video.h5", frame_rate_hz=20.0, frame_interval_s=0.1))
    assert recording.info.frame_rate_hz == 20
    assert any(
        "frame_interval_s 0.1, which is 10 frames/s: 20 frames/s is used" in t for t in recording.remarks
    )
    both = opened(hdf5(tmp_path / "same.h5", frame_rate_hz=20.0, frame_interval_s=0.05))
    assert not any("is used" in text for text in both.remarks)


def test_a_rate_that_is_not_believed_is_told_beside_the_interval_that_is_used(tmp_path):
    recording = opened(hdf5(tmp_path / "video.h5", frame_rate_hz=-3.0, frame_interval_s=0.1))
    assert recording.info.frame_rate_hz == pytest.approx(10)
    assert any("-3" in text for text in recording.remarks)


def test_two_scales_of_one_level_are_told(tmp_path):
    recording = opened(ome_zarr(tmp_path / "video.zarr", [0.05, 0.5, 0.5], [1, 2, 2]))
    assert recording.info.pixel_size_um == 1.0
    assert any("has 2 scales instead of one" in text for text in recording.remarks)


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda f: hdf5(f / "v.h5", frame_rate_hz=0.0), "the frame rate is 0 in the file (frame_rate_hz)"),
        (
            lambda f: hdf5(f / "v.h5", frame_interval_s=0.0),
            "the time between frames is 0 in the file (frame_interval_s)",
        ),
        (lambda f: ome(f / "v.ome.tif", TimeIncrement=0), "is 0 in the file (TimeIncrement)"),
        (lambda f: ome_zarr(f / "v.zarr", [0, 0.5, 0.5]), "the time between frames is 0 in the file (scale)"),
        (lambda f: ome_zarr(f / "v.zarr", [0.05, 0, 0]), "the pixel size of 0 um"),
        (
            lambda f: micromanager(f / "v.tif", [{"PixelSizeUm": 0}] * 12),
            "the pixel size is 0 in the file (PixelSizeUm)",
        ),
    ],
)
def test_a_rate_or_a_size_of_0_is_told(tmp_path, write, text):
    assert any(text in said and "not" in said for said in opened(write(tmp_path)).remarks)


def test_a_frame_interval_of_0_that_imagej_wrote_is_told(tmp_path):
    facts = {"axes": "TYX", "finterval": 0.0}
    tifffile.imwrite(tmp_path / "video.tif", STACK, imagej=True, metadata=facts)
    assert any("0 in the file (finterval)" in text for text in opened(tmp_path / "video.tif").remarks)


@pytest.mark.parametrize("value", ["a", "", None, [1]])
def test_a_scale_that_is_no_number_is_shown_as_it_stands_in_the_file(tmp_path, value):
    recording = opened(ome_zarr(tmp_path / "video.zarr", [value, 0.5, 0.5]))
    assert recording.info.pixel_size_um == 0.5
    assert not any("'nan'" in text for text in recording.remarks)
    if isinstance(value, str):
        assert any(f"is {value!r} in the file, which is not a number" in text for text in recording.remarks)


def test_time_stamps_with_a_decimal_comma_are_read(tmp_path):
    texts = [f"{50.0 * number:.1f}".replace(".", ",") for number in range(12)]
    assert opened(micromanager(tmp_path / "video.tif", elapsed(texts))).info.frame_rate_hz == pytest.approx(
        20
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("50,0", 50), ("-0,25", -0.25), ("0,125", 0.125), ("1,5e3", 1500), ("1234,567", 1234.567)],
)
def test_a_decimal_comma_is_a_point(text, value):
    assert number(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1,234", "12,345", "1,2,3", ",5", "5,", "1,234,567"])
def test_a_comma_that_may_mean_thousands_is_not_read(text):
    assert np.isnan(number(text))


def test_time_stamps_that_are_no_numbers_are_counted(tmp_path):
    path = micromanager(tmp_path / "video.tif", elapsed([f"{number} frames" for number in range(12)]))
    assert any(
        "12 of the 12 time stamps (ElapsedTime-ms) are not times, such as '0 frames'" in text
        for text in opened(path).remarks
    )
    some = [50.0 * number if number != 4 else "?" for number in range(12)]
    recording = opened(micromanager(tmp_path / "some.tif", elapsed(some)))
    assert recording.info.frame_rate_hz == pytest.approx(20)
    assert any("1 of the 12 time stamps (ElapsedTime-ms) is not a time" in text for text in recording.remarks)


def test_times_of_ome_planes_that_are_no_numbers_are_counted(tmp_path):
    facts = {"Plane": {"DeltaT": [0.05 * number for number in range(12)], "DeltaTUnit": ["s"] * 12}}
    path = ome(tmp_path / "video.ome.tif", lambda xml: xml.replace('DeltaT="', 'DeltaT="t'), **facts)
    assert any("12 of the 12 time stamps (DeltaT) are not times" in text for text in opened(path).remarks)


def test_one_time_stamp_alone_is_not_called_the_same_as_others():
    assert frame_times([np.nan, 0.25, np.nan]).remarks == (
        "only 1 of 3 frames has a time stamp (0.25 s), which is not used",
    )


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaa">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 20}">' for before, name in zip("abcdef", "bcdefg", strict=True)
) + "]>"  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda xml: xml.replace('SizeX="30"', 'SizeX="300"'), "300 x 20 pixels, the images have 30 x 20"),
        (lambda xml: xml[: len(xml) // 2], "line 1"),
        (lambda xml: xml.replace("<Pixels", "<Voxels"), "mismatched tag"),
        (
            lambda xml: (
                BOMB + xml[xml.index("<OME") :].replace("</Image>", "<Description>&g;</Description></Image>")
            ),
            "line 1",
        ),
    ],
)
def test_ome_metadata_that_cannot_be_read_are_named(tmp_path, change, reason):
    recording = opened(ome(tmp_path / "video.ome.tif", change))
    said = [text for text in recording.remarks if text.startswith("its OME metadata cannot be read (")]
    assert len(said) == 1
    assert reason in said[0]
    assert recording.info.frames == 12


@pytest.mark.parametrize("table", ["black", "red", "falling"])
def test_a_colour_table_that_is_no_scale_of_grey_is_refused(tmp_path, table):
    colours = np.zeros((3, 256), np.uint16)
    colours[0] = {"black": 0, "red": np.arange(256) * 257, "falling": np.arange(256)[::-1] * 257}[table]
    if table == "falling":
        colours[1:] = colours[0]
    path = tmp_path / "video.tif"
    tifffile.imwrite(path, STACK.astype(np.uint8), photometric="palette", colormap=colours)
    with pytest.raises(SourceError, match="colour table"):
        opened(path)
