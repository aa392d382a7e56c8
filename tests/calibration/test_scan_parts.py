import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.stacks.stack import StackInfo
from calibration.ambiguity import find_ambiguity
from calibration.assemble import image_radius
from calibration.errors import CalibrationError
from calibration.focal_planes import find_focal_planes
from calibration.generalised_gaussian import fit_generalised_gaussian, sigma_of
from calibration.noise import background_field, photon_transfer
from calibration.scan.candidates import find_candidates
from calibration.scan.contrast import make_background, smooth_background
from calibration.scan.cutouts import window
from calibration.scan.faults import position_faults
from calibration.scan.planes import ScanPlane, group_images
from calibration.surface import fit_surface


def info(planes, axes="", lead=()):
    return StackInfo(planes, 10, 10, "uint8", axes=axes, lead=lead)


@given(st.integers(2, 30), st.integers(1, 6), st.floats(0.5, 10), st.integers(0, 1000))
def test_images_at_one_focus_are_one_plane_though_the_read_back_scatters(planes, repeats, step, seed):
    rng = np.random.default_rng(seed)
    focus = np.repeat(np.arange(planes) * step, repeats) + 0.02 * step * rng.uniform(-1, 1, planes * repeats)
    groups = group_images(list(focus), info(len(focus)), z_step_um=None, repeats=None)
    assert [len(group.images) for group in groups] == [repeats] * planes
    assert [group.focus_um for group in groups] == pytest.approx(np.arange(planes) * step, abs=0.02 * step)


@pytest.mark.parametrize(("axes", "lead"), [("ZT", (5, 3)), ("TZ", (3, 5))])
def test_planes_follow_the_files_z_axis_whatever_runs_fastest(axes, lead):
    z = np.unravel_index(np.arange(15), lead)[axes.index("Z")]
    groups = group_images([float(k) for k in z], info(15, axes, lead), z_step_um=None, repeats=None)
    assert len(groups) == 5
    assert all(len(group.images) == 3 for group in groups)
    assert [group.focus_um for group in groups] == [0, 1, 2, 3, 4]


def test_repeats_and_step_given_count_more_than_what_the_file_says():
    groups = group_images([0.0] * 12, info(12), z_step_um=2.0, repeats=4)
    assert [group.images for group in groups] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert [group.focus_um for group in groups] == [0, 2, 4]


def test_repeats_that_contradict_the_positions_in_the_file_are_refused():
    focus = [float(z) for z in np.repeat(np.arange(6) * 3.0, 4)]
    with pytest.raises(CalibrationError, match="plane 0 would hold images taken at focus 0"):
        group_images(focus, info(24), z_step_um=None, repeats=7)


def test_gaps_returns_and_repetitions_of_the_focus_are_named():
    focus = [0, 3, 6, 15, 18, 21, 12, 15, 18, 18.1, 21]
    found = position_faults([ScanPlane(float(z), (k,)) for k, z in enumerate(focus)])
    assert [(fault.kind, fault.plane) for fault in found] == [
        ("missing plane", 3),
        ("moved back", 6),
        ("same image twice", 9),
    ]


def test_a_scan_from_top_to_bottom_is_as_good_as_one_upwards():
    assert position_faults([ScanPlane(-3.0 * k, (k,)) for k in range(12)]) == []


def shaded(shape=(300, 400)):
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return 150 * (1 - 0.3 * (x**2 + y**2) + 0.1 * x)


def test_the_background_is_seen_through_the_particles():
    light = shaded()
    rng = np.random.default_rng(0)
    image = light + rng.normal(0, 0.3, light.shape)
    rows, columns = np.indices(light.shape)
    for _ in range(40):
        x, y = rng.uniform(0, 400), rng.uniform(0, 300)
        image -= 20 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 60)
    found = smooth_background(image)
    assert np.abs(found / light - 1).max() < 0.01
    assert np.sqrt(np.mean((found / light - 1) ** 2)) < 0.003


def test_references_that_were_swapped_are_noticed():
    with pytest.raises(CalibrationError, match="swapped"):
        make_background(
            np.full((40, 40), 30.0), "dark", bright=np.full((40, 40), 5.0), dark=np.full((40, 40), 100.0)
        )


def test_particles_are_found_to_a_part_of_a_pixel():
    rng = np.random.default_rng(3)
    rows, columns = np.indices((200, 260))
    image = rng.normal(0, 1e-3, (200, 260))
    x, y = np.array([40.3, 120.8, 200.5]), np.array([50.2, 140.6, 90.9])
    for a, b in zip(x, y, strict=True):
        image += 0.05 * np.exp(-((columns - a) ** 2 + (rows - b) ** 2) / 18)
    found = find_candidates(image, spot_px=2, around_px=8)
    order = np.argsort(found.x_px)
    assert np.abs(found.x_px[order] - x).max() < 0.15
    assert np.abs(found.y_px[order] - y).max() < 0.15


@given(st.integers(-5, 45), st.integers(-5, 55), st.integers(1, 9))
def test_a_window_holds_what_is_around_a_pixel_and_nothing_beyond_the_edge(row, column, half):
    image = np.arange(40 * 50, dtype=float).reshape(40, 50) + 1
    if not (0 <= row < 40 and 0 <= column < 50):
        return
    part, inside = window(image, row, column, half)
    assert part[half, half] == image[row, column]
    assert (part[~inside] == 0).all()
    assert inside.sum() == (min(row, half) + min(39 - row, half) + 1) * (
        min(column, half) + min(49 - column, half) + 1
    )


