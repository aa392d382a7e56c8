"""The simulated camera of holograms draws spheres as the exact model does; its truth says how large they are."""

import time

import numpy as np
import pandas as pd
import pymmcore
import pytest

from acquisition.configuration import config_path
from acquisition.microscope.pymmcore import UniMMCore
from acquisition.physics.hologram import HologramOptics, hologram_model
from acquisition.simulated.hologram import Spheres
from stream.errors import ConfigurationError


@pytest.fixture
def load(tmp_path):
    """Loads the shipped microscope with other values of properties."""
    core = UniMMCore()

    def load(**other):
        text = config_path("holograms").read_text("utf-8")
        for name, value in other.items():
            text = text.replace(
                "Property,Core,Initialize,1",
                f"#py Property,Camera,{name},{value}\nProperty,Core,Initialize,1",
            )
        path = tmp_path / "holograms.cfg"
        path.write_text(text, encoding="utf-8")
        core.loadSystemConfiguration(str(path))
        core.setProperty("Camera", "RealTime", 0)
        return core

    yield load
    core.unloadAllDevices()
    pymmcore.CMMCore.registerCallback(core, None)


def images(core, count):
    core.startSequenceAcquisition(count, 0, True)
    taken = []
    while len(taken) < count:
        if core.getRemainingImageCount():
            taken.append(core.popNextImage())
        else:
            time.sleep(0.001)
    return np.array(taken, float)


def test_images_are_those_of_the_exact_model_at_the_places_and_sizes_of_the_truth(load, tmp_path):
    core = load(Photons=1e9, ParticlesPerFrame=3, Radius_um="0.15 0.23", Seed=4)
    core.setProperty("Camera", "ParticlesFile", str(tmp_path / "all.csv"))
    core.setProperty("Camera", "TruthFile", str(tmp_path / "truth.csv"))
    (image,) = images(core, 2)[:1]
    everywhere, truth = pd.read_csv(tmp_path / "all.csv"), pd.read_csv(tmp_path / "truth.csv")
    here = truth[truth.frame == 0]
    assert len(here) >= 2
    assert set(truth.radius_um) <= {0.15, 0.23}
    outside = everywhere[~everywhere.particle.isin(here.particle)]
    described = (here.x_um / 0.1, here.y_um / 0.1, here.z_um, here.radius_um, np.full(len(here), 1.58))
    model = hologram_model(HologramOptics(), 5.0, 10.0)
    expected = model.image(np.column_stack(described), image.shape)
    reached = np.zeros(image.shape, bool)  # by rings of spheres outside of the image
    rows, columns = np.indices(image.shape) * 0.1
    for x, y in zip(outside.x_um, outside.y_um, strict=True):
        reached |= np.hypot(columns - x, rows - y) < 5.1
    assert (~reached).sum() > 500
    seen = image / (65535 / 4)
    assert np.abs(seen - expected)[~reached].max() < 0.02 * np.ptp(expected)


def test_noise_is_that_of_photons(load):
    quiet = images(load(ParticlesPerFrame=0, Photons=2500), 3)
    assert quiet.mean() == pytest.approx(65535 / 4, rel=0.002)
    assert quiet.std() / quiet.mean() == pytest.approx(1 / 50, rel=0.03)


def test_a_sphere_keeps_its_size_and_sizes_come_in_the_shares_given():
    class Some:
        identity = np.arange(4000)

    spheres = Spheres("0.15 0.15 0.15 0.23", 1.58, 3)
    radii = spheres.radii_um(Some)
    assert (radii == 0.23).mean() == pytest.approx(0.25, abs=0.03)
    assert (spheres.radii_um(Some) == radii).all()


@pytest.mark.parametrize("radii", ["", "0.1 large", "-0.2", "0", "nan"])
def test_sizes_that_cannot_be_are_refused_in_one_line(radii):
    with pytest.raises(ConfigurationError, match="Radius_um = ") as refused:
        Spheres(radii, 1.58, 1)
    assert "\n" not in str(refused.value)


def test_optics_that_cannot_be_are_refused(load):
    with pytest.raises(RuntimeError, match=r"numerical_aperture = 1\.4"):
        load(NumericalAperture=1.4)


def test_a_least_period_slows_down_a_camera_without_real_time(load):
    core = load(ParticlesPerFrame=0)
    core.setProperty("Camera", "LeastPeriod_ms", 30)
    before = time.monotonic()
    images(core, 4)
    assert time.monotonic() - before >= 0.09
