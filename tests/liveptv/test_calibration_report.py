import re

import h5py
import numpy as np
import pytest
from calibration_files import Z_UM, particle_table, small_calibration, write_small
from figure_contents import drawn, panels  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from calibration.cutout_images import read_cutouts
from calibration.particles.labels import HIDDEN, NEAR
from calibration.scan.faults import Fault
from calibration.surface import fit_surface
from liveptv.cli import run_command_line
from liveptv.reports.calibration_curves import scaled_to_average
from liveptv.reports.calibration_facts import problems, signal_to_noise
from liveptv.reports.calibration_labels import surface_height
from liveptv.reports.particle_images import read_raw_images, round_depths

PICTURES = ("images", "curves", "labels", "places", "ambiguity")


def report(path, capsys):
    """The text of the page that the command makes, without its pictures."""
    assert run_command_line(["report", str(path)]) == 0
    printed = capsys.readouterr().out.split()
    page = path.with_name(f"{path.stem}.report.html")
    pictures = [path.with_name(f"{path.stem}.{name}.png") for name in PICTURES]
    assert printed == [str(file) for file in (page, *pictures)]
    assert all(np.ptp(imread(picture)) > 0.5 for picture in pictures)
    text = page.read_text("utf-8")
    assert text.count("data:image/png;base64,") == 2 * len(PICTURES)  # light and dark
    return re.sub(r"base64,[^\"]*", "", text)


def test_the_page_of_a_calibration_is_whole_and_names_what_it_shows(tmp_path, capsys):
    table = particle_table([NEAR, NEAR, HIDDEN])
    found = small_calibration(table, warnings=["the step is too coarse"])
    text = report(write_small(tmp_path / "beads.h5", found), capsys)
    for wanted in (
        "15 of 18",
        "-56 to +56 µm",
        "+30.0, -30.0 µm",
        "0.01, 0.02, 0.1 µm",
        "0.5 % of the background",
    ):
        assert f"<b>{wanted}</b>" in text
    assert '<p class="trouble">the step is too coarse</p>' in text
    assert re.search(rf">2</td><td>{NEAR}</td>.*>1</td><td>{HIDDEN}</td>", text, re.DOTALL)
    assert "None were found." in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_the_pictures_of_a_calibration_show_its_particles_planes_and_depths(tmp_path, capsys, drawn):  # noqa: F811
    found = small_calibration(particle_table([NEAR, NEAR, HIDDEN]))
    report(write_small(tmp_path / "beads.h5", found), capsys)
    images, curves, labels, places, ambiguity = map(panels, drawn)
    shown = [panel.images[0] for panel in images if panel.images]
    assert len(shown) > 10
    assert all(image.shape == shown[0].shape and np.ptp(image) > 0 for image in shown)
    planes = 51
    for panel in curves:
        assert panel.x_label == "depth z (µm)"
        assert panel.y_label
        line = max(panel.lines, key=len)
        assert len(set(np.sign(np.diff(line[:, 0])))) == 1  # from one end to the other
        assert np.ptp(line[:, 0]) > 100
        assert np.ptp(line[:, 1]) > 0
    assert [len(panel.lines[0]) for panel in curves[:2]] == [planes] * 2
    assert [len(line) for line in labels[0].lines] == [15, 3]  # particles used, and those left out
    assert [len(panel.lines[0]) for panel in labels if len(panel.lines) and len(panel.lines[0]) > 15] == [
        planes
    ]
    assert [len(panel.points[0]) for panel in places[:2]] == [15, 15]
    assert all("(µm)" in panel.x_label + panel.y_label for panel in places)
    assert all(np.ptp(panel.lines[-1][:, 0]) > 100 for panel in ambiguity)


def test_a_calibration_is_known_by_its_content_and_its_report_is_not_replaced_unasked(tmp_path, capsys):
    path = write_small(tmp_path / "tracks.hdf5", small_calibration())
    page = tmp_path / "tracks.report.html"
    page.write_text("mine")
    assert run_command_line(["report", str(path)]) == 1
    assert "exists; pass --overwrite" in " ".join(capsys.readouterr().err.split())
    assert page.read_text() == "mine"
    assert run_command_line(["report", str(path), "--overwrite"]) == 0
    assert "particles used of those found" in page.read_text("utf-8")


def test_faults_of_the_scan_stand_in_front_the_first_ones_at_least(tmp_path, capsys):
    faults = [Fault("flash", plane, f"plane {plane} flashed") for plane in range(12)]
    used = np.ones(51, bool)
    used[5:8] = False
    text = report(write_small(tmp_path / "c.h5", small_calibration(faults=faults, plane_used=used)), capsys)
    assert '<p class="trouble">plane 7 flashed</p>' in text
    assert '<p class="trouble">plane 8 flashed</p>' not in text
    assert '<p class="trouble">4 more faults of the scan are listed below</p>' in text
    assert "<td>plane 11 flashed</td>" in text
    assert "Of 51 planes 3 were left out" in text


