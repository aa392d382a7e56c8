from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from simulated_clock import SimulatedClock

from acquisition.recording import open_recording
from acquisition.references import read_image
from acquisition.source import Source
from acquisition.stacks.image_order import sort_images
from stream.errors import SourceError


def images(count=6, dtype=np.uint8, shape=(20, 30)):
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (count, *shape), dtype)


def frames_of(path, **options):
    recording = open_recording(path, run_id="run", **options)
    try:
        recording.start()
        frames = []
        while not recording.ended:
            frame = recording.read(0.5)
            if frame is not None:
                frames.append(frame)
        return recording.info, frames
    finally:
        recording.close()


def assert_same(frames, stack):
    assert [f.info.frame for f in frames] == list(range(len(stack)))
    for frame, expected in zip(frames, stack, strict=True):
        np.testing.assert_array_equal(frame.image, expected)
        assert frame.image.flags.c_contiguous


def write_plain(path, stack):
    tifffile.imwrite(path, stack, photometric="minisblack")


def write_pages(path, stack):
    with tifffile.TiffWriter(path) as writer:
        for image in stack:
            writer.write(image, contiguous=False, photometric="minisblack")


def write_compressed(path, stack):
    tifffile.imwrite(path, stack, compression="zlib", photometric="minisblack")


def write_imagej(path, stack):
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TYX", "finterval": 0.05, "unit": "um"},
                     resolution=(4.0, 4.0))  # fmt: skip


def write_ome(path, stack):
    tifffile.imwrite(
        path,
        stack,
        ome=True,
        photometric="minisblack",
        metadata={
            "axes": "TYX",
            "TimeIncrement": 50.0,
            "TimeIncrementUnit": "ms",
            "PhysicalSizeX": 250.0,
            "PhysicalSizeXUnit": "nm",
        },
    )


def write_bigtiff(path, stack):
    tifffile.imwrite(path, stack, bigtiff=True, photometric="minisblack")


def write_big_endian(path, stack):
    tifffile.imwrite(path, stack, byteorder=">", photometric="minisblack")


TIFFS = [write_plain, write_pages, write_compressed, write_imagej, write_ome, write_bigtiff, write_big_endian]


@pytest.mark.parametrize("write", TIFFS, ids=lambda f: f.__name__[6:])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_kind_of_tiff_gives_the_frames_that_were_written(tmp_path, write, dtype):
    stack = images(dtype=dtype)
    path = tmp_path / "video.tif"
    write(path, stack)
    info, frames = frames_of(path)
    assert_same(frames, stack)
    assert (info.frames, info.height, info.width, info.dtype) == (6, 20, 30, np.dtype(dtype).name)


@pytest.mark.parametrize("write", [write_imagej, write_ome], ids=lambda f: f.__name__[6:])
def test_pixel_size_and_frame_rate_come_from_the_file_in_its_own_units(tmp_path, write):
    path = tmp_path / "video.ome.tif"
    write(path, images())
    info, frames = frames_of(path)
    assert info.pixel_size_um == pytest.approx(0.25)
    assert info.frame_rate_hz == pytest.approx(20)
    assert [f.info.time_s for f in frames] == pytest.approx(np.arange(6) / 20)
    assert "assumed" not in info.description


def test_what_the_file_does_not_say_is_assumed_and_said_so(tmp_path):
    path = tmp_path / "video.tif"
    write_plain(path, images())
    info, frames = frames_of(path)
    assert (info.pixel_size_um, frames[3].info.time_s) == (1.0, 3.0)
    assert np.isnan(info.frame_rate_hz)
    assert "--frame-rate" in info.description
    assert "--pixel-size" in info.description


