"""Volumes as arrays: their particles as a table, and what may be images or volumes is asked about."""

import numpy as np
import pandas as pd
import pytest
import tifffile
from made_volumes import PIXEL_UM, SHAPE, SIGMA_PX, SIGMA_Z, Z_STEP_UM, drawn, truth_um
from scipy.spatial import cKDTree

import liveptv

SPOT_UM = [SIGMA_PX * PIXEL_UM, SIGMA_PX * PIXEL_UM, SIGMA_Z * Z_STEP_UM]
VOXEL_UM = (Z_STEP_UM, PIXEL_UM, PIXEL_UM)
RATE_HZ = 20.0


@pytest.fixture(scope="module")
def volumes():
    return np.stack([drawn(truth_um(number / RATE_HZ), number) for number in range(6)])


@pytest.fixture(scope="module")
def found(volumes):
    return liveptv.detect(volumes, voxel_um=VOXEL_UM, spot_um=SPOT_UM)


def test_particles_of_each_volume_are_found_in_3d(found):
    assert sorted(set(found.frame)) == list(range(6))
    for number, rows in found.groupby("frame"):
        true = truth_um(number / RATE_HZ)
        off_um = cKDTree(true).query(rows[["x_um", "y_um", "z_um"]])[0]
        assert len(rows) == pytest.approx(len(true), abs=2)
        assert np.median(off_um) < 0.25 * PIXEL_UM


def test_one_volume_is_the_first_of_a_series(volumes, found):
    one = liveptv.detect(volumes[0], voxel_um=VOXEL_UM, spot_um=SPOT_UM)
    pd.testing.assert_frame_equal(one, found[found.frame == 0])


def test_a_file_and_a_recording_give_the_same(volumes, found, tmp_path):
    path = tmp_path / "run.tif"
    about = {"axes": "TZYX", "spacing": Z_STEP_UM, "unit": "um", "finterval": 1 / RATE_HZ}
    tifffile.imwrite(path, volumes, imagej=True, resolution=(1 / PIXEL_UM,) * 2, metadata=about)
    pd.testing.assert_frame_equal(liveptv.detect(path, spot_um=SPOT_UM, voxel_um=VOXEL_UM), found)
    with liveptv.read_recording(path, volumes=True) as recording:
        same = liveptv.detect(recording, spot_um=SPOT_UM)
        pd.testing.assert_frame_equal(same, found, rtol=1e-6)
        with pytest.raises(liveptv.LivePTVError, match="read_recording"):
            liveptv.detect(recording, voxel_um=VOXEL_UM)


def test_they_are_linked_to_trajectories(found):
    tracks = liveptv.track(found, RATE_HZ, motion="switching")
    lengths = tracks.groupby("track").size()
    assert (lengths == 6).sum() >= 0.9 * len(truth_um(0.0))
    assert tracks.z_um.notna().all()


@pytest.mark.parametrize(
    ("shape", "options", "reason"),
    [
        ((2, *SHAPE), {}, r"if these are volumes, give voxel_um=\(z, y, x\)"),
        (SHAPE, {"spot_um": SPOT_UM}, "may be images; give voxel_um"),
        (SHAPE[1:], {"voxel_um": VOXEL_UM}, r"must be \(Z, H, W\) or \(T, Z, H, W\)"),
        ((1, 2, *SHAPE), {"voxel_um": VOXEL_UM}, r"must be \(Z, H, W\)"),
        ((1, *SHAPE[1:]), {"voxel_um": VOXEL_UM}, "2 to 1000 slices, not 1"),
        (SHAPE, {"voxel_um": 0.3}, r"is \(z, y, x\) in um"),
        (SHAPE, {"voxel_um": (0.3, 0.1)}, r"is \(z, y, x\) in um"),
        (SHAPE, {"voxel_um": (0.3, 0.1, 0.2)}, "must be square"),
        (SHAPE, {"voxel_um": (0.0, 0.1, 0.1)}, "above 0"),
        (SHAPE, {"voxel_um": (float("nan"), 0.1, 0.1)}, "above 0"),
        (SHAPE, {"voxel_um": (0.3, 0.1, 0.1), "pixel_size_um": 0.2}, "give one"),
    ],
)
def test_what_may_be_one_or_the_other_is_asked_about_in_a_line(shape, options, reason):
    with pytest.raises(liveptv.LivePTVError, match=reason) as caught:
        liveptv.detect(np.zeros(shape, np.uint16), **options)
    assert "\n" not in str(caught.value)
