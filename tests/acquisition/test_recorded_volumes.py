"""Volumes in recordings: what official writers wrote comes back slice by slice, with its heights and times."""

import itertools
import math

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acquisition.recorded_volumes.heights import heights_of, slice_times
from acquisition.recorded_volumes.z_scale import z_step_of
from acquisition.recording import open_recording
from stream.errors import ConfigurationError, LivePTVError, SourceError

SHAPE = (7, 9)
FIXTURE = [HealthCheck.function_scoped_fixture]
UM_IN = {"m": 1e-6, "mm": 1e-3, "µm": 1.0, "nm": 1e3}


def stack(*lead, dtype=np.uint16, seed=1):
    """Volumes of which no two slices are alike."""
    return np.random.default_rng(seed).integers(1, 250, (*lead, *SHAPE)).astype(dtype)


def read(path, **options):
    """What a recording says of itself, and its volumes."""
    options = {"volumes": True, **options}
    recording = open_recording(path, run_id="run", **options)
    try:
        return recording, list(recording.frames())
    finally:
        recording.close()


def refused(path, **options):
    """The line with which a recording is refused."""
    with pytest.raises(LivePTVError) as caught:
        read(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def write_ome(path, images, axes, unit="µm", xy_um=0.1, z_um=0.3, **facts):
    sizes = {"PhysicalSizeX": xy_um, "PhysicalSizeY": xy_um, "PhysicalSizeZ": z_um}
    meta = {"axes": axes}
    for key, value_um in sizes.items():
        if value_um is not None:
            meta |= {key: value_um * UM_IN[unit], f"{key}Unit": unit}
    tifffile.imwrite(path, images, ome=True, photometric="minisblack", metadata=meta | facts)


def write_imagej(path, images, axes, xy_um=0.1, z_um=0.3, unit="um", **facts):
    meta = {"axes": axes, "unit": unit, **({} if z_um is None else {"spacing": z_um}), **facts}
    tifffile.imwrite(path, images, imagej=True, resolution=(1 / xy_um, 1 / xy_um), metadata=meta)


def zarr_axis(name, scaled=True):
    kind = {"t": "time", "c": "channel"}.get(name, "space")
    unit = {"t": "second", "c": None}.get(name, "micrometer")
    return {"name": name, "type": kind} | ({"unit": unit} if unit and scaled else {})


def write_zarr(path, images, axes, version="0.4", xy_um=0.1, z_um=0.3, dt_s=0.5, chunk_z=None):
    scale = {"t": dt_s, "c": 1.0, "z": z_um, "y": xy_um, "x": xy_um}
    chunks = tuple(chunk_z if name == "z" and chunk_z else 1 if name in "tcz" else 8 for name in axes)
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    array = group.create_array("0", shape=images.shape, chunks=chunks, dtype=images.dtype)
    array[:] = images
    levels = [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [scale[n] for n in axes]}]}
    ]
    image = [{"axes": [zarr_axis(name) for name in axes], "datasets": levels, "name": "volumes"}]
    if version == "0.4":
        group.attrs["multiscales"] = [image[0] | {"version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": image}


@settings(max_examples=25, deadline=None, suppress_health_check=FIXTURE)
@given(
    times=st.integers(1, 3),
    depth=st.integers(2, 4),
    order=st.sampled_from(["TZ", "ZT"]),
    unit=st.sampled_from(sorted(UM_IN)),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    xy_um=st.floats(0.05, 2.0),
    ratio=st.floats(0.3, 10.0),
)
def test_an_ome_tiff_comes_back_with_voxels_in_um_whatever_their_unit(
    tmp_path_factory, times, depth, order, unit, dtype, xy_um, ratio
):
    path = tmp_path_factory.mktemp("ome") / "volumes.ome.tif"
    volumes = stack(times, depth, dtype=dtype)
    written = volumes if order == "TZ" else volumes.swapaxes(0, 1)
    write_ome(path, np.ascontiguousarray(written), order + "YX", unit, xy_um, xy_um * ratio)
    recording, frames = read(path)
    assert (recording.info.depth, recording.info.frames) == (depth, times)
    assert recording.info.z_step_um == pytest.approx(xy_um * ratio, rel=1e-5)
    assert recording.info.pixel_size_um == pytest.approx(xy_um, rel=1e-5)
    np.testing.assert_array_equal([frame.image for frame in frames], volumes)
    for frame in frames:
        np.testing.assert_allclose(frame.info.volume.z_um, xy_um * ratio * np.arange(depth), rtol=1e-5)
        assert frame.info.volume.missing == ()


@settings(max_examples=15, deadline=None, suppress_health_check=FIXTURE)
@given(
    times=st.integers(1, 3),
    depth=st.integers(2, 4),
    channels=st.integers(1, 3),
    unit=st.sampled_from(["um", "micron", "\\u00B5m", "nm"]),
    data=st.data(),
)
def test_an_imagej_hyperstack_comes_back_with_its_spacing_and_the_chosen_channel(
    tmp_path_factory, times, depth, channels, unit, data
):
    path = tmp_path_factory.mktemp("imagej") / "hyperstack.tif"
    volumes = stack(times, depth, channels)
    per_um = 1e3 if unit == "nm" else 1.0
    write_imagej(path, volumes, "TZCYX", 0.1 * per_um, 0.25 * per_um, unit, finterval=0.5)
    channel = data.draw(st.integers(0, channels - 1))
    chosen = f"{path}::channel={channel}" if channels > 1 else path
    if channels > 1:
        assert "channel" in refused(path)
    recording, frames = read(chosen)
    assert recording.info.z_step_um == pytest.approx(0.25)
    np.testing.assert_array_equal([frame.image for frame in frames], volumes[:, :, channel])
    np.testing.assert_allclose([frame.info.time_s for frame in frames], 0.5 * np.arange(times))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "tzyx", "czyx", "tczyx"])
