"""The example detector for holograms measures spheres, with their properties."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from acquisition.physics.hologram import HologramOptics, hologram_model
from engines.factory import open_engine
from engines.settings import DetectorSettings
from stream.messages import Frame, FrameInfo

DETECTOR = Path(__file__).parents[2] / "examples" / "detectors" / "holograms.py"
PIXEL_UM = 0.1


def test_place_radius_and_index_are_right_within_their_errors():
    optics = HologramOptics(pixel_size_um=PIXEL_UM)
    spheres = np.array([[30.4, 41.7, 3.0, 0.15, 1.58], [66.0, 50.2, 4.2, 0.23, 1.58]])
    light = hologram_model(optics, 6.4, 9.0).image(spheres, (96, 96))
    image = np.random.default_rng(3).poisson(1e4 * light).astype(np.uint16)
    settings = DetectorSettings(file=DETECTOR)
    engine = open_engine(settings, model=None, pixel_size_um=PIXEL_UM, say=lambda _: None)
    info = FrameInfo("r", 0, 0, 0.0, 0, 0.0, pixel_size_um=PIXEL_UM)
    with closing(engine):
        engine.submit(Frame(info, image))
        (found,) = engine.results(400.0)
    order = np.argsort(found.x_um)
    for name, column in (("radius_um", 3), ("refractive_index", 4)):
        off = found.properties.value(name)[order] - spheres[:, column]
        assert np.abs(off / found.properties.error(name)[order]).max() < 4
    assert np.abs((found.z_um[order] - spheres[:, 2]) / found.sigma_z_um[order]).max() < 4
    assert np.abs(found.x_um[order] / PIXEL_UM - spheres[:, 0]).max() < 0.1
