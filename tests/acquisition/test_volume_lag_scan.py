"""The lag is measured with the microscope itself, and takes the zigzag out of upward and downward volumes."""

import numpy as np
import pytest
from small_volumes import LIMITS, small_settings, small_volume, take

from acquisition.microscope.microscope import Microscope
from acquisition.volumes.lag import estimate_lag
from acquisition.volumes.lag_scan import measure_lag
from acquisition.volumes.stream import VolumeStream
from stream.errors import ConfigurationError

BEADS = (
    "Camera,Peak,400",
    "Camera,ParticlesPerVolume,40",
    "Focus,Lag_s,0.003",
    "Camera,BrightnessSpread,0.1",
)
SCAN = {"slices": 24, "start_um": 3.0, "z_step_um": 0.5}


def test_the_lag_of_the_drive_is_found_and_taken_off(tmp_path):
    settings = small_settings(tmp_path, *BEADS)
    microscope = Microscope(settings)
    try:
        before_um = microscope.read_focus()
        found = measure_lag(microscope, settings, small_volume(**SCAN), LIMITS, pairs=2)
        microscope.wait_for_focus(5)
        assert microscope.read_focus() == pytest.approx(before_um)
        # triggers come 5 ms apart, the exposure 4.45 ms after its trigger: what is left of a step of the drive
        decay = np.exp(-np.array([0.00445, 0.005]) / 0.003)
        expected_um = 0.5 * decay[0] / (1 - decay[1])
        assert found.separate
        assert found.lag_up_um == pytest.approx(expected_um, abs=max(0.02, 5 * found.error_um))
        assert found.lag_down_um == pytest.approx(expected_um, abs=max(0.02, 5 * found.error_um))
        lags = {"lag_up_um": found.lag_up_um, "lag_down_um": found.lag_down_um}
        stream = VolumeStream(microscope, settings, small_volume(**SCAN, **lags), LIMITS, run_id="x")
        stream.start()
        up, down = take(stream, 2)
        stream.close()
    finally:
        microscope.close()
    heights = [f.info.focus_um + np.array(f.info.volume.z_um) for f in (up, down)]
    apart = estimate_lag(up.image, down.image, up.info.volume.z_um).shift_um
    assert apart > 0.1
    assert apart + (heights[0] - heights[1]).mean() == pytest.approx(0, abs=0.03)


def test_a_drive_that_cannot_be_sequenced_has_no_lag_to_measure(tmp_path):
    settings = small_settings(tmp_path, "Focus,SequenceMaxLength,0")
    microscope = Microscope(settings)
    try:
        with pytest.raises(ConfigurationError, match="cannot be sequenced"):
            measure_lag(microscope, settings, small_volume(), LIMITS)
    finally:
        microscope.close()


def test_a_stop_ends_the_scan_for_the_lag(tmp_path):
    settings = small_settings(tmp_path)
    microscope = Microscope(settings)
    try:
        with pytest.raises(ConfigurationError, match="stopped"):
            measure_lag(microscope, settings, small_volume(), LIMITS, stopping=lambda: True)
        assert not microscope.focus_sequence_runs
    finally:
        microscope.close()
