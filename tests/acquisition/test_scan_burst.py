import numpy as np
import pytest
from small_microscope import small_settings

from acquisition.microscope.microscope import Microscope
from acquisition.scan.burst import BurstCamera
from acquisition.settings import MicroscopeSettings
from stream.errors import SourceError


def never():
    return False


@pytest.fixture
def open_camera(tmp_path):
    opened = []

    def open_camera(*extra, image_timeout_s=5.0, settings=None, **more):
        settings = settings or small_settings(tmp_path, "Camera,RealTime,0", *extra, **more)
        microscope = Microscope(settings)
        camera = BurstCamera(microscope, settings, image_timeout_s)
        opened.extend([camera, microscope])
        return camera, microscope

    yield open_camera
    for item in opened:
        item.close()


def test_every_burst_has_its_images_and_none_of_the_one_before(open_camera):
    camera, microscope = open_camera(exposure_ms=2.0)
    bursts = [camera.take(count, never) for count in (4, 1, 10)]
    assert [(len(burst.images), burst.lost, burst.problem) for burst in bursts] == [
        (4, 0, ""),
        (1, 0, ""),
        (10, 0, ""),
    ]
    assert {image.shape for burst in bursts for image in burst.images} == {(256, 320)}
    assert {burst.exposure_ms for burst in bursts} == {2.0}
    arrived = [ns for burst in bursts for ns in burst.arrived_ns]
    assert arrived == sorted(arrived)
    assert not microscope.core.isSequenceRunning()
    assert not np.array_equal(bursts[0].images[0], bursts[0].images[1])


def test_images_that_the_camera_lost_are_counted_by_its_own_numbers(open_camera):
    camera, microscope = open_camera()
    microscope.set_property("Camera", "DropEvery", 3)
    burst = camera.take(6, never)
    assert (len(burst.images), burst.lost) == (6, 2)
    microscope.set_property("Camera", "DropEvery", 0)
    assert camera.take(6, never).lost == 0


def test_a_camera_that_is_late_is_not_waited_for(tmp_path, open_camera):
    settings = small_settings(tmp_path, rate=1)
    camera, microscope = open_camera(settings=settings, image_timeout_s=0.1)
    burst = camera.take(4, never)
    assert len(burst.images) < 4
    assert "no image came for 0.1" in burst.problem
    assert not microscope.core.isSequenceRunning()


def test_a_burst_can_be_stopped(tmp_path, open_camera):
    camera, _ = open_camera(settings=small_settings(tmp_path, rate=1))
    assert len(camera.take(4, lambda: True).images) < 4


def test_a_camera_whose_thread_fails_says_why(tmp_path, open_camera):
    camera, microscope = open_camera(buffer_mb=16)
    microscope.set_property("Camera", "TruthFile", str(tmp_path / "truth.csv"))
    (tmp_path / "truth.csv").mkdir()
    with pytest.raises(SourceError, match=r"Camera does not start.*truth\.csv"):
        camera.take(2, never)


def test_a_camera_that_changes_its_format_is_refused(open_camera):
    settings = MicroscopeSettings(config="MMConfig_demo.cfg", exposure_ms=1.0)
    camera, microscope = open_camera(settings=settings)
    assert [len(camera.take(3, never).images) for _ in range(3)] == [3, 3, 3]
    microscope.set_property("Camera", "Binning", "2")
    with pytest.raises(SourceError, match="do not change the image format"):
        camera.take(3, never)


def test_an_adapter_of_micro_manager_counts_each_burst_from_its_beginning(open_camera):
    settings = MicroscopeSettings(config="MMConfig_demo.cfg", exposure_ms=1.0)
    camera, _ = open_camera(settings=settings)
    assert [camera.take(5, never).lost for _ in range(4)] == [0, 0, 0, 0]
