"""The frames of a recorded run come with exactly what was known of them, and gaps stay gaps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.recorded_run.places import recorded_files
from acquisition.recorded_run.source import RecordedRun, in_order
from acquisition.recorder.frame_table import FrameRow, Lost, head_line, write
from stream.errors import SourceError
from stream.messages import Decisions, FitDecision, FrameInfo


def info(frame, **more):
    given = FrameInfo(
        "run",
        frame,
        1000 + 2 * frame,
        0.1 + frame / 3.0,
        5,
        1.7e9 + frame / 3.0,
        focus_um=math.pi * frame,
        pixel_size_um=0.8,
    )
    return replace(given, **more)


def recorded(folder, infos, lost=()):
    images = np.stack([np.full((12, 16), index, np.uint8) for index in range(len(infos))])
    tifffile.imwrite(
        folder / "tracks.frames.ome.tif", images, photometric="minisblack", metadata={"axes": "TYX"}
    )
    rows = [FrameRow(index, None, one) for index, one in enumerate(infos)]
    write(
        folder / "tracks.frames.jsonl", head_line("run", "tracks.h5", "tracks.frames.ome.tif"), [*rows, *lost]
    )
    files = recorded_files(folder / "tracks.frames.ome.tif")
    assert files is not None
    return files


def test_every_frame_is_as_it_was_recorded_but_for_the_run_and_this_computers_clock(tmp_path):
    infos = [info(n) for n in (0, 1, 2, 7, 8, 20)]
    source = RecordedRun(recorded(tmp_path, infos), run_id="again")
    frames = list(source.frames())
    assert [frame.image[0, 0] for frame in frames] == list(range(6))
    for before, frame in zip(infos, frames, strict=True):
        after = frame.info
        assert after.monotonic_ns > 5
        same = replace(
            before, run_id="again", monotonic_ns=after.monotonic_ns, camera_time_s=1.0, flow_ul_s=1.0
        )
        same = replace(same, focus_commanded_um=1.0, exposure_ms=1.0, detector_ms=1.0, age_ms=1.0)
        filled = replace(after, camera_time_s=1.0, flow_ul_s=1.0, focus_commanded_um=1.0, exposure_ms=1.0)
        assert replace(filled, detector_ms=1.0, age_ms=1.0) == same
    assert source.counts() == {"received": 6, "lost_in_camera": 0, "not_recorded": 15}
    assert source.info.frame_rate_hz == pytest.approx(6.0)
    source.close()


def test_with_decisions_only_the_frames_of_the_run_come_and_each_brings_its_own(tmp_path):
    made = {1: Decisions(fit=FitDecision.NO_TIME), 8: Decisions(predicted_from=1)}
    source = RecordedRun(recorded(tmp_path, [info(n) for n in range(10)]), run_id="again", decisions=made)
    frames = list(source.frames())
    assert {frame.info.frame: frame.info.decisions for frame in frames} == made
    assert source.counts() == {"received": 2, "lost_in_camera": 0, "not_in_the_run": 7}
    source.close()


def test_files_are_found_from_any_of_their_names_and_after_a_move(tmp_path):
    recorded(tmp_path, [info(0)])
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    for name in ("tracks.frames.ome.tif", "tracks.frames.jsonl"):
        found = recorded_files(moved / name)
        assert found is not None
        assert found.images == moved / "tracks.frames.ome.tif"
        assert found.trajectories == moved / "tracks.h5"


def test_other_files_are_no_recorded_run_and_missing_images_are_said(tmp_path):
    assert recorded_files(tmp_path / "video.tif") is None
    (tmp_path / "video.jsonl").write_text('{"something": "else"}\n')
    assert recorded_files(tmp_path / "video.tif") is None
    files = recorded(tmp_path, [info(0)])
    files.images.unlink()
    with pytest.raises(SourceError, match="which are not there"):
        recorded_files(files.table)


def test_images_that_a_damaged_table_does_not_name_are_said(tmp_path):
    files = recorded(tmp_path, [info(n) for n in range(6)])
    lines = files.table.read_text().splitlines(keepends=True)
    files.table.write_text("".join(lines[:4]))  # the head and three rows
    source = RecordedRun(files, run_id="again")
    assert "names 3 of the 6 images" in source.info.description
    source.close()


def test_images_of_an_earlier_run_in_another_format_are_not_replayed_with_the_table_of_this_one(tmp_path):
    recorded(tmp_path, [info(0)])
    (tmp_path / "tracks.frames.ome.zarr").mkdir()
    with pytest.raises(SourceError, match="which an earlier run has left"):
        recorded_files(tmp_path / "tracks.frames.ome.zarr")


def test_images_that_did_not_reach_the_disk_are_left_out_and_said(tmp_path):
    files = recorded(tmp_path, [info(n) for n in range(4)], [Lost(4, 9, "the disk is full")])
    tifffile.imwrite(
        files.images, np.zeros((2, 12, 16), np.uint8), photometric="minisblack", metadata={"axes": "TYX"}
    )
    source = RecordedRun(files, run_id="again")
    assert [frame.info.frame for frame in source.frames()] == [0, 1]
    assert source.counts()["not_recorded"] == 2
    assert any("last 2 images" in text for text in source.remarks)
    assert any("6 frames are declared lost" in text for text in source.remarks)
    source.close()


def test_another_frame_rate_and_pixel_size_replace_what_was_recorded(tmp_path):
    source = RecordedRun(
        recorded(tmp_path, [info(n) for n in range(3)]), run_id="again", rate_hz=50.0, pixel_size_um=0.4
    )
    assert [frame.info.time_s for frame in source.frames()] == [0.0, 0.04, 0.08]  # two camera frames apart
    assert source.info.pixel_size_um == 0.4
    source.close()


@given(st.lists(st.integers(0, 30), max_size=20))
@settings(max_examples=50)
def test_a_frame_that_was_stored_twice_comes_once_and_numbers_rise(numbers):
    rows = in_order([FrameRow(index, None, info(number)) for index, number in enumerate(numbers)])
    found = [row.info.frame for row in rows]
    assert found == sorted(set(found))
    assert not numbers or found[0] == numbers[0]