def test_a_pixel_is_as_large_as_the_models_only_where_nobody_says(tmp_path):
    plain, said = tmp_path / "video.tif", tmp_path / "video.ome.tif"
    write_plain(plain, images())
    write_ome(said, images())
    info, _ = frames_of(plain, model_pixel_size_um=lambda: 0.8)
    assert info.pixel_size_um == 0.8
    assert "0.8 um per pixel assumed, as in the model" in info.description
    assert frames_of(plain, model_pixel_size_um=lambda: 0.8, pixel_size_um=0.5)[0].pixel_size_um == 0.5
    assert frames_of(said, model_pixel_size_um=lambda: 0.8)[0].pixel_size_um == pytest.approx(0.25)


def test_what_the_user_says_takes_precedence(tmp_path):
    path = tmp_path / "video.ome.tif"
    write_ome(path, images())
    info, frames = frames_of(path, frame_rate_hz=100, pixel_size_um=2.0)
    assert (info.pixel_size_um, info.frame_rate_hz) == (2.0, 100)
    assert frames[5].info.time_s == pytest.approx(0.05)
    assert frames[5].info.pixel_size_um == 2.0


def test_times_and_focus_of_every_plane_are_read_from_ome_metadata(tmp_path):
    path = tmp_path / "uneven.ome.tif"
    times, heights = [10.0, 10.1, 10.5, 10.6], [5.0, 8.0, 11.0, 14.0]
    plane = {"DeltaT": times, "DeltaTUnit": ["s"] * 4, "PositionZ": heights, "PositionZUnit": ["µm"] * 4}
    tifffile.imwrite(
        path, images(4), ome=True, photometric="minisblack", metadata={"axes": "TYX", "Plane": plane}
    )
    _, frames = frames_of(path)
    assert [f.info.time_s for f in frames] == pytest.approx([0, 0.1, 0.5, 0.6])
    assert [f.info.focus_um for f in frames] == pytest.approx(heights)


def test_a_focus_scan_is_frames_with_their_focus_and_volumes_only_when_asked(tmp_path):
    path = tmp_path / "scan.ome.tif"
    stack = images(12).reshape(3, 4, 20, 30)
    meta = {"axes": "TZYX", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"}
    tifffile.imwrite(path, stack, ome=True, photometric="minisblack", metadata=meta)
    _, frames = frames_of(path)
    assert_same(frames, stack.reshape(12, 20, 30))
    assert [f.info.focus_um for f in frames] == pytest.approx([0, 2, 4, 6] * 3)
    info, volumes = frames_of(path, volumes=True, pixel_size_um=0.5)
    assert (info.depth, info.frames) == (4, 3)
    assert_same(volumes, stack)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.permutations(["T", "Z"]), st.integers(1, 3), st.integers(1, 3), st.sampled_from([np.uint8, np.uint16])
)
def test_planes_come_in_the_order_of_the_file_whatever_its_axes(tmp_path_factory, axes, t, z, dtype):
    path = tmp_path_factory.mktemp("axes") / "stack.ome.tif"
    size = {"T": t, "Z": z}
    stack = images(t * z, dtype).reshape(*(size[axis] for axis in axes), 20, 30)
    tifffile.imwrite(path, stack, ome=True, photometric="minisblack", metadata={"axes": "".join(axes) + "YX"})
    _, frames = frames_of(path)
    assert_same(frames, stack.reshape(-1, 20, 30))


@pytest.mark.parametrize("write", TIFFS, ids=lambda f: f.__name__[6:])
@pytest.mark.parametrize("keep", [0.95, 0.6, 0.2])
def test_a_file_cut_short_is_an_error_that_names_it_and_gives_only_whole_frames(tmp_path, write, keep):
    stack = images(12, shape=(64, 64))
    path = tmp_path / "cut.tif"
    write(path, stack)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    whole = []
    with pytest.raises(SourceError, match=r"cut\.tif") as caught:  # noqa: PT012
        recording = open_recording(path, run_id="run")
        try:
            while not recording.ended:
                whole.append(recording.read(0.1))
        finally:
            recording.close()
    assert "\n" not in str(caught.value)
    for frame, expected in zip(whole, stack, strict=False):
        np.testing.assert_array_equal(frame.image, expected)


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.tif", b""), ("text.tif", b"these are not the images"), ("x.ome.tif", b"II*\0\xff\xff\xff\xff"),
     ("x.h5", b"not hdf5 either"), ("film.avi", b"RIFF"), ("what.xyz", b"hello"), ("x.png", b"")],
)  # fmt: skip
def test_a_file_that_is_no_recording_is_refused_in_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=path.stem) as caught:
        open_recording(path, run_id="run")
    assert "\n" not in str(caught.value)


