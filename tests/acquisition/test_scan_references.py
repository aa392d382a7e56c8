import numpy as np
import pytest
import tifffile

from acquisition.microscope.microscope import Microscope
from acquisition.recording import open_stack
from acquisition.references import read_image
from acquisition.scan.burst import Burst, BurstCamera
from acquisition.scan.references import (
    check_references,
    needs_person,
    take_reference,
    write_reference,
)
from acquisition.scan.safety import light_on
from acquisition.settings import MicroscopeSettings, ScanSettings
from stream.errors import ConfigurationError, SourceError

LAMP = "White Light Shutter"
DEMO = MicroscopeSettings(config="MMConfig_demo.cfg", exposure_ms=1.0)


class Watched:
    """A camera that notes what the lamp did while it took its images."""

    def __init__(self, microscope, settings):
        self.camera, self.core, self.states = BurstCamera(microscope, settings, 5.0), microscope.core, []

    def take(self, count, stopping):
        def look():
            self.states.append(str(self.core.getProperty(LAMP, "State")))
            return stopping()

        return self.camera.take(count, look)


@pytest.fixture
def scope():
    opened = []

    def open_microscope(settings=DEMO):
        microscope = Microscope(settings)
        camera = Watched(microscope, settings)
        opened.extend([camera.camera, microscope])
        return microscope, camera

    yield open_microscope
    for item in opened:
        item.close()


def take(kind, microscope, camera, settings, ask=None):
    return take_reference(
        kind, microscope, camera, settings, ask=ask, stopping=lambda: False, settle=lambda: None
    )


def test_the_light_is_off_for_the_dark_reference_also_where_the_core_opens_the_shutter_by_itself(scope):
    microscope, camera = scope()
    settings = ScanSettings(range_um=3, light=f"{LAMP}.State", reference_images=8)
    microscope.core.setAutoShutter(True)
    before = microscope.core.getProperty(LAMP, "State")
    with light_on(microscope, settings):
        assert str(microscope.core.getProperty(LAMP, "State")) == "1"
        burst = take("dark", microscope, camera, settings)
        assert str(microscope.core.getProperty(LAMP, "State")) == "1"
    assert burst is not None
    assert len(burst.images) == 8
    assert set(camera.states) == {"0"}
    assert microscope.core.getAutoShutter()
    assert microscope.core.getProperty(LAMP, "State") == before


def test_a_shutter_is_enough_for_the_dark_reference(scope):
    microscope, camera = scope(DEMO.model_copy(update={"shutter": LAMP}))
    settings = ScanSettings(range_um=3, reference_images=4)
    assert not needs_person(microscope, settings, "dark")
    microscope.core.setAutoShutter(True)
    with light_on(microscope, settings):
        take("dark", microscope, camera, settings)
        assert microscope.core.getShutterOpen(LAMP)
        camera.camera.take(4, lambda: False)
        assert microscope.core.getShutterOpen(LAMP)
    assert set(camera.states) == {"0"}
    assert microscope.core.getAutoShutter()
    assert not microscope.core.getShutterOpen(LAMP)


def test_what_takes_the_particles_out_of_the_picture_is_set_back(scope):
    microscope, camera = scope()
    settings = ScanSettings(range_um=3, bright_properties={"Objective.State": 3}, reference_images=2)
    before = microscope.core.getProperty("Objective", "State")
    assert take("bright", microscope, camera, settings) is not None
    assert microscope.core.getProperty("Objective", "State") == before


def test_a_person_can_decline(scope):
    microscope, camera = scope()
    questions = []
    settings = ScanSettings(range_um=3)
    assert take("bright", microscope, camera, settings, ask=lambda text: bool(questions.append(text))) is None
    assert "particles" in questions[0]
    assert not camera.states


def test_where_nobody_can_be_asked_it_is_said_beforehand(scope):
    microscope, _ = scope()
    check_references(microscope, ScanSettings(range_um=3), ["bright", "dark"], lambda _: True)
    with pytest.raises(ConfigurationError, match=r"dark reference needs a person.*scan\.light"):
        check_references(microscope, ScanSettings(range_um=3), ["dark"], None)
    with pytest.raises(ConfigurationError, match="no device 'LED1'"):
        check_references(microscope, ScanSettings(range_um=3, light="LED1.On"), [], None)


def test_a_reference_with_lost_images_is_retaken_and_then_given_up(scope):
    microscope, _ = scope()

    class Losing:
        def __init__(self, losses):
            self.losses = losses

        def take(self, count, _stopping):
            images = [np.full((4, 6), 7, np.uint8)] * count
            return Burst(images=images, arrived_ns=[0] * count, lost=self.losses.pop(0))

    settings = ScanSettings(range_um=3, light=f"{LAMP}.State", tries=3)
    assert len(take("dark", microscope, Losing([1, 2, 0]), settings).images) == 16
    with pytest.raises(SourceError, match="dark reference cannot be taken in 3 attempts: 1 images lost"):
        take("dark", microscope, Losing([3, 2, 1]), settings)


@pytest.mark.parametrize("pixel_um", [0.8, None])
def test_a_reference_is_a_stack_that_imagej_and_we_read(tmp_path, pixel_um):
    images = [np.full((4, 6), value, np.uint16) for value in (10, 20, 60)]
    path = tmp_path / "beads.dark.tif"
    write_reference(path, Burst(images=images, arrived_ns=[0, 0, 0]), pixel_um)
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej
        assert file.series[0].shape == (3, 4, 6)
    np.testing.assert_array_equal(read_image(path), np.full((4, 6), 30.0))
    stack = open_stack(path)
    assert stack.info.pixel_size_um == pytest.approx(pixel_um or np.nan, nan_ok=True)
    stack.close()
    assert [item.name for item in tmp_path.iterdir()] == ["beads.dark.tif"]