@pytest.mark.parametrize("chunk_z", [1, 2, 4])
def test_an_ome_zarr_comes_back_from_any_chunks(tmp_path, version, axes, chunk_z):
    path = tmp_path / "volumes.zarr"
    sizes = {"t": 3, "c": 2, "z": 4}
    images = stack(*(sizes[name] for name in axes if name in sizes))
    write_zarr(path, images, axes, version, chunk_z=chunk_z)
    wanted = images if "t" in axes else images[None]
    wanted = wanted[:, 1] if "c" in axes else wanted
    recording, frames = read(f"{path}::channel=1" if "c" in axes else path)
    np.testing.assert_array_equal([frame.image for frame in frames], wanted)
    assert recording.info.z_step_um == pytest.approx(0.3)
    if "t" in axes:
        np.testing.assert_allclose([frame.info.time_s for frame in frames], [0, 0.5, 1.0])


def test_a_chunk_that_holds_a_whole_volume_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "volumes.zarr"
    write_zarr(path, stack(3, 4), "tzyx", chunk_z=4)
    recording = open_recording(path, run_id="run", volumes=True)
    asked = []
    whole = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda a, key: asked.append(key) or whole(a, key))
    assert len(list(recording.frames())) == 3
    assert len(asked) == 3


def test_hdf5_volumes_come_back(tmp_path):
    path = tmp_path / "volumes.h5"
    volumes = stack(3, 4)
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", data=volumes)
        images.attrs["element_size_um"] = [0.4, 0.1, 0.1]
    recording, frames = read(path)
    np.testing.assert_array_equal([frame.image for frame in frames], volumes)
    assert recording.info.z_step_um == pytest.approx(0.4)


def test_a_plain_tiff_needs_its_axes_and_the_size_of_its_voxels(tmp_path):
    path = tmp_path / "pages.tif"
    volume = stack(5)
    with tifffile.TiffWriter(path) as file:
        for page in volume:
            file.write(page, metadata=None, contiguous=False)
    assert "--axes ZYX" in refused(path, z_step_um=0.3)
    assert "--z-step UM" in refused(path, axes="ZYX", pixel_size_um=0.1)
    assert "--pixel-size UM" in refused(path, axes="ZYX", z_step_um=0.3)
    _, frames = read(path, axes="ZYX", z_step_um=0.3, pixel_size_um=0.1)
    np.testing.assert_array_equal(frames[0].image, volume)
    assert frames[0].info.volume.z_um == pytest.approx(0.3 * np.arange(5))
    path = tmp_path / "shaped.tif"
    volumes = stack(2, 5)
    tifffile.imwrite(path, volumes, photometric="minisblack")
    _, frames = read(path, axes="TZYX", z_step_um=0.3, pixel_size_um=0.1)
    np.testing.assert_array_equal([frame.image for frame in frames], volumes)


def test_a_z_step_given_takes_precedence_and_alone_makes_volumes(tmp_path):
    path = tmp_path / "volumes.ome.tif"
    volumes = stack(2, 3)
    write_ome(path, volumes, "TZYX")
    recording, frames = read(path, volumes=None, z_step_um=0.5)
    np.testing.assert_array_equal([frame.image for frame in frames], volumes)
    assert recording.info.z_step_um == 0.5
    assert frames[0].info.volume.z_um == pytest.approx((0, 0.5, 1.0))


def test_without_a_z_step_and_a_detector_of_volumes_each_slice_is_an_image_as_ever(tmp_path):
    path = tmp_path / "volumes.ome.tif"
    write_ome(path, stack(2, 3), "TZYX")
    recording, frames = read(path, volumes=None)
    assert (recording.info.depth, len(frames)) == (1, 6)
    assert math.isnan(recording.info.z_step_um)
    assert frames[0].info.volume is None