def test_a_recording_that_is_not_there_is_said(tmp_path):
    with pytest.raises(SourceError, match="there is no recording"):
        open_recording(tmp_path / "nothing.tif", run_id="run")
    with pytest.raises(SourceError, match="there are no images"):
        open_recording(tmp_path, run_id="run")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint32, np.int16, bool])
def test_pixels_that_no_camera_delivers_are_refused_with_what_to_do(tmp_path, dtype):
    path = tmp_path / "odd.tif"
    tifffile.imwrite(path, np.zeros((3, 16, 16), dtype), photometric="minisblack")
    with pytest.raises(SourceError, match=r"odd.tif.*16-bit"):
        open_recording(path, run_id="run")


def test_colour_and_several_channels_are_refused(tmp_path):
    colour, channels = tmp_path / "colour.tif", tmp_path / "channels.ome.tif"
    tifffile.imwrite(colour, np.zeros((4, 16, 16, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(channels, np.zeros((4, 2, 16, 16), np.uint8), ome=True, metadata={"axes": "TCYX"},
                     photometric="minisblack")  # fmt: skip
    with pytest.raises(SourceError, match="colour"):
        open_recording(colour, run_id="run")
    with pytest.raises(SourceError, match="channels"):
        open_recording(channels, run_id="run")


def write_zarr(path, stack, *, version):
    group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    array = group.create_array("0", shape=stack.shape, dtype=stack.dtype, chunks=(1, *stack.shape[1:]))
    array[...] = stack
    axes = [{"name": "t", "type": "time", "unit": "second"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    scale = [{"type": "scale", "scale": [0.05, 0.25, 0.25]}]
    multiscales = [
        {"version": version, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    ]
    facts = {"multiscales": multiscales}
    group.attrs.update(facts if version == "0.4" else {"ome": {"version": version, **facts}})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_gives_frames_with_pixel_size_and_rate(tmp_path, version):
    stack = images()
    path = tmp_path / "video.ome.zarr"
    write_zarr(path, stack, version=version)
    info, frames = frames_of(path)
    assert_same(frames, stack)
    assert (info.pixel_size_um, info.frame_rate_hz) == (pytest.approx(0.25), pytest.approx(20))


def test_a_zarr_group_without_an_image_is_refused(tmp_path):
    zarr.create_group(str(tmp_path / "empty.zarr"))
    with pytest.raises(SourceError, match="without an image"):
        open_recording(tmp_path / "empty.zarr", run_id="run")


def test_hdf5_gives_its_one_stack_or_the_one_that_is_named(tmp_path):
    stack = images(dtype=np.uint16)
    path = tmp_path / "video.h5"
    with h5py.File(path, "w") as file:
        file["run/images"] = stack
        file["run/times"] = np.arange(6.0)
        file["run/images"].attrs["frame_rate_hz"] = 20.0
    info, frames = frames_of(path)
    assert_same(frames, stack)
    assert info.frame_rate_hz == 20
    with h5py.File(path, "a") as file:
        file["run/more"] = stack[:2]
    with pytest.raises(SourceError, match="run/images, run/more"):
        open_recording(path, run_id="run")
    named = Path(f"{path}::run/more")
    assert_same(frames_of(named)[1], stack[:2])
    with pytest.raises(SourceError, match="no dataset"):
        open_recording(Path(f"{path}::run/none"), run_id="run")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_folder_of_images_is_read_in_natural_order(tmp_path, suffix):
    stack = images(12)
    for number, image in enumerate(stack):
        name = tmp_path / f"image{number}{suffix}"
        if suffix == ".tif":
            tifffile.imwrite(name, image)
        else:
            Image.fromarray(image).save(name)
    (tmp_path / "notes.txt").write_text("not an image")
    assert_same(frames_of(tmp_path)[1], stack)


def test_a_folder_with_one_odd_image_fails_at_that_image(tmp_path):
    for number in range(4):
        shape = (16, 16) if number != 2 else (16, 17)
        tifffile.imwrite(tmp_path / f"{number}.tif", np.zeros(shape, np.uint8))
    with pytest.raises(SourceError, match=r"2\.tif \(frame 2\)"):
        frames_of(tmp_path)


def test_a_folder_of_several_kinds_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((16, 16), np.uint8))
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(SourceError, match="several types"):
        open_recording(tmp_path, run_id="run")


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2))
def test_numbers_in_names_sort_as_numbers(numbers):
    places = sort_images(Path(), [Path(f"img_{number}_x.tif") for number in numbers]).table.places
    names = [places[where].file.name for where in sorted(places, key=lambda where: where.t)]
    assert [int(name.split("_")[1]) for name in names] == sorted(numbers)


def test_a_replay_at_its_own_pace_keeps_the_time(tmp_path, monkeypatch):
    path = tmp_path / "video.tif"
    write_plain(path, images(6))
    clock = SimulatedClock()
    monkeypatch.setattr("acquisition.recording.time", clock)
    recording = open_recording(path, run_id="run", frame_rate_hz=25, pace=True)
    recording.start()
    began_s, at_s = clock.now_s, []
    while not recording.ended:
        if recording.read(0.015) is not None:
            at_s.append(clock.now_s - began_s)
    recording.close()
    np.testing.assert_allclose(at_s, np.arange(6) / 25, atol=1e-9)


def test_a_frame_that_is_read_late_in_a_replay_is_as_old_as_one_that_waited_in_a_camera(
    tmp_path, monkeypatch
):
    path = tmp_path / "video.tif"
    write_plain(path, images(4))
    clock = SimulatedClock()
    monkeypatch.setattr("acquisition.recording.time", clock)
    recording = open_recording(path, run_id="run", frame_rate_hz=25, pace=True)
    recording.start()
    began_s = clock.now_s
    clock.sleep(0.1)
    found = [recording.read(1.0) for _ in range(4)]
    recording.close()
    due_s = np.arange(4) / 25
    np.testing.assert_allclose(
        [1e-9 * frame.info.monotonic_ns - began_s for frame in found], due_s, atol=1e-6
    )
    np.testing.assert_allclose([frame.info.wall_s - began_s for frame in found], due_s, atol=1e-6)
    assert clock.now_s - began_s == pytest.approx(0.12)


def test_a_recording_is_a_source_and_can_be_stopped(tmp_path):
    path = tmp_path / "video.tif"
    write_plain(path, images(6))
    recording = open_recording(path, run_id="run")
    assert isinstance(recording, Source)
    recording.read(0.1)
    recording.stop()
    assert recording.ended
    assert recording.read(0.1) is None
    assert recording.counts()["received"] == 1
    recording.close()
    recording.close()


def test_a_reference_is_the_mean_of_its_images(tmp_path):
    path = tmp_path / "bright.tif"
    stack = images(5, np.uint16)
    write_plain(path, stack)
    np.testing.assert_allclose(read_image(path), stack.mean(axis=0))


def test_three_frames_that_were_written_without_saying_what_they_are_are_no_colours(tmp_path):
    path = tmp_path / "three.tif"
    stack = images(3)
    tifffile.imwrite(path, stack, photometric="rgb", planarconfig="separate")
    assert_same(frames_of(path)[1], stack)
