"""From a pipeline to detections without training: the command makes an image model, the engine finds with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import liveptv
from calibration.deeptrack.light import is_brightfield
from calibration.deeptrack.loading import load_pipeline
from calibration.deeptrack.recording import Recorder
from engines.factory import open_engine
from engines.settings import DetectorSettings
from liveptv.workflows.inspect import describe_file
from stream.errors import ConfigurationError
from stream.messages import Frame, FrameInfo

pytest.importorskip("deeptrack", reason="deeptrack is not installed")

PIPELINE = """
import deeptrack as dt
import numpy as np
from deeptrack.optical.scatterers import FieldScatterer

pixel_size_um = 0.1
normalise = "background"


class Blob(FieldScatterer):
    def get(self, *_, position, radius, stretch, **__):
        rows, columns = np.mgrid[:40, :40]
        far = ((rows - position[0]) / stretch) ** 2 + (columns - position[1]) ** 2
        return (np.random.uniform(0.5, 1.0) * np.exp(-far / (2 * radius**2)))[..., None]


class Direct(dt.optics.Optics):
    def get(self, volume, limits, fields, **_):
        return 300 * (1 + sum(np.asarray(field.array) for field in fields))


def photons(image):
    return np.random.poisson(np.asarray(image)).astype(float)


def made(stretch, light=lambda: np.ones(40)):
    blob = Blob(
        position=lambda: np.random.uniform(16, 24, 2),
        radius=lambda: np.random.uniform(1.5, 3.0),
        stretch=stretch,
    )
    optics = Direct(output_region=(0, 0, 40, 40), resolution=1e-7, magnification=1, NA=0.7, wavelength=5e-7)
    lit = dt.Lambda(lambda light: lambda image: photons(image * light[None, :, None]), light=light)
    return optics(blob) >> lit


round_ones = made(1.0)
unevenly_lit = made(1.0, lambda: 1 + np.random.uniform(-0.5, 0.5) * (np.arange(40) / 20 - 1))
other_ones = made(lambda: np.random.uniform(1.0, 4.0))
"""


SPHERES = """
import deeptrack as dt

optics = dt.{optics}(NA=0.7, wavelength=5e-7, resolution=1e-7, magnification=1, output_region=(0, 0, 32, 32))
pipeline = optics(dt.Sphere(position=(16, 16), radius=3e-7))
"""


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the pipelines, of which few images are drawn."""
    monkeypatch.setattr("calibration.deeptrack.image_model.MOST_IMAGES", 150)
    path = tmp_path / "pipeline.py"
    path.write_text(PIPELINE, encoding="utf-8")
    return path


def test_objects_are_found_with_their_radius_after_a_look_at_the_pipeline(
    pipeline: Path, tmp_path: Path
) -> None:
    model = tmp_path / "objects.h5"
    made = liveptv.train(images=f"{pipeline}:round_ones", output=model)
    assert isinstance(made, liveptv.ObjectModel)
    assert "images change with radius" in made.found
    table = made.to_pandas()
    assert table.columns.tolist() == ["radius", "peak"]
    assert (table.peak > 0).all()
    made.plot()
    rows, columns = np.mgrid[:64, :64]
    light = 300 * (1 + 0.8 * np.exp(-((rows - 30.3) ** 2 + (columns - 33.6) ** 2) / (2 * 2.2**2)))
    image = np.random.default_rng(0).poisson(light).astype(np.uint16)
    engine = open_engine(DetectorSettings(workers=1), model=model, pixel_size_um=0.1)
    engine.submit(Frame(FrameInfo("test", 0, 0, 0.0, 0, 0.0, pixel_size_um=0.1), image))
    found = []
    while not found:
        found = engine.results(1.0)
    engine.close()
    assert len(found[0]) == 1
    assert (found[0].x_um[0], found[0].y_um[0]) == pytest.approx((3.36, 3.03), abs=0.02)
    assert found[0].properties.value("radius")[0] == pytest.approx(2.2, abs=0.15)


def test_images_in_uneven_light_say_that_it_multiplies_objects(pipeline: Path, tmp_path: Path) -> None:
    model = tmp_path / "objects.h5"
    made = liveptv.train(images=f"{pipeline}:unevenly_lit", output=model)
    assert "light multiplies them (grey value without light: 0)" in made.found
    assert describe_file(model)["light_multiplies"]


@pytest.mark.parametrize(
    ("optics", "multiplies"), [("Brightfield", 1), ("Darkfield", 0), ("Fluorescence", 0)]
)
def test_in_brightfield_the_background_is_the_light_of_the_objects(
    tmp_path: Path, optics: str, multiplies: int
) -> None:
    path = tmp_path / "spheres.py"
    path.write_text(SPHERES.format(optics=optics), encoding="utf-8")
    assert is_brightfield(Recorder(load_pipeline(path)).microscopes) == multiplies


def test_objects_that_change_with_two_numbers_are_for_a_network(pipeline: Path, tmp_path: Path) -> None:
    from liveptv.workflows.object_model import make_object_model
    from liveptv.workflows.train import PipelineOf

    with pytest.raises(ConfigurationError, match=r"more than one number.*train a network"):
        make_object_model(tmp_path / "objects.h5", PipelineOf(pipeline, "other_ones"))
    assert not (tmp_path / "objects.h5").exists()
