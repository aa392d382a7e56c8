import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from page_runs import info_of

from liveptv.monitor.depth_cover import BINS, DepthCover
from liveptv.monitor.detection_quality import DetectionQuality
from liveptv.monitor.run_view import RunView
from stream.messages import Detections, StageState, Status

GAUGES = {
    "depth_min_um": -60.0,
    "depth_max_um": 60.0,
    "sigma_x_um": 0.05,
    "sigma_y_um": 0.06,
    "sigma_z_um": 0.9,
}


def status(refined, not_refined, **counts):
    return Status("r", "detect", StageState.RUNNING,
                  {"refined": refined, "not_refined": not_refined, **counts}, GAUGES)  # fmt: skip


def test_particles_all_over_the_range_cover_it_and_a_thin_layer_does_not():
    whole, layer = DepthCover(-60, 60), DepthCover(-60, 60)
    rng = np.random.default_rng(0)
    for frame in range(50):
        whole.add(rng.uniform(-60, 60, 200), frame / 24)
        layer.add(rng.uniform(0, 10, 200), frame / 24)
    assert whole.facts()["covered"] == 1.0
    assert layer.facts()["covered"] == pytest.approx(2 / BINS, abs=1.1 / BINS)


def test_depths_of_half_a_minute_ago_no_longer_count():
    cover = DepthCover(0, 24)
    for frame in range(240):
        cover.add(np.array([3.5, 3.5]), frame / 24)
    for frame in range(240, 1440):
        cover.add(np.array([20.5]), frame / 24)
    particles = cover.facts()["particles"]
    assert particles[20] == pytest.approx(1.0, rel=0.05)
    assert particles[3] < 0.02


@given(arrays(np.float64, st.integers(0, 30), elements=st.floats(-100, 100) | st.just(np.nan)))
def test_every_known_depth_is_within_the_range_or_outside_of_it(z_um):
    cover = DepthCover(-50, 50)
    cover.add(z_um, 0.0)
    facts = cover.facts()
    known = int(np.isfinite(z_um).sum())
    inside = sum(facts["particles"])
    assert inside + facts["outside"] * known == pytest.approx(known, abs=0.02)


def test_a_range_without_extent_is_refused():
    with pytest.raises(ValueError, match="depth range must be increasing, not 5 to 5"):
        DepthCover(5, 5)


def test_the_part_of_accepted_fits_is_that_of_the_last_ten_seconds():
    quality = DetectionQuality()
    for second in range(20):
        quality.heard(status(100 * second, 0), float(second))
    for second in range(20, 40):
        quality.heard(status(1900 + 50 * (second - 19), 50 * (second - 19)), float(second))
    assert quality.facts()["accepted"] == 0.5


def test_a_detector_that_was_started_again_counts_from_there():
    quality = DetectionQuality()
    quality.heard(status(1000, 0), 0.0)
    quality.heard(status(10, 10), 1.0)
    assert quality.facts()["accepted"] is None
    quality.heard(status(20, 10), 2.0)
    assert quality.facts()["accepted"] == 1.0


def test_the_page_is_told_errors_depths_and_what_was_left_out():
    view = RunView()
    view.take(status(9, 1, left_out_no_fit=3, left_out_too_many=0))
    z_um = np.linspace(-20, 20, 40)
    view.take(Detections.from_columns(info_of(0), x_um=z_um, y_um=z_um, z_um=z_um))
    facts = view.summary()["detection"]
    assert facts["errors_um"] == {"x": 0.05, "y": 0.06, "z": 0.9}
    assert facts["left_out"] == {"no fit": 3}
    assert sum(facts["depth"]["particles"]) == pytest.approx(40)
    assert facts["depth"]["covered"] == pytest.approx(8 / BINS, abs=1.1 / BINS)


def test_without_a_model_nothing_is_said_of_depth_or_fit():
    view = RunView()
    view.take(Status("r", "detect", StageState.RUNNING, {"particles": 5}, {"particles": 5.0}))
    facts = view.summary()["detection"]
    assert (facts["depth"], facts["accepted"], facts["errors_um"]) == (None, None, {})


def test_the_part_of_the_particles_that_there_was_time_to_fit_is_known():
    quality = DetectionQuality()
    quality.heard(status(100, 10), 0.0)
    assert quality.facts()["fitted"] is None
    quality.heard(status(160, 10, reduced=40), 5.0)
    assert quality.facts()["fitted"] == pytest.approx(0.6)
    assert quality.facts()["accepted"] == pytest.approx(1.0)
    assert not quality.facts()["compiling"]
    quality.heard(status(160, 10, reduced=10), 6.0)
    assert quality.facts()["fitted"] is None


def test_it_is_known_that_particles_are_not_fitted_while_the_fit_is_being_compiled_and_until_ten_seconds_later():
    quality = DetectionQuality()
    quality.heard(status(0, 0, reduced=0, not_compiled=0), 0.0)
    quality.heard(status(0, 0, reduced=40, not_compiled=40), 1.0)
    quality.heard(status(0, 0, reduced=40, not_compiled=40), 1.2)
    assert quality.facts()["compiling"]
    for second in range(2, 14):
        quality.heard(status(50 * second, 0, reduced=40, not_compiled=40), float(second))
    assert not quality.facts()["compiling"]
