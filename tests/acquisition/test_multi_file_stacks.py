"""Recordings that lie in several files: opened by any of them they are the same; what is missing is told."""

import json
import logging
import uuid
from pathlib import Path

import numpy as np
import pytest
import tifffile
from micromanager_files import plane_facts, write_ndtiff, write_split, write_stack

from acquisition.recording import open_recording
from stream.errors import SourceError


def images(count=6, shape=(20, 30), seed=1):
    return np.random.default_rng(seed).integers(0, 4000, (count, *shape), np.uint16)


def replay(path, **options):
    """The recording, its frames, and what it counted at the end."""
    recording = open_recording(Path(path), run_id="run", **options)
    try:
        frames = []
        while not recording.ended:
            frames.append(recording.read(0.1))
        return recording, frames, recording.counts()
    finally:
        recording.close()


def assert_video(frames, stack, *, numbers=None):
    np.testing.assert_array_equal([frame.image for frame in frames], stack)
    numbers = list(range(len(stack))) if numbers is None else numbers
    assert [frame.info.camera_frame for frame in frames] == numbers


def refused(path, **options):
    with pytest.raises(SourceError) as caught:
        replay(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Micro-Manager


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_stack_in_several_files_is_the_same_by_whichever_it_is_opened(tmp_path, parts):
    stack = images(12)
    for path in [*write_split(tmp_path / "run", stack, parts), tmp_path / "run"]:
        recording, frames, counts = replay(path)
        assert_video(frames, stack)
        np.testing.assert_allclose([frame.info.time_s for frame in frames], 0.05 * np.arange(12))
        assert {frame.info.focus_um for frame in frames} == {3.0}
        assert {frame.info.exposure_ms for frame in frames} == {10.0}
        assert (recording.info.pixel_size_um, counts["lost_in_recording"]) == (0.5, 0)


@pytest.mark.parametrize(("gone", "numbers"), [(0, range(4, 12)), (1, [*range(4), *range(8, 12)])])
def test_a_part_that_is_missing_is_named_and_its_frames_are_lost(tmp_path, gone, numbers):
    stack = images(12)
    files = write_split(tmp_path / "run", stack, 3)
    files[gone].unlink()
    for path in files:
        if path.exists():
            recording, frames, counts = replay(path)
            assert_video(frames, stack[list(numbers)], numbers=list(numbers))
            assert counts["lost_in_recording"] == 4
            told = [text for text in recording.remarks if files[gone].name in text]
            assert len(told) == 1
            assert "4 of 12 images are lost" in told[0]


def test_a_recording_that_ends_early_says_how_many_were_planned_and_what_the_next_file_would_be(tmp_path):
    files = write_split(tmp_path / "run", images(12), 2)
    files[1].unlink()
    recording, frames, counts = replay(files[0])
    assert (len(frames), counts["lost_in_recording"]) == (6, 0)
    told = [text for text in recording.remarks if "12 images were planned, 6 exist" in text]
    assert len(told) == 1
    assert "a_1_MMStack_Pos0_1.ome.tif" in told[0]


def test_a_file_of_one_position_means_it_and_their_folder_asks_which(tmp_path):
    first, second = images(4), images(4, seed=2)
    folder = tmp_path / "run"
    write_split(folder, first, 2, "a_1_MMStack_Pos0", 0, Positions=2)
    files = write_split(folder, second, 2, "a_1_MMStack_Pos1", 1, Positions=2)
    for path in (*files, f"{folder}::position=Pos1", f"{folder}::position=1"):
        assert_video(replay(path)[1], second)
    assert_video(replay(f"{folder}::position=0")[1], first)
    text = refused(folder)
    assert "Pos0" in text
    assert "Pos1" in text
    assert f"{folder}::position=Pos1" in text
    assert "Pos0, Pos1" in refused(f"{folder}::position=7")


def test_positions_and_channels_in_one_file_are_asked_for(tmp_path):
    stack = images(12).reshape(3, 2, 2, 20, 30)
    path = tmp_path / "a_1_MMStack.ome.tif"
    planes = [(c, 0, t, p, stack[t, p, c]) for t in range(3) for p in range(2) for c in range(2)]
    names = [{"Label": "inlet"}, {"Label": "outlet"}]
    write_stack(path, planes, ChNames=["GFP", "DAPI"], StagePositions=names)
    assert "inlet, outlet" in refused(path)
    assert "GFP, DAPI" in refused(f"{path}::position=outlet")
    assert_video(replay(f"{path}::position=outlet,channel=DAPI")[1], stack[:, 1, 1])
    assert_video(replay(f"{path}::channel=0,position=0")[1], stack[:, 0, 0])
    for wrong in ("position=", "position=0,position=1", "position=0,colour=red"):
        assert "::position=1,channel=0" in refused(f"{path}::{wrong}")


def test_frames_that_the_camera_lost_are_told_by_its_numbers(tmp_path):
    stack = images(6)
    numbers = [0, 1, 4, 5, 6, 9]
    path = tmp_path / "a_1_MMStack_Pos0.ome.tif"
    write_stack(path, [(0, 0, t, 0, stack[t], plane_facts(t, numbers[t])) for t in range(6)])
    _, frames, counts = replay(path)
    assert_video(frames, stack, numbers=numbers)
    assert counts["lost_in_recording"] == 4


def test_a_stack_without_its_index_is_read_by_its_pages(tmp_path):
    stack = images(6)
    path = tmp_path / "a_1_MMStack_Pos0.ome.tif"
    write_stack(path, [(0, 0, t, 0, stack[t]) for t in range(6)], with_index=False)
    assert_video(replay(path)[1], stack)


def test_a_copy_of_a_part_is_not_joined_to_it(tmp_path):
    stack = images(8)
    files = write_split(tmp_path / "run", stack, 2)
    files[1].with_name("a_1_MMStack_Pos0_2.ome.tif").write_bytes(files[1].read_bytes())
    assert "one is a copy" in refused(files[0])


def test_files_of_another_recording_beside_it_are_left_alone(tmp_path):
    stack = images(8)
    files = write_split(tmp_path / "run", stack, 2)
    files[1].unlink()
    write_split(tmp_path / "run", images(4, seed=3), 1, "a_1_MMStack_Pos0_1", StartTime="another day")
    assert_video(replay(files[0])[1], stack[:4])


def test_a_volume_that_was_cut_off_in_the_middle_is_read_to_its_last_plane(tmp_path):
    stack = images(11)
    path = tmp_path / "a_1_MMStack_Pos0.ome.tif"
    facts = [plane_facts(t) | {"ZPositionUm": 2.0 * z} for t in range(3) for z in range(4)]
    planes = [(0, n % 4, n // 4, 0, stack[n], facts[n]) for n in range(11)]
    write_stack(path, planes)
    _, frames, _ = replay(path)
    np.testing.assert_array_equal([frame.image for frame in frames], stack)
    assert [frame.info.focus_um for frame in frames] == ([0, 2, 4, 6] * 3)[:11]


# Micro-Manager's tags on the pages, without its header


def write_tagged(path, stack, said):
    """Pages with a tag each; `said(k)` is what page `k` says beside its time."""
    with tifffile.TiffWriter(path) as file:
        for k, page in enumerate(stack):
            facts = {"PixelSizeUm": 0.5, "ImageNumber": str(k), "ElapsedTime-ms": 50.0 * (k // 2)} | said(k)
            tags = [(51123, 2, 0, json.dumps(facts), True)]
            file.write(page, metadata=None, contiguous=False, photometric="minisblack", extratags=tags)
    return path


IN_TURN = {
    "position by number and name": (
        "position", ("Pos0", "Pos1"),
        lambda k: {"PositionIndex": k % 2, "PositionName": f"Pos{k % 2}", "FrameIndex": k // 2},
    ),
    "position by number": ("position", ("0", "1"), lambda k: {"PositionIndex": k % 2, "FrameIndex": k // 2}),
    "position by name": ("position", ("inlet", "out"), lambda k: {"PositionName": ("inlet", "out")[k % 2]}),
    "position, frames count pages": (
        "position", ("0", "1"), lambda k: {"PositionIndex": k % 2, "FrameIndex": k}
    ),
    "position as text": (
        "position", ("3", "7"), lambda k: {"PositionIndex": str(3 + 4 * (k % 2)), "FrameIndex": str(k // 2)}
    ),
    "channel by number and name": (
        "channel", ("RFP", "GFP"),
        lambda k: {"ChannelIndex": k % 2, "Channel": ("RFP", "GFP")[k % 2], "FrameIndex": k // 2},
    ),
    "channel by name": ("channel", ("RFP", "GFP"), lambda k: {"Channel": ("RFP", "GFP")[k % 2]}),
}  # fmt: skip


@pytest.mark.parametrize("form", IN_TURN)
def test_pages_of_several_positions_or_channels_are_asked_for_by_their_tags(tmp_path, form):
    key, names, said = IN_TURN[form]
    stack = images(12)
    path = write_tagged(tmp_path / "run.tif", stack, said)
    for place in (path, tmp_path):
        text = refused(place)
        assert f"contains 2 {key}s ({', '.join(names)})" in text
        assert f"{path}::{key}={names[1]}" in text
        for number, name in enumerate(names):
            recording, frames, counts = replay(f"{place}::{key}={name}")
            assert_video(frames, stack[number::2])
            np.testing.assert_allclose([frame.info.time_s for frame in frames], 0.05 * np.arange(6))
            assert (recording.info.pixel_size_um, counts["lost_in_recording"]) == (0.5, 0)
    assert "has no" in refused(f"{path}::{key}=9")


def test_positions_one_after_the_other_and_channels_in_them_are_chosen_by_tags(tmp_path):
    stack = images(24)
    path = write_tagged(
        tmp_path / "run.tif",
        stack,
        lambda k: {"PositionIndex": k // 12, "ChannelIndex": k % 2, "FrameIndex": k % 12 // 2},
    )
    assert "2 positions (0, 1)" in refused(path)
    assert "2 channels (0, 1)" in refused(f"{path}::position=1")
    assert_video(replay(f"{path}::position=1,channel=0")[1], stack[12::2])


def test_a_frame_that_is_left_out_at_one_position_is_its_loss(tmp_path):
    stack = images(12)
    stays = [k for k in range(12) if k not in {5, 7}]
    said = [{"PositionIndex": k % 2, "FrameIndex": k // 2} for k in stays]
    path = write_tagged(tmp_path / "run.tif", stack[stays], lambda k: said[k])
    _, frames, counts = replay(f"{path}::position=1")
    assert_video(frames, stack[[1, 3, 9, 11]], numbers=[0, 1, 4, 5])
    assert counts["lost_in_recording"] == 2


def test_heights_by_tags_are_volumes_or_one_is_chosen(tmp_path):
    stack = images(12)
    path = write_tagged(
        tmp_path / "run.tif",
        stack,
        lambda k: {"SliceIndex": k % 2, "ZPositionUm": 5.0 * (k % 2), "FrameIndex": k // 2},
    )
    _, frames, _ = replay(path)
    np.testing.assert_array_equal([frame.image for frame in frames], stack)
    assert [frame.info.focus_um for frame in frames] == [0, 5] * 6
    np.testing.assert_array_equal(replay(path, volumes=True)[1][2].image, stack[4:6])
    _, frames, counts = replay(f"{path}::z=1")
    np.testing.assert_array_equal([frame.image for frame in frames], stack[1::2])
    assert counts["lost_in_recording"] == 0


def test_a_page_that_does_not_say_its_position_is_refused_and_where_all_are_one_it_does_not_matter(tmp_path):
    stack = images(12)
    path = write_tagged(
        tmp_path / "run.tif",
        stack,
        lambda k: {"FrameIndex": k // 2} | ({"PositionIndex": k % 2} if k != 4 else {}),
    )
    assert "page 4 of" in refused(path)
    path = write_tagged(
        tmp_path / "one.tif", stack, lambda k: {"FrameIndex": k} | ({"PositionIndex": 1} if k != 4 else {})
    )
    assert_video(replay(path)[1], stack)


# NDTiff


@pytest.mark.parametrize("files", [1, 2, 3])
def test_ndtiff_is_the_same_by_any_file_its_index_or_its_folder(tmp_path, files, caplog, recwarn):
    stack = images(9)
    found = write_ndtiff(tmp_path / "run", [({"time": t}, stack[t]) for t in range(9)], files)
    with caplog.at_level(logging.DEBUG):
        for path in [*found, tmp_path / "run", tmp_path / "run" / "NDTiff.index"]:
            recording, frames, counts = replay(path)
            assert_video(frames, stack)
            np.testing.assert_allclose([frame.info.time_s for frame in frames], 0.05 * np.arange(9))
            assert (recording.info.pixel_size_um, counts["lost_in_recording"]) == (0.5, 0)
    assert not caplog.records
    assert not recwarn.list


def test_a_missing_file_of_ndtiff_is_a_loss_and_named(tmp_path):
    stack = images(9)
    found = write_ndtiff(tmp_path / "run", [({"time": t}, stack[t]) for t in range(9)], 3)
    found[1].unlink()
    recording, frames, counts = replay(tmp_path / "run")
    assert_video(frames, stack[[0, 1, 2, 6, 7, 8]], numbers=[0, 1, 2, 6, 7, 8])
    assert counts["lost_in_recording"] == 3
    assert any("d_NDTiffStack_1.tif is missing: 3 of 9 images are lost" in text for text in recording.remarks)


def test_ndtiff_asks_for_its_channel_and_takes_heights_below_zero(tmp_path):
    stack = images(12).reshape(2, 2, 3, 20, 30)
    planes = [
        ({"channel": name, "time": t, "z": z - 1}, stack[c, t, z])
        for t in range(2)
        for c, name in enumerate(("GFP", "DAPI"))
        for z in range(3)
    ]
    write_ndtiff(tmp_path / "run", planes, 2)
    assert "GFP, DAPI" in refused(tmp_path / "run")
    _, frames, _ = replay(f"{tmp_path / 'run'}::channel=DAPI")
    np.testing.assert_array_equal([frame.image for frame in frames], stack[1].reshape(6, 20, 30))


# OME sets


def write_ome_set(folder, stack, per_file=2, companion=False, sizes=None, images=1):
    """OME-TIFF files that name one another by UUID, their description in each or in a companion file."""
    folder.mkdir(exist_ok=True)
    count = len(stack) // images
    parts = [
        (image, begin, folder / f"set_{image}_{begin:03d}.ome.tif")
        for image in range(images)
        for begin in range(0, count, per_file)
    ]
    ids = {path: f"urn:uuid:{uuid.uuid4()}" for _, _, path in parts}
    body = ""
    for image in range(images):
        data = "".join(
            f'<TiffData FirstT="{begin}" IFD="0" PlaneCount="{min(per_file, count - begin)}">'
            f'<UUID FileName="{path.name}">{ids[path]}</UUID></TiffData>'
            for part, begin, path in parts
            if part == image
        )
        planes = "".join(
            f'<Plane TheC="0" TheT="{t}" TheZ="0" DeltaT="{0.05 * t}" PositionZ="3"/>' for t in range(count)
        )
        body += (
            f'<Image ID="Image:{image}" Name="place {image}"><Pixels ID="Pixels:{image}" DimensionOrder="XYZCT" '
            f'Type="uint16" SizeX="30" SizeY="20" SizeZ="1" SizeC="1" SizeT="{sizes or count}" PhysicalSizeX="0.5" '
            f'PhysicalSizeY="0.5"><Channel ID="Channel:{image}:0" SamplesPerPixel="1"/>{data}{planes}'
            "</Pixels></Image>"
        )
    space = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    for image, begin, path in parts:
        xml = f'<OME {space} UUID="{ids[path]}">{body}</OME>'
        if companion:
            xml = f'<OME {space} UUID="{ids[path]}"><BinaryOnly MetadataFile="set.companion.ome" UUID="x"/></OME>'
        chunk = stack[image * count + begin : image * count + min(begin + per_file, count)]
        with tifffile.TiffWriter(path) as writer:
            for number, page in enumerate(chunk):
                writer.write(page, description=xml if number == 0 else None, metadata=None, contiguous=False)
    if companion:
        (folder / "set.companion.ome").write_text(f"<OME {space}>{body}</OME>", "utf-8")
    return [path for _, _, path in parts]


@pytest.mark.parametrize("per_file", [1, 2, 6])
@pytest.mark.parametrize("companion", [False, True], ids=["in each file", "in a companion"])
def test_an_ome_set_is_the_same_by_any_of_its_files(tmp_path, per_file, companion):
    stack = images(6)
    files = write_ome_set(tmp_path / "set", stack, per_file, companion)
    more = [tmp_path / "set" / "set.companion.ome"] if companion else []
    for path in [*files, *more, tmp_path / "set"]:
        recording, frames, counts = replay(path)
        assert_video(frames, stack)
        np.testing.assert_allclose([frame.info.time_s for frame in frames], 0.05 * np.arange(6))
        assert {frame.info.focus_um for frame in frames} == {3.0}
        assert (recording.info.pixel_size_um, counts["lost_in_recording"]) == (0.5, 0)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_missing_file_of_an_ome_set_is_a_loss_and_named(tmp_path, gone):
    stack = images(6)
    files = write_ome_set(tmp_path / "set", stack)
    files[gone].unlink()
    left = [t for t in range(6) if t // 2 != gone]
    recording, frames, counts = replay(files[gone - 1])
    assert_video(frames, stack[left], numbers=left)
    assert counts["lost_in_recording"] == 2
    assert any(f"{files[gone].name} is missing: 2 of 6 images are lost" in text for text in recording.remarks)


def test_a_set_without_its_companion_is_refused(tmp_path):
    files = write_ome_set(tmp_path / "set", images(6), companion=True)
    (tmp_path / "set" / "set.companion.ome").unlink()
    assert "set.companion.ome, which is missing" in refused(files[1])


def test_a_companion_without_its_files_is_refused(tmp_path):
    files = write_ome_set(tmp_path / "set", images(4), companion=True)
    for path in files:
        path.unlink()
    assert "missing" in refused(tmp_path / "set" / "set.companion.ome")


def test_a_file_of_one_image_of_a_set_means_it_and_the_folder_asks_which(tmp_path):
    stack = images(8)
    files = write_ome_set(tmp_path / "set", stack, images=2)
    assert_video(replay(files[-1])[1], stack[4:])
    assert "place 0, place 1" in refused(tmp_path / "set")
    assert_video(replay(f"{tmp_path / 'set'}::position=1")[1], stack[4:])


def test_an_aborted_series_of_two_positions_asks_and_tells_how_many_images_each_has(tmp_path):
    path = tmp_path / "two.ome.tif"
    stack = images(9)
    with tifffile.TiffWriter(path, ome=True) as writer:
        for part in (stack[:5], stack[5:]):
            writer.write(part, photometric="minisblack", metadata={"axes": "TYX"})
    assert "with 5, 4 images" in refused(path)
    assert_video(replay(f"{path}::position=1")[1], stack[5:])


def test_a_label_beside_the_video_is_left_out_and_said(tmp_path):
    path = tmp_path / "labelled.ome.tif"
    stack = images(5)
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(np.zeros((64, 64), np.uint16), photometric="minisblack")
        writer.write(stack, photometric="minisblack", metadata={"axes": "TYX"})
    recording, frames, _ = replay(path)
    assert_video(frames, stack)
    assert any("left out" in text for text in recording.remarks)


def test_a_set_that_was_renamed_as_a_single_file_is_read(tmp_path):
    stack = images(4)
    [path] = write_ome_set(tmp_path / "set", stack, per_file=4)
    renamed = path.rename(path.with_name("best of may.ome.tif"))
    assert_video(replay(renamed)[1], stack)