WRONG = {
    "no step": {"z_um": None},
    "a step of 0": {"z_um": 0.0},
    "a negative step": {"z_um": -0.3},
    "nm written as um": {"z_um": 300.0},
    "um written as m": {"z_um": 0.3e-3},
    "pixels in m, steps in um": {"xy_um": 100.0},
}


@pytest.mark.parametrize("facts", WRONG.values(), ids=WRONG)
def test_voxels_that_cannot_be_are_asked_for_and_read_when_given(tmp_path, facts):
    path = tmp_path / "volumes.ome.tif"
    volumes = stack(2, 3)
    write_ome(path, volumes, "TZYX", **facts)
    assert "--z-step UM" in refused(path)
    recording, frames = read(path, z_step_um=0.3, pixel_size_um=0.1)
    assert (recording.info.z_step_um, recording.info.pixel_size_um) == (0.3, 0.1)
    assert len(frames) == 2


def test_an_imagej_stack_whose_spacing_has_no_unit_is_asked_for(tmp_path):
    path = tmp_path / "volumes.tif"
    write_imagej(path, stack(2, 3), "TZYX", unit="")
    assert "--pixel-size UM" in refused(path)
    assert "--z-step UM" in refused(path, pixel_size_um=0.1)


@given(
    st.one_of(st.just(math.nan), st.floats(1e-5, 1e5)),
    st.one_of(st.just(math.nan), st.floats(1e-5, 1e5)),
    st.one_of(st.none(), st.floats(-10, 1e5)),
    st.floats(1e-3, 1e3),
)
def test_a_z_step_is_a_plausible_one_or_what_the_user_said_or_none(
    stated_um, measured_um, given_um, pixel_um
):
    try:
        step_um, remarks = z_step_of("file", stated_um, measured_um, "", given_um, pixel_um)
    except SourceError:
        possible = [um for um in (stated_um, measured_um) if um > 0]
        agree = len(possible) < 2 or math.isclose(*possible, rel_tol=0.1)
        if given_um is not None:
            assert not 1e-4 <= given_um <= 1e4
        else:
            assert not possible or not agree or not 1 / 30 <= possible[0] / pixel_um <= 100
        return
    if given_um is not None:
        assert step_um == given_um > 0
    else:
        assert step_um in (stated_um, measured_um)
        assert 1 / 30 <= step_um / pixel_um <= 100
    unusual = not 0.1 <= step_um / pixel_um <= 20
    assert bool(remarks) == unusual


def planes_of(times, depth, position_um, time_s):
    """OME's facts of each plane, in the order of the file."""
    places = list(itertools.product(range(times), range(depth)))
    return {
        "Plane": {
            "PositionZ": [position_um(t, z) for t, z in places],
            "PositionZUnit": ["µm"] * len(places),
            "DeltaT": [time_s(t, z) for t, z in places],
            "DeltaTUnit": ["s"] * len(places),
        }
    }


def test_slices_taken_downwards_come_with_the_lowest_first_and_their_own_times(tmp_path):
    path = tmp_path / "both.ome.tif"
    volumes = stack(4, 3)
    rises = [True, False, True, False]

    def position_um(t, z):
        return 20 + 0.3 * (z if rises[t] else 2 - z)

    write_ome(path, volumes, "TZYX", **planes_of(4, 3, position_um, lambda t, z: 5 + 0.5 * t + 0.1 * z))
    recording, frames = read(path)
    for t, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, volumes[t] if rises[t] else volumes[t, ::-1])
        found = frame.info.volume
        assert found.upwards == rises[t]
        assert found.z_um == pytest.approx((0, 0.3, 0.6))
        assert found.time_s == pytest.approx((0, 0.1, 0.2) if rises[t] else (0.2, 0.1, 0))
        assert frame.info.focus_um == pytest.approx(20)
        assert frame.info.time_s == pytest.approx(0.5 * t)
    assert recording.info.frame_rate_hz == pytest.approx(2)


def test_heights_are_the_measured_positions_where_the_file_has_them(tmp_path):
    path = tmp_path / "measured.ome.tif"
    heights_um = [0.0, 0.29, 0.62, 0.9]
    facts = planes_of(2, 4, lambda _, z: 7 + heights_um[z], lambda t, _: 0.5 * t)
    write_ome(path, stack(2, 4), "TZYX", **facts)
    _, frames = read(path)
    assert frames[1].info.volume.z_um == pytest.approx(heights_um)
    assert frames[1].info.volume.time_s == ()
    _, frames = read(path, z_step_um=0.31)
    assert frames[1].info.volume.z_um == pytest.approx(0.31 * np.arange(4))