def astigmatic(z, separation=60.0, angle_deg=0.0, half=32):
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    turn = np.deg2rad(angle_deg)
    u, v = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    a = 1.5 * np.sqrt(1 + ((z - separation / 2) / 12) ** 2)
    b = 1.5 * np.sqrt(1 + ((z + separation / 2) / 12) ** 2)
    return np.exp(-(u**2) / (2 * a**2) - v**2 / (2 * b**2)) / (a * b)


@pytest.mark.parametrize("angle", [-30.0, 0.0, 12.0])
def test_focal_planes_and_the_angle_of_the_lens_are_found(angle):
    z = np.arange(-90, 91, 3.0)
    planes = find_focal_planes(np.array([astigmatic(k + 4.0, angle_deg=angle) for k in z]), z)
    assert planes.astigmatic
    assert planes.xz_um == pytest.approx(26, abs=0.3)
    assert planes.yz_um == pytest.approx(-34, abs=0.3)
    assert planes.rotation_deg == pytest.approx(angle, abs=1)


def test_a_round_lens_has_one_focal_plane():
    z = np.arange(-90, 91, 3.0)
    planes = find_focal_planes(np.array([astigmatic(k - 7.0, separation=0.0) for k in z]), z)
    assert not planes.astigmatic
    assert planes.middle_um == pytest.approx(7, abs=0.5)


def test_a_scan_that_ends_before_the_focus_is_said_to():
    z = np.arange(40, 121, 3.0)
    with pytest.raises(CalibrationError, match="scan further"):
        find_focal_planes(np.array([astigmatic(k) for k in z]), z)


def test_symmetric_defocus_is_ambiguous_and_astigmatism_is_not():
    z = np.arange(-60, 61, 3.0)
    round_, line = (np.array([astigmatic(k, separation) for k in z]) for separation in (0.0, 60.0))
    assert find_ambiguity(round_, z, 0.002).part > 0.5
    assert find_ambiguity(line, z, 0.002).part < 0.1


@settings(max_examples=20, deadline=None)
@given(
    st.floats(-2, 2), st.floats(-2, 2), st.floats(1.5, 4), st.floats(1.5, 4), st.sampled_from([1.5, 2.0, 4.0])
)
def test_a_generalised_gaussian_gives_back_its_parameters(x0, y0, a, b, shape):
    y, x = np.mgrid[-18:19, -18:19].astype(float)
    image = 0.3 * np.exp(-(np.abs((x - x0) / a) ** shape) - np.abs((y - y0) / b) ** shape)
    fit = fit_generalised_gaussian(image)
    assert (fit.x_px, fit.y_px) == pytest.approx((x0, y0), abs=0.05)
    assert fit.sigma_x_px == pytest.approx(sigma_of(a, shape), rel=0.03)
    assert fit.sigma_y_px == pytest.approx(sigma_of(b, shape), rel=0.03)
    assert fit.shape_x == pytest.approx(shape, rel=0.06)


def test_the_photon_transfer_curve_gives_gain_and_read_noise():
    rng = np.random.default_rng(0)
    mean = np.linspace(50, 220, 90_000).reshape(300, 300)
    samples = mean + np.sqrt(4.0 + 0.05 * mean) * rng.standard_normal((40, 300, 300))
    read, gain = photon_transfer(samples.mean(axis=0), samples.var(axis=0, ddof=1))
    assert read == pytest.approx(4.0, rel=0.1)
    assert gain == pytest.approx(0.05, rel=0.05)


def test_white_noise_has_no_background_field_and_a_smooth_one_is_measured():
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal((300, 400))
    free = np.ones(noise.shape, bool)
    assert background_field(noise, free, 1e-4)[0] < 4e-4
    field = gaussian_filter(rng.standard_normal(noise.shape), (6, 20))
    field *= 0.004 / field.std()
    sd, along_x, along_y = background_field(noise + field, free, 1e-4)
    assert sd == pytest.approx(0.004, rel=0.25)
    assert along_x > 1.5 * along_y


def test_particles_on_a_tilted_plate_lie_on_a_surface_and_others_fill_a_volume():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 800, 60), rng.uniform(0, 600, 60)
    plate = 40 + 0.004 * (x - 400) - 0.002 * (y - 300) + rng.normal(0, 0.2, 60)
    plate[:4] += 15
    found = fit_surface(x, y, plate, (800, 600), depth_um=100)
    assert found.is_surface
    assert found.tilt_x == pytest.approx(0.004, abs=5e-4)
    assert found.tilt_y == pytest.approx(-0.002, abs=5e-4)
    assert not fit_surface(x, y, rng.uniform(0, 200, 60), (800, 600), depth_um=100).is_surface
    assert fit_surface(x[:5], y[:5], plate[:5], (800, 600), depth_um=100) is None


def test_the_radius_is_that_of_the_largest_image():
    images = np.array([astigmatic(z) for z in np.linspace(0, 90, 60)])
    y = 1.5 * np.sqrt(1 + (120 / 12) ** 2) * np.sqrt(2 * np.log(10))
    assert image_radius(images) == pytest.approx(min(0.95 * y, 32), abs=2)
