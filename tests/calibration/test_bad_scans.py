"""Scans that went wrong: the plane is named, and the rest is calibrated where that is honest."""

import numpy as np
import pytest
import tifffile
from small_scan import SmallScan

from calibration.errors import CalibrationError
from calibration.pipeline import calibrate
from calibration.preparation import Options
from calibration.scan.planes import FocusScan
from stream.errors import SourceError

GOOD_UM = 0.35


def run(path, **given):
    with FocusScan(path, **given) as scan:
        return calibrate(scan, Options()).calibration


def small(**settings):
    return SmallScan(**{"shape": (200, 280), "particles": 12, "planes": 60, **settings})


def rms(scan, calibration):
    z, _, _ = scan.errors(calibration)
    return float(np.sqrt(np.mean(z**2)))


def faults(calibration, kind):
    return [fault for fault in calibration.faults if fault.kind == kind]


def test_planes_that_the_file_says_are_missing_are_named_and_do_no_harm(tmp_path):
    scan = small()
    kept = np.r_[0:25, 28:60]
    path = scan.write(tmp_path / "scan.ome.tif", scan.images()[kept], scan.focus_um[kept])
    calibration = run(path)
    (fault,) = faults(calibration, "missing plane")
    assert fault.plane == 25
    assert "3 planes are missing" in fault.text
    assert rms(scan, calibration) < GOOD_UM


def test_a_missing_plane_that_nobody_wrote_down_shows_in_the_images(tmp_path):
    scan = small()
    kept = np.r_[0:28, 30:60]
    path = scan.write(tmp_path / "scan.ome.tif", scan.images()[kept], positions=False)
    calibration = run(path, z_step_um=3.0, repeats=3)
    (fault,) = faults(calibration, "focus wrong")
    assert abs(fault.plane - 28) <= 1
    assert "a missing plane" in fault.text
    assert rms(scan, calibration) < GOOD_UM


def test_a_plane_taken_at_the_wrong_focus_is_left_out(tmp_path):
    scan = small()
    true_um = scan.focus_um.copy()
    true_um[27] = true_um[17]
    path = scan.write(tmp_path / "scan.ome.tif", scan.images(true_um))
    calibration = run(path)
    (fault,) = faults(calibration, "focus wrong")
    assert fault.plane == 27
    assert "left out" in fault.text
    assert not calibration.plane_used[27]
    assert calibration.plane_used.sum() == 59
    assert rms(scan, calibration) < GOOD_UM


def test_a_stage_that_moved_backwards_and_said_so_is_sorted_out(tmp_path):
    scan = small()
    order = np.r_[0:30, 20:60]
    true_um = scan.focus_um[order]
    path = scan.write(tmp_path / "scan.ome.tif", scan.images(true_um), true_um)
    calibration = run(path)
    (fault,) = faults(calibration, "moved back")
    assert fault.plane == 30
    assert "moved back by 27.00 um" in fault.text
    assert rms(scan, calibration) < GOOD_UM


def test_a_stage_that_slipped_and_did_not_say_so_is_corrected(tmp_path):
    scan = small()
    true_um = scan.focus_um.copy()
    true_um[36:] -= 9.0
    path = scan.write(tmp_path / "scan.ome.tif", scan.images(true_um))
    calibration = run(path)
    (fault,) = faults(calibration, "focus wrong")
    assert abs(fault.plane - 36) <= 1
    assert "corrected" in fault.text
    assert calibration.plane_used.all()
    assert rms(scan, calibration) < GOOD_UM


def test_a_flash_is_named_and_left_out(tmp_path):
    scan = small()
    images = scan.images()
    images[22, 1] = np.clip(images[22, 1].astype(int) + 25, 0, 255)
    calibration = run(scan.write(tmp_path / "scan.ome.tif", images))
    (fault,) = faults(calibration, "flash")
    assert fault.plane == 22
    assert "image 67" in fault.text
    assert rms(scan, calibration) < GOOD_UM


def test_a_plane_that_was_saved_twice_is_named_and_used_once(tmp_path):
    scan = small()
    images = scan.images()
    images[31] = images[30]
    calibration = run(scan.write(tmp_path / "scan.ome.tif", images))
    assert {fault.plane for fault in faults(calibration, "same image twice")} == {31}
    assert rms(scan, calibration) < GOOD_UM


def test_saturated_images_are_said_to_be_saturated(tmp_path):
    scan = small(polarity="bright", contrast=14.0)
    calibration = run(scan.write(tmp_path / "scan.ome.tif"))
    (fault,) = faults(calibration, "saturated")
    assert "less light" in fault.text


def test_a_file_that_is_cut_short_gives_a_calibration_from_what_is_there(tmp_path):
    scan = small()
    path = scan.write(tmp_path / "scan.ome.tif")
    images = scan.images()
    one = tmp_path / "pages.tif"
    with tifffile.TiffWriter(one) as writer:
        for image in images.reshape(-1, *scan.shape):
            writer.write(image, contiguous=False, metadata=None)
    data = one.read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(data[: int(0.85 * len(data))])
    calibration = run(path, z_step_um=3.0, repeats=3, pixel_size_um=0.8)
    (fault,) = faults(calibration, "cut short")
    assert "plane 5" in fault.text
    assert rms(scan, calibration) < 2 * GOOD_UM


def test_a_plane_with_fewer_images_than_the_others_is_named(tmp_path):
    scan = small()
    flat = scan.images().reshape(-1, *scan.shape)
    kept = np.delete(np.arange(len(flat)), [40])
    focus = np.repeat(scan.focus_um, 3)[kept]
    path = tmp_path / "scan.ome.tif"
    plane = {"PositionZ": [float(z) for z in focus], "PositionZUnit": ["um"] * len(focus)}
    size = {"PhysicalSizeX": 0.8, "PhysicalSizeY": 0.8, "PhysicalSizeXUnit": "um", "PhysicalSizeYUnit": "um"}
    tifffile.imwrite(path, flat[kept], metadata={"axes": "TYX", **size, "Plane": plane})
    calibration = run(path)
    (fault,) = faults(calibration, "few images")
    assert fault.plane == 13
    assert "2 of 3" in fault.text
    assert rms(scan, calibration) < GOOD_UM


def test_a_scan_in_which_the_focus_never_moved_gives_no_depth(tmp_path):
    scan = small(planes=40)
    path = scan.write(tmp_path / "scan.ome.tif", scan.images(np.zeros(40)))
    with pytest.raises((CalibrationError, SourceError)):
        run(path)


def test_an_empty_field_is_said_to_be_empty(tmp_path):
    scan = small(contrast=0.0, planes=30)
    with pytest.raises(CalibrationError, match="stand out from the noise"):
        run(scan.write(tmp_path / "scan.ome.tif"))


def test_a_scan_without_positions_asks_for_them(tmp_path):
    scan = small(planes=12)
    path = scan.write(tmp_path / "scan.ome.tif", positions=False)
    with pytest.raises(CalibrationError, match="--z-step"):
        run(path)


def test_too_coarse_a_step_is_said_to_be_too_coarse(tmp_path):
    scan = small(step_um=20.0, planes=14, spread_um=20.0)
    calibration = run(scan.write(tmp_path / "scan.ome.tif"))
    assert any("too coarse" in text for text in calibration.warnings)