def test_positions_that_contradict_the_stated_step_are_asked_about(tmp_path):
    path = tmp_path / "contradiction.ome.tif"
    write_ome(path, stack(2, 4), "TZYX", **planes_of(2, 4, lambda _, z: 0.6 * z, lambda t, _: 0.5 * t))
    text = refused(path)
    assert "0.3 um apart" in text
    assert "0.6 um" in text


def test_a_last_volume_that_was_cut_off_is_partial_and_then_the_damage_is_said(tmp_path):
    path = tmp_path / "cut.tif"
    volumes = np.random.default_rng(5).integers(1, 999, (3, 4, 128, 128)).astype(np.uint16)
    write_imagej(path, volumes, "TZYX")
    with tifffile.TiffFile(path) as file:
        begins = file.pages.first.dataoffsets[0]
    with path.open("r+b") as file:
        file.truncate(begins + round(10.5 * volumes[0, 0].nbytes))
    recording = open_recording(path, run_id="run", volumes=True)
    frames = [recording.read(1.0) for _ in range(3)]
    np.testing.assert_array_equal(frames[1].image, volumes[1])
    assert [frame.info.volume.missing for frame in frames] == [(), (), (2, 3)]
    np.testing.assert_array_equal(frames[2].image[:2], volumes[2, :2])
    assert not frames[2].image[2:].any()
    assert not recording.ended
    with pytest.raises(SourceError, match="truncated"):
        recording.read(1.0)
    recording.close()


def test_a_folder_of_stacks_is_one_volume_per_file_and_a_gap_is_a_lost_volume(tmp_path):
    volumes = stack(4, 3)
    for place, number in enumerate((9, 10, 12, 13)):
        write_imagej(tmp_path / f"embryo_{number}.tif", volumes[place], "ZYX")
    recording, frames = read(tmp_path, frame_rate_hz=2.0)
    np.testing.assert_array_equal([frame.image for frame in frames], volumes)
    np.testing.assert_allclose([frame.info.time_s for frame in frames], [0, 0.5, 1.5, 2.0])
    assert recording.counts()["lost_in_recording"] == 1
    assert any("missing by their numbers" in text for text in recording.remarks)
    write_imagej(tmp_path / "embryo_14.tif", volumes[0, :2], "ZYX")
    _, frames = read(tmp_path, frame_rate_hz=2.0)
    assert frames[-1].info.volume.missing == (2,)
    write_imagej(tmp_path / "embryo_15.tif", volumes[0], "ZYX")
    assert "has 2 slices" in refused(tmp_path)
    (tmp_path / "embryo_14.tif").unlink()
    write_imagej(tmp_path / "embryo_14.tif", np.zeros((3, 5, 5), np.uint16), "ZYX")
    assert "embryo_14.tif" in refused(tmp_path)


@given(st.integers(2, 12), st.booleans(), st.floats(0.05, 5), st.floats(-100, 100), st.data())
def test_heights_rise_from_zero_and_follow_the_positions(depth, upwards, step_um, start_um, data):
    jitter = np.array(data.draw(st.lists(st.floats(-0.2, 0.2), min_size=depth, max_size=depth)))
    position_um = start_um + step_um * (np.arange(depth) + jitter)
    known = np.array(data.draw(st.lists(st.booleans(), min_size=depth, max_size=depth)))
    seen = position_um if upwards else position_um[::-1]
    found = heights_of(np.where(known, seen, np.nan), step_um, exact=False)
    assert found.z_um[0] == 0
    assert (np.diff(found.z_um) > 0).all()
    if known.sum() >= 2:
        assert found.upwards == upwards
        there = known if upwards else known[::-1]
        np.testing.assert_allclose((found.lowest_um + found.z_um)[there], position_um[there], atol=1e-9)


@given(st.integers(2, 12), st.floats(1e-4, 1), st.booleans(), st.data())
def test_slice_times_are_those_of_the_slices_or_unknown(depth, step_s, falls, data):
    stamps_s = 3 + step_s * np.arange(depth)
    stamps_s = stamps_s[::-1] if falls else stamps_s
    known = np.array(data.draw(st.lists(st.booleans(), min_size=depth, max_size=depth)))
    found = slice_times(np.where(known, stamps_s, np.nan), np.arange(depth), math.inf)
    if 2 * known.sum() < depth or known.sum() < 2:
        assert found == ()
    else:
        np.testing.assert_allclose(found, stamps_s - stamps_s[known].min(), atol=1e-9)
    assert slice_times(stamps_s, np.arange(depth), 0.5 * step_s) == ()
    assert slice_times(np.full(depth, 2.0), np.arange(depth), math.inf) == ()


def test_axes_that_leave_no_volumes_are_refused(tmp_path):
    path = tmp_path / "video.ome.tif"
    write_ome(path, stack(6), "TYX")
    assert "--axes ZYX" in refused(path)
    with pytest.raises(ConfigurationError):
        read(path, axes="TZYX")
