import subprocess
import sys

import pytest
from small_microscope import small_config, small_settings

from acquisition.microscope.core import find_config
from acquisition.microscope.devices_info import installed_devices
from acquisition.microscope.microscope import Microscope
from acquisition.settings import MicroscopeSettings
from stream.errors import ConfigurationError, SourceError


def test_a_microscope_knows_its_camera_focus_and_pump(tmp_path):
    microscope = Microscope(small_settings(tmp_path, pixel_size_um=0.8, exposure_ms=2.0))
    try:
        assert (microscope.camera, microscope.focus, microscope.pump) == ("Camera", "Focus", "Pump")
        info = microscope.info()
        assert (info.height, info.width, info.depth, info.dtype) == (256, 320, 1, "uint8")
        assert (info.pixel_size_um, info.frame_rate_hz) == (0.8, 100)
        assert microscope.read_flow() == pytest.approx(0.0246)
        assert microscope.read_exposure() == 2.0
        microscope.move_focus(160)
        microscope.wait_for_focus(5)
        assert microscope.read_focus() == pytest.approx(160, abs=0.5)
        assert microscope.focus_commanded_um == 160
    finally:
        microscope.close()


def test_a_pixel_size_that_nobody_knows_is_assumed_and_said_so(tmp_path):
    path = tmp_path / "demo.cfg"
    path.write_text(
        "Device,Camera,DemoCamera,DCam\nProperty,Core,Initialize,1\nProperty,Core,Camera,Camera\n"
    )
    microscope = Microscope(MicroscopeSettings(config=str(path)))
    try:
        assert microscope.info().pixel_size_um == 1.0
        assert "microscope.pixel_size_um" in microscope.info().description
    finally:
        microscope.close()


@pytest.mark.parametrize("config", ["nowhere.cfg", "folder/nowhere.cfg", ""])
def test_a_configuration_that_is_not_there_is_said_with_the_known_ones(config):
    with pytest.raises(ConfigurationError, match=r"simulated|not a file"):
        Microscope(MicroscopeSettings(config=config))


@pytest.mark.parametrize(
    "content", [b"", b"hello\nworld\n", b"\xff\xfe\x00\x01binary", b"# only a comment\n"]
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "wrong.cfg"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"wrong.cfg is not a configuration file") as caught:
        Microscope(MicroscopeSettings(config=str(path)))
    assert "\n" not in str(caught.value)


def test_a_configuration_from_another_code_page_loads_or_says_what_to_do(tmp_path):
    path = tmp_path / "umlaut.cfg"
    path.write_bytes("# Größe 5 µm\nDevice,Camera,DemoCamera,DCam\n".encode("cp1252"))
    try:
        Microscope(MicroscopeSettings(config=str(path), camera="Camera")).close()
    except SourceError as error:
        assert "save the file as UTF-8" in str(error)  # noqa: PT017 - depends on the machine's own code page


@pytest.mark.parametrize(
    "line",
    [
        "Device,Camera,NoSuchAdapter,DCam",
        "Device,Camera,DemoCamera,NoSuchDevice",
        "#py pyDevice,Camera,no.such.module,Camera",
        "#py pyDevice,Camera,acquisition.simulated.devices,NoSuchClass",
    ],
)
def test_a_device_that_cannot_be_loaded_is_named_in_one_line(tmp_path, line):
    path = tmp_path / "broken.cfg"
    path.write_text(f"Property,Core,Initialize,0\n{line}\nProperty,Core,Initialize,1\n")
    with pytest.raises((SourceError, ConfigurationError)) as caught:
        Microscope(MicroscopeSettings(config=str(path)))
    assert "broken.cfg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_simulated_device_that_fails_to_start_says_why(tmp_path):
    with pytest.raises(SourceError, match="condenser"):
        Microscope(small_settings(tmp_path, "Camera,CondenserNA,0.5"))


@pytest.mark.parametrize("role", ["camera", "focus", "pump", "shutter"])
def test_a_missing_device_is_refused_with_those_that_are_there(tmp_path, role):
    with pytest.raises(ConfigurationError, match=rf"microscope\.{role}.*'Nobody'.*Camera, Focus, Pump"):
        Microscope(small_settings(tmp_path, **{role: "Nobody"}))


@pytest.mark.parametrize("key", ["Camera.NoSuchProperty", "Nobody.Gain", "Camera"])
def test_a_missing_property_is_refused(tmp_path, key):
    with pytest.raises(ConfigurationError):
        Microscope(small_settings(tmp_path, properties={key: 1}))


def test_a_value_that_a_device_refuses_is_said_with_its_reason(tmp_path):
    with pytest.raises(SourceError, match=r"Camera.FrameRate"):
        Microscope(small_settings(tmp_path, properties={"Camera.FrameRate": -5}))


def test_configurations_are_found_by_path_by_name_and_beside_the_adapters(tmp_path):
    path = small_config(tmp_path)
    assert find_config(str(path)) == path.resolve()
    assert find_config("paper").name == "paper.cfg"
    assert find_config("MMConfig_demo.cfg").is_file()


def test_python_ends_cleanly_with_devices_of_either_kind_loaded():
    program = (
        "from acquisition.microscope.microscope import Microscope\n"
        "from acquisition.settings import MicroscopeSettings\n"
        "m = Microscope(MicroscopeSettings(config='MMConfig_demo.cfg'))\n"
        "m.core.startContinuousSequenceAcquisition(0)\n"
        "m.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_colour_cameras_are_refused_with_what_to_do():
    settings = MicroscopeSettings(config="MMConfig_demo.cfg", properties={"Camera.PixelType": "32bitRGB"})
    microscope = Microscope(settings)
    try:
        with pytest.raises(SourceError, match=r"colour.*PixelType"):
            microscope.info()
    finally:
        microscope.close()


DEMO_DEVICES = """Property,Core,Initialize,0
Device,DHub,DemoCamera,DHub
Device,Left,DemoCamera,DCam
Device,Right,DemoCamera,DCam
Device,Syringe,DemoCamera,DVolumetricPump
Device,Both,Utilities,Multi Camera
Property,Core,Initialize,1
Property,Both,Physical Camera 1,Left
Property,Both,Physical Camera 2,Right
Property,Core,Camera,Both
"""


@pytest.fixture
def demo_devices(tmp_path):
    path = tmp_path / "devices.cfg"
    path.write_text(DEMO_DEVICES)
    return str(path)


def test_several_cameras_that_deliver_as_one_are_refused(demo_devices):
    microscope = Microscope(MicroscopeSettings(config=demo_devices))
    try:
        with pytest.raises(SourceError, match=r"2 cameras in turn; set microscope\.camera"):
            microscope.info()
    finally:
        microscope.close()


def test_a_pump_of_micro_manager_is_found_and_set(demo_devices):
    microscope = Microscope(MicroscopeSettings(config=demo_devices, camera="Left"))
    try:
        assert microscope.pump == "Syringe"
        microscope.set_flow(0.5)
        assert microscope.read_flow() == 0.5
        assert microscope.info().name == "Left"
    finally:
        microscope.close()


def test_the_devices_of_this_computer_are_listed():
    found = installed_devices()
    assert "simulated" in found["simulated"]
    assert "MMConfig_demo.cfg" in found["configurations"]
    assert "DCam" in found["adapters"]["DemoCamera"]
