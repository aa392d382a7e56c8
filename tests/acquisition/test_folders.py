"""Folders of images: order and losses by the numbers in their names; more than one of anything is asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from acquisition.recording import open_recording
from acquisition.stacks.image_order import sort_images
from calibration.errors import CalibrationError
from calibration.scan.planes import FocusScan
from stream.errors import SourceError

SHAPE = (12, 16)


def image(value):
    return np.full(SHAPE, value, np.uint16)


def write(folder, names, suffix=".tif"):
    """Images whose grey value is their place in `names`."""
    folder.mkdir(exist_ok=True, parents=True)
    for value, name in enumerate(names):
        if suffix == ".tif":
            tifffile.imwrite(folder / f"{name}{suffix}", image(value))
        else:
            Image.fromarray(image(value).astype(np.uint8)).save(folder / f"{name}{suffix}")
    return folder


def replay(path, **options):
    recording = open_recording(Path(path), run_id="run", **options)
    try:
        frames = []
        while not recording.ended:
            frames.append(recording.read(0.1))
        return recording, frames, recording.counts()
    finally:
        recording.close()


def values(frames):
    return [int(frame.image[0, 0]) for frame in frames]


def refused(path, **options):
    with pytest.raises(SourceError) as caught:
        replay(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


GAPS = {
    "in the middle": ([*range(20), *range(26, 40)], 6),
    "twice": ([0, 1, 2, 5, 6, 7, 9], 3),
    "not from 0": ([100, 101, 103, 104], 1),
    "of one": ([7, 8, 10], 1),
    "none": ([3, 4, 5, 6], 0),
}


@pytest.mark.parametrize(
    "name", ["img_{:04d}", "{}", "Image ({})", "run2_{:03d}_x10", "2024-05-01 {:d}", "a.b.{:03d}"]
)
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_gap_in_the_numbers_is_a_loss(tmp_path, name, gap, suffix):
    numbers, lost = GAPS[gap]
    write(tmp_path, [name.format(number) for number in numbers], suffix)
    recording, frames, counts = replay(tmp_path, frame_rate_hz=20)
    assert values(frames) == list(range(len(numbers)))
    assert [frame.info.camera_frame for frame in frames] == numbers
    assert counts["lost_in_recording"] == lost
    np.testing.assert_allclose([f.info.time_s for f in frames], (np.array(numbers) - numbers[0]) / 20)
    told = [text for text in recording.remarks if "missing by their numbers" in text]
    assert [text.split()[0] for text in told] == ([str(lost)] if lost else [])


@given(st.sets(st.integers(0, 400), min_size=150, max_size=300))
def test_images_come_by_their_numbers_and_what_is_left_out_is_lost(numbers):
    found = sort_images(Path(), [Path(f"c2_img{number}_e10.tif") for number in sorted(numbers, key=str)])
    times = {where.t + found.first: place.file.name for where, place in found.table.places.items()}
    assert times == {number: f"c2_img{number}_e10.tif" for number in numbers}


def test_the_first_of_copied_names_has_no_number(tmp_path):
    for style in ("frame ({})", "frame_{}", "frame - {}", "frame {}"):
        folder = tmp_path / style.format("n")
        write(folder, ["frame", *(style.format(number) for number in range(1, 12))])
        _, frames, counts = replay(folder)
        assert values(frames) == list(range(12))
        assert counts["lost_in_recording"] == 0


def test_a_name_without_a_number_that_fits_nowhere_is_asked_for(tmp_path):
    write(tmp_path, ["background", *(f"frame_{number}" for number in range(5))])
    assert "background.tif, frame_*.tif" in refused(tmp_path)
    assert values(replay(f"{tmp_path}::files=frame_*.tif")[1]) == [1, 2, 3, 4, 5]
    write(tmp_path / "zero", ["frame", "frame (0)", "frame (1)"])
    assert "::files=" in refused(tmp_path / "zero")


@pytest.mark.parametrize(
    "names",
    [
        ["a_0", "a_1", "b_0", "b_1", "b_2"],
        ["run1_0", "run1_1", "run2_0", "run2_1", "run2_2"],
        ["left-00", "left-01", "right-00", "right-01", "right-02"],
        ["Cam1_Rec3_0", "Cam1_Rec3_1", "Cam2_Rec3_0", "Cam2_Rec3_1", "Cam2_Rec3_2"],
    ],
)
def test_two_series_of_images_are_asked_for_by_pattern(tmp_path, names):
    write(tmp_path, names)
    text = refused(tmp_path)
    assert "2, 3 images" in text
    pattern = text.rpartition("::files=")[2].rstrip('"')
    assert values(replay(f"{tmp_path}::files={pattern}")[1]) == [2, 3, 4]
    assert "no image" in refused(f"{tmp_path}::files=nothing*")


def test_numbers_of_one_value_in_two_widths_are_refused(tmp_path):
    write(tmp_path, ["img_1", "img_2", "img_02", "img_3"])
    text = refused(tmp_path)
    assert "img_2.tif" in text
    assert "img_02.tif" in text


def test_the_number_that_changes_is_the_frames_and_a_width_that_changes_does_not_matter(tmp_path):
    write(tmp_path, [f"10x_{number}_20us" for number in (8, 9, 10, 11, 100)])
    assert [frame.info.camera_frame for frame in replay(tmp_path)[1]] == [8, 9, 10, 11, 100]


def test_a_counter_beside_a_time_of_day_is_the_number(tmp_path):
    times = ["12-00-58.900", "12-00-59.400", "12-00-59.900", "12-01-00.900"]
    names = [
        f"Basler_a2A_2024-01-31_{time}_{number:04d}"
        for time, number in zip(times, (7, 8, 9, 11), strict=True)
    ]
    write(tmp_path, names)
    _, frames, counts = replay(tmp_path)
    assert [frame.info.camera_frame for frame in frames] == [7, 8, 9, 11]
    assert counts["lost_in_recording"] == 1


@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-31__23-59-58", "2024-01-31__23-59-59", "2024-02-01__00-00-00", "2024-02-01__00-01-00"],
        ["20240131_235959_100", "20240131_235959_600", "20240201_000000_100"],
        ["2023-12-31T23.59.59", "2024-01-01T00.00.00", "2024-01-01T00.00.01"],
    ],
)
def test_times_of_day_alone_are_an_order_without_gaps(tmp_path, times):
    write(tmp_path, [f"Image__{time}" for time in times])
    recording, frames, counts = replay(tmp_path)
    assert values(frames) == list(range(len(times)))
    assert counts["lost_in_recording"] == 0
    assert any("times in their names" in text for text in recording.remarks)


CLOCKS = [
    "img_{h:02}-{m:02}-{s:02}", "img_{h:02}_{m:02}_{s:02}", "img {h:02}.{m:02}.{s:02}", "img_{h:02}h{m:02}m{s:02}s",
    "{h:02}-{m:02}-{s:02}", "2024-01-31_{h:02}-{m:02}-{s:02}", "20240131_{h:02}{m:02}{s:02}_x",
    "31-01-2024_{h:02}-{m:02}-{s:02}", "240131_{h:02}{m:02}{s:02}", "31012024-{h:02}{m:02}{s:02}",
    "2024-01-31 {h:02}h{m:02}m{s:02}s", "5um_{h:02}-{m:02}-{s:02}.250",
]  # fmt: skip


@pytest.mark.parametrize("name", CLOCKS)
@pytest.mark.parametrize(("step_s", "begin_s"), [(7, 43_200), (1, 43_230), (13, 46_700)])
def test_minutes_and_seconds_in_names_are_one_time_of_day_without_losses(tmp_path, name, step_s, begin_s):
    times = [begin_s + step_s * k for k in range(40)]
    write(tmp_path, [name.format(h=t // 3600, m=t // 60 % 60, s=t % 60) for t in times])
    recording, frames, counts = replay(tmp_path)
    assert values(frames) == list(range(40))
    assert counts["lost_in_recording"] == 0
    assert any("times in their names" in text for text in recording.remarks)


def test_numbers_that_only_look_like_a_time_of_day_are_not_joined(tmp_path):
    write(tmp_path, [f"a_{series:02}_01_{number:02}" for series in range(2) for number in range(20)])
    assert "a_00_*_*" in refused(tmp_path)
    write(tmp_path / "frames", [f"a_12_01_{number:02}" for number in (0, 1, 2, 5)])
    assert replay(tmp_path / "frames")[2]["lost_in_recording"] == 2


def test_a_number_that_images_share_and_that_falls_in_the_order_of_another_is_asked_for(tmp_path):
    write(tmp_path, [f"cam{k % 2}_{k:03d}" for k in range(8)])
    assert "cam0_*.tif, cam1_*.tif" in refused(tmp_path)
    write(tmp_path / "rising", [f"block{k // 4}_{k:03d}" for k in range(8)])
    assert values(replay(tmp_path / "rising")[1]) == list(range(8))


def test_numbers_in_even_steps_are_frames_and_said_so(tmp_path):
    write(tmp_path, [f"img_{number:05d}" for number in (0, 10, 20, 40)])
    recording, _, counts = replay(tmp_path, frame_rate_hz=20)
    assert counts["lost_in_recording"] == 1
    assert any("increase by 10" in text for text in recording.remarks)


def test_numbers_that_do_not_count_are_an_order_and_said_so(tmp_path):
    write(tmp_path, [f"img_{number}" for number in (1017, 1534, 2049, 2551, 3070)])
    recording, frames, counts = replay(tmp_path)
    assert values(frames) == [0, 1, 2, 3, 4]
    assert counts["lost_in_recording"] == 0
    assert any("not a counter" in text for text in recording.remarks)


def test_times_with_a_point_are_one_number(tmp_path):
    write(tmp_path, [f"t{time:.2f}s" for time in (0.95, 1.0, 1.05, 1.15)])
    assert values(replay(tmp_path)[1]) == [0, 1, 2, 3]


def test_two_counters_that_contradict_each_other_are_refused(tmp_path):
    write(tmp_path, [f"a{n}_b{5 - n}" for n in range(5)])
    assert "different orders" in refused(tmp_path)


def test_hidden_files_and_what_is_no_image_are_left_alone(tmp_path):
    write(tmp_path, ["img_0", "img_1"])
    (tmp_path / "._img_0.tif").write_bytes(b"resource fork")
    (tmp_path / "Thumbs.db").write_bytes(b"thumbnails")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "img_2.tif").mkdir()
    assert values(replay(tmp_path)[1]) == [0, 1]


def test_two_kinds_of_images_are_refused_or_chosen(tmp_path):
    write(tmp_path, ["img_0", "img_1"])
    write(tmp_path, ["img_0", "img_1", "img_2"], ".png")
    assert "several types" in refused(tmp_path)
    assert values(replay(f"{tmp_path}::files=*.png")[1]) == [0, 1, 2]


# Micro-Manager's separate image files


def write_micromanager(folder, positions=1, channels=1, heights=1, times=4, skip=()):
    """Images with position, channel, time and height in their names; returns them by (p, c, t, z)."""
    names = {
        (p, c, t, z): f"img_channel{c:03d}_position{p:03d}_time{t:09d}_z{z:03d}"
        for p in range(positions)
        for c in range(channels)
        for t in range(times)
        for z in range(heights)
        if (p, c, t, z) not in skip
    }
    write(folder, names.values())
    facts = {"Summary": {"PixelSize_um": 0.5, "Interval_ms": 50}}
    for (_, _, t, z), name in names.items():
        facts[f"Metadata-Default/{name}.tif"] = {
            "ElapsedTime-ms": 40.0 * t + z,
            "ZPositionUm": 2.0 * z,
            "Exposure-ms": 5,
        }
    (folder / "metadata.txt").write_text(json.dumps(facts))
    return {where: value for value, where in enumerate(names)}


def test_metadata_beside_the_images_give_scales_times_and_focus(tmp_path):
    write_micromanager(tmp_path, times=5)
    recording, frames, _ = replay(tmp_path)
    assert recording.info.pixel_size_um == 0.5
    np.testing.assert_allclose([frame.info.time_s for frame in frames], 0.04 * np.arange(5))
    assert {(frame.info.focus_um, frame.info.exposure_ms) for frame in frames} == {(0.0, 5.0)}


def test_metadata_that_were_cut_off_are_read_as_far_as_they_go(tmp_path):
    write_micromanager(tmp_path, times=5)
    path = tmp_path / "metadata.txt"
    text = path.read_text()
    path.write_text(text[: text.index("time000000003") + 5])
    recording, frames, _ = replay(tmp_path)
    assert recording.info.pixel_size_um == 0.5
    np.testing.assert_allclose([frame.info.time_s for frame in frames], 0.04 * np.arange(5), atol=1e-9)


@pytest.mark.parametrize(
    ("planned", "came", "said"),
    [
        ({"Frames": 20}, {"times": 12}, "20 images were planned, 12 exist"),
        ({"Frames": "20", "Slices": 1}, {"times": 12}, "20 images were planned, 12 exist"),
        ({"Frames": 6, "Slices": 3}, {"times": 4, "heights": 3}, "18 images were planned, 12 exist"),
        ({"Frames": 12}, {"times": 12}, ""),
        ({"Frames": 12}, {"times": 12, "skip": {(0, 0, 5, 0)}}, ""),
        ({"Frames": "many"}, {"times": 3}, ""),
        ({}, {"times": 3}, ""),
    ],
)
def test_a_folder_that_has_fewer_images_than_were_planned_says_so(tmp_path, planned, came, said):
    write_micromanager(tmp_path, **came)
    file = tmp_path / "metadata.txt"
    facts = json.loads(file.read_text())
    facts["Summary"] |= planned
    file.write_text(json.dumps(facts))
    told = [text for text in replay(tmp_path)[0].remarks if "planned" in text]
    assert len(told) == bool(said)
    assert all(said in text for text in told)


@pytest.mark.parametrize("given", ["bad=7", "bad=7,position=0", " Position=1", "colour = red"])
def test_a_key_that_nobody_knows_is_named(tmp_path, given):
    write(tmp_path / "flat", ["img_0", "img_1"])
    for position in ("Pos0", "Pos1"):
        write(tmp_path / "deep" / position, ["img_0", "img_1"])
    tifffile.imwrite(tmp_path / "video.tif", np.zeros((4, *SHAPE), np.uint16), photometric="minisblack")
    for place in ("flat", "deep", "video.tif"):
        text = refused(f"{tmp_path / place}::{given}")
        assert repr(given.partition("=")[0].strip()) in text
        assert "position, channel, series, z, files" in text


@pytest.mark.parametrize("what", ["position", "channel"])
def test_two_positions_or_channels_are_asked_for(tmp_path, what):
    value = write_micromanager(tmp_path, **{f"{what}s": 2})
    text = refused(tmp_path)
    assert f"2 {what}s (000, 001)" in text
    assert f"::{what}=001" in text
    for number in (0, 1):
        wanted = [value[(number, 0, t, 0) if what == "position" else (0, number, t, 0)] for t in range(4)]
        for given_as in (f"{number}", f"{number:03d}"):
            assert values(replay(f"{tmp_path}::{what}={given_as}")[1]) == wanted
    assert "has no" in refused(f"{tmp_path}::{what}=2")


def test_a_time_that_is_missing_at_one_position_is_its_loss(tmp_path):
    write_micromanager(tmp_path, positions=2, times=6, skip={(1, 0, 2, 0), (1, 0, 3, 0)})
    _, frames, counts = replay(f"{tmp_path}::position=1")
    assert [frame.info.camera_frame for frame in frames] == [0, 1, 4, 5]
    assert counts["lost_in_recording"] == 2
    assert replay(f"{tmp_path}::position=0")[2]["lost_in_recording"] == 0


def test_heights_are_planes_of_a_volume_or_one_is_chosen(tmp_path):
    value = write_micromanager(tmp_path, heights=3)
    _, frames, _ = replay(tmp_path)
    assert values(frames) == [value[0, 0, t, z] for t in range(4) for z in range(3)]
    assert [frame.info.focus_um for frame in frames] == [0, 2, 4] * 4
    assert replay(tmp_path, volumes=True)[1][0].image.shape == (3, *SHAPE)
    _, frames, _ = replay(f"{tmp_path}::z=1")
    assert values(frames) == [value[0, 0, t, 1] for t in range(4)]


def test_a_height_that_is_missing_in_a_volume_is_refused_where_it_is(tmp_path):
    write_micromanager(tmp_path, heights=3, skip={(0, 0, 1, 1)})
    assert "time 1, height 1" in refused(tmp_path)


def test_positions_in_subfolders_are_asked_for_and_one_subfolder_is_it(tmp_path):
    for position in ("Pos0", "Pos1"):
        write(tmp_path / position, [f"img_{t:09d}_Default_000" for t in range(3)])
    text = refused(tmp_path)
    assert "2 positions (Pos0, Pos1)" in text
    assert f"{tmp_path}::position=Pos1" in text
    assert values(replay(f"{tmp_path}::position=Pos1")[1]) == [0, 1, 2]
    write(tmp_path / "lone" / "Default", ["img_0", "img_1"])
    assert values(replay(tmp_path / "lone")[1]) == [0, 1]


def test_channels_of_the_old_names_are_asked_for_by_their_names(tmp_path):
    write(tmp_path, [f"img_{t:09d}_{name}_000" for name in ("Cy3", "GFP-2") for t in range(3)])
    assert "2 channels (cy3, gfp-2)" in refused(tmp_path)
    assert values(replay(f"{tmp_path}::channel=gfp-2")[1]) == [3, 4, 5]
    assert values(replay(f"{tmp_path}::channel=0")[1]) == [0, 1, 2]


def test_a_choice_that_a_recording_does_not_have_is_refused(tmp_path):
    write(tmp_path / "run", ["img_0", "img_1"])
    for path in (
        f"{tmp_path / 'run'}::position=1",
        f"{tmp_path / 'run'}::channel=red",
        f"{tmp_path / 'run'}::data",
    ):
        assert "has no" in refused(path)
    tifffile.imwrite(tmp_path / "video.tif", np.zeros((4, *SHAPE), np.uint16), photometric="minisblack")
    assert "has no" in refused(f"{tmp_path / 'video.tif'}::channel=1")


# folders of stacks


def test_one_stack_in_a_folder_is_it_and_several_are_asked_for(tmp_path):
    stack = np.stack([image(value) for value in range(5)])
    tifffile.imwrite(tmp_path / "first.tif", stack, photometric="minisblack")
    assert values(replay(tmp_path)[1]) == [0, 1, 2, 3, 4]
    tifffile.imwrite(tmp_path / "second.tif", stack[::-1], photometric="minisblack")
    assert "first.tif, second.tif" in refused(tmp_path)
    assert values(replay(f"{tmp_path}::files=second.tif")[1]) == [4, 3, 2, 1, 0]


def test_a_focus_scan_with_a_gap_is_refused_where_the_planes_are_only_counted(tmp_path):
    write(tmp_path, [f"img_{number:03d}" for number in (0, 1, 2, 4, 5)])
    with pytest.raises(CalibrationError, match="missing by their numbers before its image 3"):
        FocusScan(tmp_path, z_step_um=1.0, repeats=1, pixel_size_um=0.5)
