"""Objects that touch or overlap others, which hide them from the filters: found in what the fit leaves."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from calibration.examples.crops import Crop
from calibration.examples.image_model import model_of
from calibration.examples.objects import free
from engines.factory import open_engine
from engines.matched.object_model import write_object_model
from engines.settings import DetectorSettings
from stream.messages import Detections, Frame, FrameInfo

LIGHT, NOISE, RADIUS_PX, EDGE_PX = 500.0, 4.0, 6.0, 0.8


def image(places: np.ndarray, peaks: np.ndarray, shape: tuple[int, int], seed: int) -> np.ndarray:
    """An image (H, W) of discs with soft edges at x, y (N, 2) with these contrasts (N,)."""
    rows, columns = np.indices(shape).astype(float)
    grey = LIGHT + np.random.default_rng(seed).normal(0, NOISE, shape)
    for (x, y), peak in zip(places, peaks, strict=True):
        far = np.hypot(columns - x, rows - y)
        grey += LIGHT * peak / (1 + np.exp((far - RADIUS_PX) / EDGE_PX))
    return np.rint(grey).astype(np.uint16)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    crops = [
        Crop(image(np.array([[20.3, 19.8]]), np.ones(1), (41, 41), seed).astype(float), f"example {seed}")
        for seed in range(2)
    ]
    found = model_of(free(crops), 1.0)
    assert found.model is not None
    assert not found.is_rough
    path = tmp_path_factory.mktemp("touching") / "objects.h5"
    write_object_model(path, found.model, "two examples")
    return path


def table_of(model_file: Path, picture: np.ndarray) -> dict[str, np.ndarray]:
    """What is found with a confidence above 0.5."""
    with closing(open_engine(DetectorSettings(workers=1), model=model_file, pixel_size_um=1.0)) as engine:
        engine.submit(Frame(FrameInfo("run", 0, 0, 0.0, 0, 0.0, pixel_size_um=1.0), picture))
        results: list[Detections] = []
        while not results:
            results = engine.results(60.0)
    table = dict(zip(Detections.COLUMNS, results[0].table, strict=True))
    return {name: column[table["confidence"] > 0.5] for name, column in table.items()}


def detected(model_file: Path, picture: np.ndarray) -> np.ndarray:
    """Places (N, 2) of what is found with a confidence above 0.5."""
    table = table_of(model_file, picture)
    return np.column_stack([table["x_um"], table["y_um"]])


def packed(count: int, apart_px: float, side_px: float, rng: np.random.Generator) -> np.ndarray:
    """Places (count, 2) away from the edge, no two nearer than `apart_px`."""
    found: list[np.ndarray] = []
    while len(found) < count:
        place = rng.uniform(12, side_px - 12, 2)
        if all(np.hypot(*(place - other)) > apart_px for other in found):
            found.append(place)
    return np.array(found)


def test_discs_that_overlap_are_found_and_measured_to_hundredths_of_a_pixel(model_file: Path) -> None:
    rng = np.random.default_rng(1)
    places = packed(65, 9.5, 180, rng)  # 12 px across
    found = detected(model_file, image(places, rng.uniform(0.5, 1.2, len(places)), (180, 180), 3))
    apart = np.linalg.norm(found[None] - places[:, None], axis=2)
    nearest = apart.min(axis=1)
    assert (nearest < 1).mean() > 0.88
    assert np.median(nearest[nearest < 1]) < 0.03
    assert (apart.min(axis=0) > 2).sum() <= 2


def test_one_that_stands_alone_is_found_once(model_file: Path) -> None:
    places = np.array([[30.2, 40.9], [90.8, 60.3]])
    found = detected(model_file, image(places, np.array([1.0, 0.3]), (96, 130), 4))
    assert len(found) == 2
    assert np.linalg.norm(found[None] - places[:, None], axis=2).min(axis=1).max() < 0.1


def test_shade_of_discs_beyond_focus_is_in_the_standard_errors(model_file: Path) -> None:
    rng = np.random.default_rng(2)
    places, shades = packed(45, 14, 180, rng), rng.uniform(0, 180, (45, 2))
    shade = ndimage.gaussian_filter(
        image(shades, 0.4 * rng.uniform(0.5, 1.2, 45), (180, 180), 5).astype(float) - LIGHT, 3.0
    )
    picture = np.rint(image(places, rng.uniform(0.5, 1.2, 45), (180, 180), 6) + shade).astype(np.uint16)
    table = table_of(model_file, picture)
    apart = np.stack([table["x_um"], table["y_um"]], axis=1)[None] - places[:, None]
    nearest = np.linalg.norm(apart, axis=2).argmin(axis=1)
    errors = apart[np.arange(len(places)), nearest]
    found = np.linalg.norm(errors, axis=1) < 1
    assert found.mean() > 0.9
    stated = np.stack([table["sigma_x_um"], table["sigma_y_um"]], axis=1)[nearest]
    pulls = np.abs(errors / stated)[found]
    assert 0.5 < np.median(pulls) / 0.674 < 1.7
    assert (pulls < 2).mean() > 0.65
