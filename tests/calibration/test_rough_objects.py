"""Objects whose examples differ too much for a fit: found by what they are roughly like, measured by symmetry."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from calibration.examples.crops import Crop
from calibration.examples.image_model import model_of
from calibration.examples.objects import free
from engines.factory import open_engine
from engines.matched.object_model import write_object_model
from engines.matched.pursuit import Pursuit
from engines.settings import DetectorSettings
from stream.messages import Detections, Frame, FrameInfo

LIGHT, NOISE, LIGHT_OF_OBJECT = 500.0, 5.0, 60_000.0
EXAMPLES = (-40.0, -16.0, 0.0, 16.0, 40.0)


def looks(z: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A particle out of focus by z, behind a cylindrical lens: a ring, wide on one side and high on the other."""
    high, wide = 2 + 0.35 * abs(z - 8), 2 + 0.35 * abs(z + 8)
    far = np.sqrt((x / wide) ** 2 + (y / high) ** 2)
    ring = 1 / (1 + np.exp(4 * min(high, wide) / 3 * (far - 1))) * (0.35 + 0.65 * np.minimum(far, 1) ** 4)
    return ring * LIGHT_OF_OBJECT / (high * wide * np.pi)


def image(places: np.ndarray, shape: tuple[int, int], seed: int) -> np.ndarray:
    """An image (H, W) of particles at x, y and z (N, 3)."""
    rows, columns = np.indices(shape).astype(float)
    grey = LIGHT + np.random.default_rng(seed).normal(0, NOISE, shape)
    for x, y, z in places:
        grey += looks(z, columns - x, rows - y)
    return np.rint(grey).astype(np.uint16)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_of(EXAMPLES, tmp_path_factory.mktemp("rough") / "objects.h5")


def made_of(examples: tuple[float, ...], path: Path) -> Path:
    """The model of examples at these z."""
    crops = [
        Crop(image(np.array([[40.2, 39.7, z]]), (81, 81), n).astype(float), f"example {n}")
        for n, z in enumerate(examples)
    ]
    found = model_of(free(crops), 1.0)
    assert found.is_rough
    assert found.model is not None
    write_object_model(path, found.model, "examples", is_rough=found.is_rough)
    return path


def detected(model_file: Path, picture: np.ndarray) -> dict[str, np.ndarray]:
    with closing(open_engine(DetectorSettings(workers=1), model=model_file, pixel_size_um=1.0)) as engine:
        assert engine.info.details["measured_by"] == "symmetry"
        engine.submit(Frame(FrameInfo("run", 0, 0, 0.0, 0, 0.0, pixel_size_um=1.0), picture))
        results: list[Detections] = []
        while not results:
            results = engine.results(60.0)
    return dict(zip(Detections.COLUMNS, results[0].table, strict=True))


def errors_of(found: dict[str, np.ndarray], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors (N, 2) of what is found nearest to each place, and which (N,) it is."""
    apart = np.stack([found["x_um"], found["y_um"]], axis=1)[None] - places[:, None, :2]
    nearest = np.hypot(*apart.transpose(2, 0, 1)).argmin(axis=1)
    return apart[np.arange(len(places)), nearest], nearest


def test_each_object_of_a_focus_series_is_found_once_to_a_tenth_of_a_pixel(model_file: Path) -> None:
    rng = np.random.default_rng(3)
    lattice = np.stack(np.meshgrid(np.arange(50, 400, 75), np.arange(50, 400, 75)), axis=-1).reshape(-1, 2)
    places = np.column_stack(
        [lattice + rng.uniform(-3, 3, lattice.shape), np.linspace(-40, 40, len(lattice))]
    )
    found = detected(model_file, image(places, (400, 400), 7))
    assert len(found["x_um"]) == len(places)
    errors, nearest = errors_of(found, places)
    assert len(set(nearest.tolist())) == len(places)
    assert np.abs(errors).max() < 0.15
    stated = np.column_stack([found["sigma_x_um"], found["sigma_y_um"]])[nearest]
    assert 0.3 < np.sqrt(np.mean((errors / stated) ** 2)) < 1.6


def test_a_bright_object_within_the_ring_of_another_is_told_from_it_to_a_pixel(model_file: Path) -> None:
    places = np.array([[80.3, 90.1, -38.0], [86.6, 84.4, 1.0], [100.2, 180.7, 36.0], [112.0, 185.0, 12.0]])
    found = detected(model_file, image(places, (256, 200), 5))
    assert len(found["x_um"]) == len(places)
    assert np.abs(errors_of(found, places)[0]).max() < 1.0


def test_particles_beyond_focus_are_known_from_examples_before_it_as_they_lie_across(tmp_path: Path) -> None:
    model_file = made_of((-1.0, 6.0, 16.0, 40.0), tmp_path / "objects.h5")
    places = np.array([[60.3, 90.2, -17.0], [78.8, 87.6, -18.0], [150.2, 90.7, -20.0]])
    found = detected(model_file, image(places, (180, 200), 5))
    assert len(found["x_um"]) == len(places)
    assert np.abs(errors_of(found, places)[0]).max() < 0.15


def test_noise_alone_has_no_objects(model_file: Path) -> None:
    assert detected(model_file, image(np.empty((0, 3)), (300, 300), 1))["x_um"].size == 0


def test_an_object_that_the_edge_of_the_image_cuts_is_found_to_a_pixel(model_file: Path) -> None:
    places = np.array([[12.3, 100.4, 40.0]])  # 19 px wide on each side
    found = detected(model_file, image(places, (200, 200), 2))
    assert len(found["x_um"]) == 1
    assert np.abs(errors_of(found, places)[0]).max() < 1.0


def test_the_threshold_of_the_settings_is_the_one_used(model_file: Path) -> None:
    from engines.matched.object_model import load_object_model

    assert Pursuit(load_object_model(model_file), (64, 64), 9.0).threshold == 9.0
