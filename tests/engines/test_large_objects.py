"""Bubbles, dust and saturated spots hide what they cover, and nothing beside them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from engines.classical.detector import SpotDetector
from engines.settings import DetectorSettings

SIDE = 400
BACKGROUND, PEAK, NOISE = 200.0, 150.0, 5.0
BESIDE_PX = 15
Y, X = np.mgrid[:SIDE, :SIDE]
Image = npt.NDArray[np.float64]


def disc(y: float, x: float, radius: float) -> Image:
    return (np.hypot(Y - y, X - x) < radius).astype(float)


SHAPES = {
    "small": disc(200, 200, 8),
    "disc 12": disc(200, 200, 12),
    "disc 20": disc(200, 200, 20),
    "disc 40": disc(200, 200, 40),
    "disc 90": disc(200, 200, 90),
    "at the edge": disc(3, 200, 40),
    "in the corner": disc(SIDE, SIDE, 50),
    "ellipse": ((((Y - 200) / 15) ** 2 + ((X - 200) / 50) ** 2) < 1).astype(float),
    "square": ((abs(Y - 200) < 25) & (abs(X - 200) < 25)).astype(float),
    "blurred": ndimage.gaussian_filter(disc(200, 200, 40), 4),
    "touching": np.maximum(disc(200, 170, 25), disc(200, 225, 30)),
    "several": disc(100, 100, 25) + disc(300, 100, 20) + disc(100, 300, 15) + disc(300, 300, 30),
}


def places(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    found: list[npt.NDArray[np.float64]] = []
    while len(found) < 50:
        place = rng.uniform(12, SIDE - 12, 2)
        if all(np.hypot(*(place - other)) > 14 for other in found):
            found.append(place)
    return np.array(found)


@pytest.mark.parametrize("top", [-BACKGROUND, 300.0, 4095.0, 65535.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_particle_beside_a_large_object_is_found(shape: str, top: float) -> None:
    rng = np.random.default_rng(0)
    where, cover = places(rng), SHAPES[shape]
    image = BACKGROUND + sum(PEAK * np.exp(-((Y - y) ** 2 + (X - x) ** 2) / 8) for y, x in where)
    image = image * (1 - cover) + (BACKGROUND + top) * cover + rng.normal(0, NOISE, image.shape)
    detector = SpotDetector(SIDE, SIDE, DetectorSettings(), 1.0)
    table, left_out = detector.detect(np.clip(image, 0, 65535).astype(np.uint16), 1.0)
    apart = np.hypot(table[0][:, None] - where[:, 1], table[1][:, None] - where[:, 0])
    far = ndimage.distance_transform_edt(cover < 0.02)[tuple(where.astype(int).T)] > BESIDE_PX
    assert (apart.min(axis=0)[far] < 1).all()
    # objects are detections themselves, and a particle that one half covers may be off
    objects = ndimage.label(cover > 0.5)[1]
    assert (apart.min(axis=1) >= 2).sum() <= objects + 2
    hidden = left_out["hidden_px"]
    if top > 0 and shape != "small":
        assert 0.95 * (cover > 0.5).sum() <= hidden <= 1.6 * (cover > 0.05).sum()
    else:
        assert hidden == 0


def test_nothing_is_hidden_where_there_are_particles_alone() -> None:
    rng = np.random.default_rng(1)
    where = places(rng)
    image = BACKGROUND + sum(20 * PEAK * np.exp(-((Y - y) ** 2 + (X - x) ** 2) / 18) for y, x in where)
    detector = SpotDetector(SIDE, SIDE, DetectorSettings(), 1.0)
    table, left_out = detector.detect((image + rng.normal(0, NOISE, image.shape)).astype(np.uint16), 1.0)
    assert left_out["hidden_px"] == 0
    assert table.shape[1] == len(where)