def test_bright_particles_without_a_cylindrical_lens_on_a_tilted_plane_are_reported(tmp_path, capsys):
    table = particle_table(height_um=lambda x, y: 10 + 0.01 * x - 0.02 * y)
    found = small_calibration(table, astigmatic=False, polarity="bright")
    text = report(write_small(tmp_path / "c.h5", found), capsys)
    assert "<b>none</b><span>astigmatism</span>" in text
    assert "rises by +1.6 µm over the width of the image and by -1.9 µm over its height" in text
    assert "No particle was left out." in text


def test_a_calibration_without_a_whole_particle_has_a_report_without_camera_images(tmp_path, capsys):
    path = write_small(tmp_path / "c.h5", small_calibration())
    with h5py.File(path, "a") as file:
        for name, values in file["traces"].items():
            empty, attributes = values[:0], dict(values.attrs)
            del file["traces"][name]
            file["traces"].create_dataset(name, data=empty).attrs.update(attributes)
    text = report(path, capsys)
    assert "the scan contains no complete particle" in text


def test_labels_that_scatter_by_more_than_their_standard_errors_are_a_problem():
    rng = np.random.default_rng(0)
    scattered = small_calibration(particle_table(height_um=lambda x, _: 0.01 * x + rng.normal(0, 1, x.size)))
    (line,) = problems(scattered, width_curve=True)
    assert "times their standard error of 0.1 µm" in line
    assert (
        problems(small_calibration(particle_table(height_um=lambda x, _: 0.01 * x)), width_curve=True) == []
    )


def test_an_astigmatic_calibration_without_a_curve_for_the_classical_detector_says_so():
    (line,) = problems(small_calibration(), width_curve=False)
    assert "the classical detector cannot measure depth" in line
    assert problems(small_calibration(astigmatic=False), width_curve=False) == []


@pytest.mark.parametrize("lost", ["traces/clean", "traces/contrast", "particles/x_um"])
def test_a_damaged_calibration_is_an_error_in_one_line(tmp_path, capsys, lost):
    path = write_small(tmp_path / "c.h5", small_calibration())
    with h5py.File(path, "a") as file:
        del file[lost]
    assert run_command_line(["report", str(path)]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["c.h5"]


def test_camera_images_are_those_of_the_depths_asked_for_and_of_one_particle(tmp_path):
    found = small_calibration()
    path = write_small(tmp_path / "c.h5", found)
    with h5py.File(path) as file:
        raw = read_raw_images(file["traces"], found, Z_UM[1:-1])
    cutouts = read_cutouts(path, only_clean=False)
    every = cutouts.contrast[:, 0] * cutouts.scale
    place = [int(np.argmin(np.abs(every - image).sum(axis=(1, 2)))) for image in raw]
    np.testing.assert_array_equal(cutouts.z_um[place], Z_UM[1:-1])
    assert np.bincount(cutouts.trace[place]).max() >= 0.8 * len(place)
    assert np.abs(raw - found.model.images(Z_UM[1:-1])).std() < 2 * found.noise.contrast_sd


def test_the_signal_to_noise_ratio_is_peak_contrast_over_the_noise_of_one_image():
    found = small_calibration()
    z_um = np.linspace(found.model.z_min_um, found.model.z_max_um, 101)
    peak = found.model.images(z_um)[:, 16, 16].mean()
    assert signal_to_noise(found) == pytest.approx(peak / found.noise.contrast_sd, rel=1e-6)


@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e3))
def test_depths_of_the_montage_are_round_even_within_the_range_and_few(low, span):
    depths = round_depths(low, low + span)
    assert 4 <= depths.size <= 11
    assert depths[0] >= low - 1e-9 * span
    assert depths[-1] <= low + span * (1 + 1e-9)
    step = np.diff(depths).mean()
    np.testing.assert_allclose(np.diff(depths), step, rtol=1e-6)
    np.testing.assert_allclose(depths / step, np.rint(depths / step), atol=1e-6)
    assert float(f"{step:.2g}") == pytest.approx(step, rel=1e-9)


@given(st.floats(0.05, 20), st.floats(-30, 30))
def test_a_trace_of_any_brightness_lies_on_the_average_however_little_of_it_is_seen(brightness, z_um):
    average = np.exp(-((Z_UM / 25) ** 2))
    depth = z_um - np.linspace(-30, 30, 41)
    trace = brightness * np.interp(depth, Z_UM, average)
    np.testing.assert_allclose(
        scaled_to_average(depth[None], trace[None], Z_UM, average)[0], trace / brightness
    )


@given(st.lists(st.floats(-1e-2, 1e-2), min_size=3, max_size=3), st.floats(-50, 50))
def test_the_surface_drawn_is_the_surface_fitted(tilts, height):
    table = particle_table()
    x, y = table.x_um, table.y_um
    z = height + tilts[0] * x + tilts[1] * y + tilts[2] * x * y / 100
    surface = fit_surface(x, y, z, (160, 96), depth_um=100)
    np.testing.assert_allclose(surface_height(surface, x, y, (160, 96)), z, atol=1e-6)
