"""Frames that are missing in a recording: in the account of a run, and in the numbers of a detection table."""

import numpy as np
import tifffile

from engines.settings import DetectorSettings
from liveptv.session.run_status import lost_frames
from liveptv.workflows.inspect import describe_file
from liveptv.workflows.offline import detect_images

NUMBERS = (10, 11, 14, 15)


def write_folder(folder):
    y, x = np.mgrid[:64, :64]
    spots = sum(np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 8) for cy, cx in ((16, 20), (44, 30), (30, 50)))
    noise = np.random.default_rng(1).normal(0, 3, (len(NUMBERS), 64, 64))
    for number, extra in zip(NUMBERS, noise, strict=True):
        tifffile.imwrite(folder / f"img_{number}.tif", (200 + 150 * spots + extra).astype(np.uint16))


def test_frames_missing_in_a_recording_are_in_the_account_of_a_run():
    lost = lost_frames({"acquire": {"lost_in_recording": 6, "lost_in_camera": 0}})
    assert {where: count for where, count in lost.items() if count} == {"in the recording": 6}


def test_detections_have_the_numbers_of_the_recording_so_that_its_gaps_stay(tmp_path):
    write_folder(tmp_path)
    told = []
    found = [d for d, _ in detect_images(tmp_path, DetectorSettings(), pixel_size_um=0.5, say=told.append)]
    assert [detections.info.frame for detections in found] == [0, 1, 4, 5]
    assert all(len(detections) == 3 for detections in found)
    assert sum("2 images are missing by their numbers" in text for text in told) == 1


def test_what_is_missing_and_what_was_chosen_is_said_of_a_recording(tmp_path):
    write_folder(tmp_path)
    found = describe_file(tmp_path / ".." / f"{tmp_path.name}::files=img_*.tif")
    assert found["frames"] == len(NUMBERS)
    assert any("2 images are missing" in text for text in found["remarks"])
