import shutil

import h5py
import numpy as np
import pytest
from small_scan import PIXEL_UM, SmallScan

from calibration.calibration_file import describe_calibration, read_calibration, write_calibration
from calibration.cutout_images import image_background, image_noise, read_cutouts
from calibration.errors import CalibrationError
from calibration.pipeline import calibrate
from calibration.preparation import Options
from calibration.scan.planes import FocusScan
from calibration.synthesis.cut_and_paste import CutAndPaste
from stream.errors import SourceError


def run(path, options=None, **given):
    with FocusScan(path, **given) as scan:
        return calibrate(scan, options or Options())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A scan, its calibration and the file of it."""
    scan = SmallScan(pairs=2)
    folder = tmp_path_factory.mktemp("calibration")
    path = scan.write(folder / "scan.ome.tif")
    with FocusScan(path) as opened:
        calibrated = calibrate(opened, Options())
        write_calibration(folder / "calibration.h5", calibrated, opened, provenance={"scan": path.name})
    return scan, calibrated.calibration, folder / "calibration.h5"


def test_depths_and_centres_are_found_without_a_hand(made):
    scan, calibration, _ = made
    z, x, y = scan.errors(calibration)
    assert np.sqrt(np.mean(z**2)) < 0.2
    assert np.sqrt(np.mean(x**2)) < 0.05
    assert np.sqrt(np.mean(y**2)) < 0.05
    assert calibration.model.polarity == "dark"
    assert calibration.warnings == []
    assert calibration.faults == []


def test_the_focal_planes_lie_where_the_lines_are_sharp(made):
    scan, calibration, _ = made
    planes = calibration.focal_planes
    assert planes.astigmatic
    assert planes.xz_um - planes.yz_um == pytest.approx(scan.separation_um, abs=1.5)
    assert planes.middle_um == pytest.approx(0, abs=1e-9)
    true, _ = scan.match(calibration.particles)
    used = calibration.particles.used
    offset = np.median((calibration.particles.z_um - scan.z_um[true])[used])
    assert offset == pytest.approx(0, abs=1.0)  # z = 0 is midway between the true focal planes


def test_particles_that_stand_alone_are_used_and_no_others(made):
    scan, calibration, _ = made
    table = calibration.particles
    true, distance = scan.match(table)
    every = np.hypot(scan.x_px[:, None] - scan.x_px, scan.y_px[:, None] - scan.y_px)
    np.fill_diagonal(every, np.inf)
    alone = np.flatnonzero(every.min(axis=1) > 35)
    used = set(true[table.used])
    assert used <= set(alone)
    assert len(used) >= 0.8 * len(alone)
    assert distance[table.used].max() < 0.5
    assert sum(table.left_out().values()) == (~table.used).sum()


def test_the_model_looks_like_the_particles(made):
    scan, calibration, _ = made
    depth = np.linspace(-60, 60, 9)
    images = calibration.model.images(depth)
    half = calibration.model.half_px
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    for image, z in zip(images, depth, strict=True):
        sx, sy = scan.widths_px(z)
        true = scan.contrast * 4 / (sx * sy) * np.exp(-(x**2) / (2 * sx**2) - y**2 / (2 * sy**2))
        brightness = (image * true).sum() / (true**2).sum()
        assert brightness == pytest.approx(1, abs=0.15)
        assert np.abs(image - brightness * true).max() < 0.08 * true.max()


def test_noise_is_that_of_the_camera(made):
    scan, calibration, _ = made
    true = np.sqrt(scan.noise**2 + 1 / 12) / scan.background
    assert calibration.noise.contrast_sd == pytest.approx(true, rel=0.03)
    assert abs(calibration.noise.neighbour_correlation) < 0.02


def test_a_calibration_is_read_as_it_was_written(made):
    _, calibration, path = made
    again = read_calibration(path)
    assert np.array_equal(again.model.coefficients, calibration.model.coefficients)
    assert again.model.z_min_um == calibration.model.z_min_um
    assert again.focal_planes == calibration.focal_planes
    assert again.noise == calibration.noise
    assert again.surface == calibration.surface
    assert np.array_equal(again.particles.reason, calibration.particles.reason)
    assert np.array_equal(again.particles.z_um, calibration.particles.z_um, equal_nan=True)
    assert np.array_equal(again.curves.sigma_x_um, calibration.curves.sigma_x_um)
    assert again.faults == calibration.faults


def test_what_info_says_is_in_the_file(made):
    scan, calibration, path = made
    said = describe_calibration(path)
    assert said["particles_used"] == calibration.particles.used.sum()
    assert len(said["particles"]["z_um"]) == said["particles_used"]
    assert said["focal_plane_xz_um"] - said["focal_plane_yz_um"] == pytest.approx(scan.separation_um, abs=1.5)
    assert said["provenance"]["scan"] == "scan.ome.tif"


def test_the_particles_images_are_in_the_file_with_their_labels(made):
    scan, calibration, path = made
    cutouts = read_cutouts(path)
    assert cutouts.repeats == scan.repeats
    assert len(cutouts.z_um) > 200
    model = calibration.model.images(cutouts.z_um, cutouts.dx_px, cutouts.dy_px, half_px=cutouts.half_px)
    contrast = cutouts.contrast.mean(axis=1) * cutouts.scale
    left = contrast - cutouts.brightness[:, None, None] * model
    assert left.std() < 1.3 * calibration.noise.contrast_sd / np.sqrt(scan.repeats)


@pytest.mark.parametrize("what", ["traces", "traces/contrast", "traces/dx_px"])
def test_a_calibration_without_its_particles_images_is_named(made, tmp_path, what):
    path = tmp_path / "damaged.h5"
    shutil.copy(made[2], path)
    with h5py.File(path, "r+") as file:
        del file[what]
    with pytest.raises(
        CalibrationError, match=r"images of .*damaged\.h5 are damaged or missing.*calibrate again"
    ):
        read_cutouts(path)


def test_training_images_can_be_pasted_from_it(made):
    _, calibration, path = made
    source = CutAndPaste(read_cutouts(path), image_noise(calibration), image_background(calibration))
    scene = source.draw(np.random.default_rng(0), (96, 96), 4)
    assert scene.images.shape == (4, 96, 96)
    assert np.isfinite(scene.images).all()


@pytest.mark.parametrize(
    ("polarity", "dtype", "repeats"),
    [("bright", np.uint8, 3), ("bright", np.uint16, 10), ("dark", np.uint16, 4)],
)
def test_bright_and_dark_particles_in_8_and_16_bits(tmp_path, polarity, dtype, repeats):
    scan = SmallScan(
        polarity=polarity, dtype=dtype, repeats=repeats, shape=(200, 260), particles=9, planes=52
    )
    calibration = run(scan.write(tmp_path / "scan.ome.tif")).calibration
    assert calibration.model.polarity == polarity
    z, x, y = scan.errors(calibration)
    assert np.sqrt(np.mean(z**2)) < 0.3
    assert max(np.abs(x).max(), np.abs(y).max()) < 0.15


def test_a_lens_without_two_focal_lines_gives_labels_and_a_warning(tmp_path):
    scan = SmallScan(separation_um=0.0, planes=52, spread_um=15.0)
    calibration = run(scan.write(tmp_path / "scan.ome.tif")).calibration
    assert not calibration.focal_planes.astigmatic
    assert any("one image does not tell the depth" in text for text in calibration.warnings)
    z, _, _ = scan.errors(calibration)
    assert np.sqrt(np.mean(z**2)) < 0.5


def test_defocus_that_differs_on_both_sides_tells_the_depth_without_the_lens(tmp_path):
    scan = SmallScan(separation_um=0.0, planes=52, spread_um=15.0, asymmetry=1.0)
    calibration = run(scan.write(tmp_path / "scan.ome.tif")).calibration
    assert not any("does not tell the depth" in text for text in calibration.warnings)


def test_too_few_particles_are_said_to_be_too_few(tmp_path):
    scan = SmallScan(particles=3, planes=30)
    with pytest.raises(CalibrationError, match="are needed"):
        run(scan.write(tmp_path / "scan.ome.tif"))


def test_a_single_image_at_each_focus_does_not_tell_noise(tmp_path):
    scan = SmallScan(repeats=1, planes=20)
    with pytest.raises(CalibrationError, match="a single image"):
        run(scan.write(tmp_path / "scan.ome.tif"))


def test_a_scan_of_a_few_planes_is_refused(tmp_path):
    scan = SmallScan(planes=6)
    with pytest.raises(CalibrationError, match="6 good planes"):
        run(scan.write(tmp_path / "scan.ome.tif"))


def test_a_reference_of_another_size_is_refused(tmp_path):
    import tifffile

    scan = SmallScan(planes=20)
    path = scan.write(tmp_path / "scan.ome.tif")
    tifffile.imwrite(tmp_path / "bright.tif", np.full((2, 50, 60), 180, np.uint8))
    with pytest.raises(CalibrationError, match="bright reference"):
        run(path, Options(bright=tmp_path / "bright.tif"))


def test_flat_field_references_take_shading_out(tmp_path):
    import tifffile

    scan = SmallScan(planes=52, shape=(200, 260), particles=9)
    images = scan.images().astype(float)
    y, x = np.mgrid[0:1:200j, 0:1:260j]
    shading = 0.6 + 0.4 * np.exp(-((x - 0.4) ** 2 + (y - 0.5) ** 2) / 0.4)
    pattern = 1 + 0.02 * np.random.default_rng(1).standard_normal(scan.shape)
    offset = 12.0
    shaded = np.clip(np.rint(images * shading * pattern + offset), 0, 255).astype(np.uint8)
    path = scan.write(tmp_path / "scan.ome.tif", shaded)
    light = np.rint(scan.background * shading * pattern + offset).astype(np.uint8)
    tifffile.imwrite(tmp_path / "bright.tif", light)
    tifffile.imwrite(tmp_path / "dark.tif", np.full(scan.shape, int(offset), np.uint8))
    options = Options(bright=tmp_path / "bright.tif", dark=tmp_path / "dark.tif")
    calibration = run(path, options).calibration
    z, x, _ = scan.errors(calibration)
    assert np.sqrt(np.mean(z**2)) < 0.3
    assert np.abs(x).max() < 0.15


@pytest.mark.parametrize("damage", [b"", b"not a calibration at all"])
def test_what_is_no_calibration_is_refused(tmp_path, damage):
    path = tmp_path / "calibration.h5"
    path.write_bytes(damage)
    with pytest.raises(SourceError):
        read_calibration(path)


def test_pixel_sizes_and_steps_on_the_command_line_count_more_than_the_file(tmp_path):
    scan = SmallScan(planes=52, shape=(200, 260), particles=9)
    path = scan.write(tmp_path / "scan.ome.tif", positions=False)
    calibration = run(path, z_step_um=3.0, repeats=3, pixel_size_um=2 * PIXEL_UM).calibration
    assert calibration.model.pixel_size_um == 2 * PIXEL_UM
    table = calibration.particles
    true, _ = scan.match(table)
    halved = table.x_um / 2 / PIXEL_UM
    assert np.abs(np.min(np.abs(halved[table.used, None] - scan.x_px), axis=1)).max() < 0.2
    assert len(true) == len(table)


def test_particles_that_are_left_out_because_there_are_more_than_enough_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr("calibration.pipeline.MOST_TRACES", 12)
    calibration = run(SmallScan().write(tmp_path / "scan.ome.tif")).calibration
    assert len(calibration.particles.used) == 12
    assert [text for text in calibration.warnings if "the 12 farthest from the others" in text]
