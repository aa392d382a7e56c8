"""Objects cut free from a few crops of a user's images, and training images made of them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import CalibrationError
from calibration.examples.background import behind_of
from calibration.examples.crops import At, Crop, read_crops
from calibration.examples.material import from_examples, stretch_of
from calibration.examples.objects import CutOffError, EmptyError, crops_at, free
from calibration.synthesis import Distribution, Layout, NoiseModel
from calibration.synthesis.varied import Surroundings, Varied
from stream.errors import SourceError

LIGHT = 120.0
SIDE = 25
PLACE = st.floats(-1.2, 1.2)


def spot(x, y, *, side=SIDE, peak=0.5, width=2.0, long=1.0, noise=0.0, seed=0):
    """Grey values (side, side) of a spot, `long` times as wide along x, off the middle by x, y."""
    rows, columns = np.indices((side, side)) - side // 2
    shape = np.exp(-((columns - x) ** 2 / long**2 + (rows - y) ** 2) / (2 * width**2))
    return LIGHT * (1 + peak * shape + noise * np.random.default_rng(seed).standard_normal(shape.shape))


def centre(*greys):
    """The centres (N, 2), x and y off the middle."""
    found = free([Crop(grey, "the crop") for grey in greys])
    return np.array([np.array(each.centre_px)[::-1] for each in found]) - greys[0].shape[0] // 2


@settings(max_examples=25, deadline=None)
@given(PLACE, PLACE, st.sampled_from([0.5, -0.4]), st.sampled_from([1.0, 1.8]))
def test_the_centre_is_that_of_symmetry_to_a_hundredth_of_a_pixel(x, y, peak, long):
    grey = spot(x, y, peak=peak, long=long)
    assert centre(grey)[0] == pytest.approx((x, y), abs=0.01)


def test_the_centre_is_as_exact_as_noise_allows():
    places = np.random.default_rng(1).uniform(-0.5, 0.5, (60, 2))
    found = np.concatenate([centre(spot(x, y, noise=0.05, seed=n)) for n, (x, y) in enumerate(places)])
    # Cramer-Rao bound of a known Gaussian spot on known light
    bound = 0.05 / 0.5 * np.sqrt(2 / np.pi)
    assert np.sqrt(((found - places) ** 2).mean()) < 1.3 * bound


def test_a_neighbour_is_left_out_and_does_not_move_the_centre():
    neighbour = spot(9.0, 3.0, side=31, peak=0.4) - LIGHT
    crowded = spot(0.3, -0.2, side=31) + neighbour
    alone = spot(0.1, 0.4, side=31)
    assert centre(crowded, alone)[0] == pytest.approx((0.3, -0.2), abs=0.1)
    with_one, _ = free([Crop(crowded, "the crop"), Crop(alone, "the other")])
    half = with_one.image.shape[0] // 2
    assert np.abs(with_one.image[:, half + 7 :]).max(initial=0.0) < 0.05 * with_one.peak


def test_uneven_light_does_not_move_the_centre():
    tilted = spot(0.25, 0.1) * (1 + 0.01 * np.arange(SIDE))
    assert centre(tilted)[0] == pytest.approx((0.25, 0.1), abs=0.02)


def test_an_object_that_is_not_symmetric_keeps_its_shape():
    head, tail = spot(0.0, 0.0, side=33, peak=0.6, noise=0.004), spot(7.0, 0.0, side=33, peak=0.35) - LIGHT
    (found,) = free([Crop(head + tail, "the crop")])
    assert found.symmetry == "none"
    assert np.abs(found.image - found.image[:, ::-1]).max() > 0.1


def test_faint_objects_lose_most_of_their_noise_by_their_symmetry():
    clean = spot(0.0, 0.0, peak=0.3)
    (found,) = free([Crop(spot(0.0, 0.0, peak=0.3, noise=0.03, seed=3), "the crop")])
    half = found.image.shape[0] // 2
    true = (clean / LIGHT - 1)[
        SIDE // 2 - half : SIDE // 2 + half + 1, SIDE // 2 - half : SIDE // 2 + half + 1
    ]
    inside = found.outline > 0.9
    assert found.symmetry == "round"
    assert (found.image - true)[inside].std() < 0.6 * 0.03


def write(path: Path, images, **kind):
    tifffile.imwrite(path, np.asarray(images), **kind)
    return path


def as_stack(*greys):
    return np.rint(np.array(greys)).astype(np.uint16)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (as_stack(np.full((7, 7), LIGHT)), CalibrationError, "has 7 x 7 pixels; cut 9 x 9 or more"),
        (as_stack(spot(0, 0), spot(0, 0)), CalibrationError, "are the same pixels; cut another object"),
        (spot(0, 0).astype(np.float32), SourceError, "must be uint8 or uint16"),
        (np.zeros((SIDE, SIDE, 3), np.uint8), SourceError, "colours"),
    ],
)
def test_files_that_hold_no_crops_are_refused(tmp_path, images, error, words):
    with pytest.raises(error, match=words):
        read_crops(
            [write(tmp_path / "crops.tif", images, photometric="rgb" if images.shape[-1:] == (3,) else None)]
        )


def test_crops_without_an_object_are_refused():
    noise = LIGHT * (1 + 0.03 * np.random.default_rng(0).standard_normal((SIDE, SIDE)))
    with pytest.raises(EmptyError, match="has no object in its middle"):
        free([Crop(noise, "crops.tif, image 2")])


def test_an_object_that_is_cut_off_is_refused():
    with pytest.raises(CutOffError, match="reaches the edge of its 13 x 13 pixels"):
        free([Crop(spot(0, 0, side=13, width=5.0), "the crop")])


def test_crops_without_light_are_refused():
    with pytest.raises(CalibrationError, match="no light around its object"):
        free([Crop(spot(0, 0) - LIGHT, "the crop")])


def image_with(places, shape=(96, 128), width=2.0):
    rows, columns = np.indices(shape)
    image = np.full(shape, LIGHT)
    for x, y in places:
        image += 0.5 * LIGHT * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
    return image + np.random.default_rng(5).normal(0, 1.5, shape)


def test_places_in_a_recording_are_cut_as_large_as_the_object_needs(tmp_path):
    recording = write(
        tmp_path / "video.tif", as_stack(image_with([(40, 50)]), image_with([(70.4, 40.3)], width=5.0))
    )
    small, large = crops_at(recording, [At(40, 50), At(70, 41, 1)])
    assert small.grey.shape[0] < large.grey.shape[0]
    found = free([large])[0]
    assert found.centre_px[1] + large.left == pytest.approx(70.4, abs=0.1)
    assert found.centre_px[0] + large.top == pytest.approx(40.3, abs=0.1)


def test_near_the_edge_of_the_image_the_crop_is_as_large_as_there_is_room(tmp_path):
    recording = write(tmp_path / "video.tif", as_stack(image_with([(60, 9)], width=2.9)))
    (crop,) = crops_at(recording, [At(60, 9)])
    assert crop.grey.shape == (19, 19)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (At(2, 50), "reaches beyond the image"),
        (At(40, 50, 3), "has no image 3"),
        (At(85, 50), "has no object in its middle"),
    ],
)
def test_places_without_a_whole_object_are_refused(tmp_path, at, words):
    recording = write(tmp_path / "video.tif", as_stack(image_with([(40, 50)])))
    with pytest.raises(CalibrationError, match=words):
        crops_at(recording, [at])


def test_what_does_not_move_is_the_background(tmp_path):
    dirt = image_with([(20, 20)])
    frames = [dirt + image_with([(30 + 8 * n, 60)]) - LIGHT for n in range(10)]
    (behind,) = behind_of(write(tmp_path / "video.tif", as_stack(*frames)), 8.0)
    assert behind[20, 20] == pytest.approx(0.5, abs=0.05)
    assert np.abs(behind[55:65, 25:110]).max() < 0.1


def test_of_one_image_only_the_uneven_light_is_the_background(tmp_path):
    slope = image_with([(60, 50)]) * (1 + 0.002 * np.arange(128))
    (behind,) = behind_of(write(tmp_path / "image.tif", as_stack(slope)), 6.0)
    assert behind[50, 60] == pytest.approx((1 + 0.12) / (1 + 0.127) - 1, abs=0.02)


def test_sizes_between_the_examples_are_trained_too():
    stretch = stretch_of(np.array([4.0, 6.0, 4.2]))
    assert np.exp(stretch[1]) == pytest.approx((6.0 / 4.2) ** 0.55, rel=0.01)
    assert (stretch_of(np.array([4.0])) >= 0.08).all()


@pytest.mark.parametrize("peak", [0.5, -0.4])
def test_training_images_have_objects_where_they_say(peak):
    examples = free([Crop(spot(0.3, 0.1, peak=peak, long=1.5, noise=0.004), "the crop")])
    material = from_examples(examples, 0.5, "a spot")()
    assert material.polarity == ("bright" if peak > 0 else "dark")
    alone = Varied(
        material.scoring.looks,
        np.ones(1),
        material.scoring.stretch,
        Distribution.constant(1.0),
        NoiseModel.steady(1e-8, 0.0, 1.0),
        Surroundings(0.0, (1.0, 1.0), 0.0, (1.0, 1.0)),
        Layout((2e-4, 2e-4), overlapped=0.0),
        0.5,
        material.polarity,
    )
    scene = alone.draw(np.random.default_rng(0), (128, 128), 16)
    truth = scene.particles
    lone = np.flatnonzero(
        (truth.nearest_px > 22) & (np.abs(truth.x_px - 63.5) < 50) & (np.abs(truth.y_px - 63.5) < 50)
    )
    assert lone.size > 10
    rows, columns = np.indices((128, 128))
    off = []
    for n in lone:
        weight = np.where(
            np.hypot(columns - truth.x_px[n], rows - truth.y_px[n]) < 12, scene.images[truth.frame[n]], 0.0
        )
        places = (columns, truth.x_px[n]), (rows, truth.y_px[n])
        off.append([(weight * (grid - at)).sum() / weight.sum() for grid, at in places])
    assert np.abs(off).max() < 0.05


def ring(x, y, noise, seed, shape=(64, 64), radius=5.0):
    """Grey values of a ring."""
    rows, columns = np.indices(shape)
    off = np.hypot(columns - x, rows - y) - radius
    grain = noise * np.random.default_rng(seed).standard_normal(shape)
    return LIGHT * (1 + 0.5 * np.exp(-(off**2) / 2) + grain)


def test_a_crop_of_a_place_is_large_enough_for_an_object_that_is_symmetric(tmp_path):
    for seed in range(12):
        x, y = 32 + np.random.default_rng(seed).uniform(-0.5, 0.5, 2)
        path = tmp_path / f"{seed}.tif"
        write(path, as_stack(ring(x, y, 0.04, seed, radius=4.0 + 0.1 * seed)))
        (crop,) = crops_at(path, [At(32, 32)])
        (example,) = free([crop])
        assert example.radius_px == pytest.approx(4.0 + 0.1 * seed, rel=0.25)


def test_single_images_of_other_types_are_crops_too(tmp_path):
    from PIL import Image

    paths = [tmp_path / "a.png", tmp_path / "b.bmp"]
    for path, x, side in zip(paths, (0.2, -0.3), (25, 29), strict=True):
        Image.fromarray(np.round(spot(x, 0.0, side=side)).astype(np.uint8)).save(path)
    assert [crop.grey.shape for crop in read_crops(paths)] == [(25, 25), (29, 29)]
    Image.new("RGB", (25, 25)).save(tmp_path / "c.png")
    with pytest.raises(SourceError, match="colour"):
        read_crops([tmp_path / "c.png"])
