import numpy as np
import pytest
from channel_slices import detect_slice, track_slices

from acquisition.physics.optics import OpticsModel
from calibration.width_curve import width_curve_from_optics
from liveptv.config import ChannelSettings
from liveptv.files import FIGURES, RunFiles
from liveptv.reports.flow_figures import errors_figure, field_figure, neighbours_figure
from liveptv.reports.flow_results import location_errors, section_field
from liveptv.reports.page import write_report
from liveptv.reports.profile import flow_profile, laminar_flow
from stream.messages import Detections, FrameInfo
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker
from tracking.trajectories.file import TrajectoryWriter, read_trajectories

SHAPE = (256, 512)
DEPTHS_UM = (300.0, 900.0, 1500.0, 2400.0)
FRAMES = 45


def test_the_papers_protocol_in_short_shows_the_flow_of_the_rectangular_channel(tmp_path):
    curve = width_curve_from_optics(OpticsModel())
    slices = [
        detect_slice(curve, depth, FRAMES, SHAPE, particles=14, seed=k) for k, depth in enumerate(DEPTHS_UM)
    ]
    path = track_slices(tmp_path / "tracks.h5", slices, SHAPE, TrackerSettings())
    trajectories = read_trajectories(path)
    profile = flow_profile(trajectories)
    assert profile.tracks.track.size > 40
    assert profile.deviation_rms < 0.02
    section = section_field(trajectories, profile)
    assert section.field.tracks.sum() > 40
    assert section.deviation_rms < 0.03
    report = write_report(RunFiles.within(tmp_path))
    assert {figure.stem for figure in report.figures} == set(FIGURES) - {"frame"}
    page = report.page.read_text("utf-8")
    assert "differs from the laminar flow by" in page
    assert "Measured error over standard error: x " in page


def simulated_file(path, *, planar: bool = False, sigma: float = 0.2, frames: int = 60, tracks: int = 40):
    """Steady particles with known errors, far from one another."""
    rng = np.random.default_rng(0)
    x, y = (a.ravel()[:tracks] for a in np.meshgrid(np.arange(8) * 40.0, np.arange(8) * 40.0))
    z, speed = rng.uniform(-50, 50, tracks), rng.uniform(5, 20, tracks)
    tracker = OnlineTracker(TrackerSettings(diffusion_um2_s=0.0))
    with TrajectoryWriter(path, run_id="run", attributes={"image_shape": [400, 400]}) as writer:
        for frame in range(frames):
            info = FrameInfo("run", frame, frame, frame / 10, 0, 0.0, focus_um=100.0)
            noise = rng.normal(0, sigma, (3, tracks))
            found = Detections.from_columns(
                info, x_um=x + speed * frame / 10 + noise[0], y_um=y + noise[1],
                z_um=np.nan if planar else z + 5 * noise[2], sigma_x_um=sigma, sigma_y_um=sigma,
                sigma_z_um=np.nan if planar else 5 * sigma, brightness=1.0, confidence=1.0,
            )  # fmt: skip
            writer.append(tracker.step(found))
        writer.finalize({}, "done")
    return path


def test_errors_of_steady_particles_are_those_their_detections_state(tmp_path):
    errors = location_errors(read_trajectories(simulated_file(tmp_path / "tracks.h5")))
    assert errors.shortest == 30
    assert errors.residuals.ratio == pytest.approx(1.0, abs=0.06)
    assert np.median(errors.residuals.error_um, axis=1) == pytest.approx([0.2, 0.2, 1.0], rel=0.1)


def test_without_depth_there_is_no_section_but_there_are_errors_in_the_plane(tmp_path):
    trajectories = read_trajectories(simulated_file(tmp_path / "tracks.h5", planar=True))
    assert section_field(trajectories, flow_profile(trajectories)) is None
    errors = location_errors(trajectories)
    assert errors.residuals.ratio[:2] == pytest.approx(1.0, abs=0.06)
    assert len(errors_figure(errors).axes) == 2
    neighbours_figure(errors)


def test_a_few_short_trajectories_say_nothing_of_the_errors(tmp_path):
    trajectories = read_trajectories(simulated_file(tmp_path / "tracks.h5", frames=20, tracks=5))
    assert location_errors(trajectories) is None
    assert section_field(trajectories, flow_profile(trajectories)) is None


def test_without_a_channel_the_field_stands_alone(tmp_path):
    trajectories = read_trajectories(simulated_file(tmp_path / "tracks.h5"))
    section = section_field(trajectories, flow_profile(trajectories))
    assert section.theory_um_s is None
    assert np.isnan(section.deviation_rms)
    assert len([axes for axes in field_figure(section).axes if axes.get_title()]) == 2


@pytest.mark.parametrize("factor", [1.0, 1.34])
def test_the_theory_stands_on_the_floor_as_it_is_measured_through_the_mismatched_index(factor):
    channel = ChannelSettings(width_um=1000, depth_um=300, floor_um=50)
    attributes = {"refraction_factor": factor, "image_shape": [256, 512], "pixel_size_um": 1.0}
    theory = laminar_flow(channel, 0.05, attributes)
    floor_seen_um = factor * (50 + 0)  # absolute height of a particle on the floor in focus
    assert theory.height_um[0] == pytest.approx(floor_seen_um)
    assert theory.velocity_um_s[0] == pytest.approx(0, abs=1e-6)
    assert np.ptp(theory.height_um) == pytest.approx(300)
