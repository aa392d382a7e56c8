"""After an acquisition was killed its devices are opened anew, and nothing is started by that."""

import pytest

from acquisition.safety.rescue import core_device, make_safe_anew, only
from acquisition.settings import LimitsSettings, MicroscopeSettings
from acquisition.simulated.settings_log import read_settings
from stream.errors import ConfigurationError

REAL = """# a real microscope
Property,Core,Initialize,0
Device,COM3,SerialManager,COM3
Device,COM4,SerialManager,COM4
Device,Camera,HamamatsuHam,HamamatsuHam_DCAM
Device,Stand,NikonTI,TIScope
Device,ZDrive,NikonTI,TIZDrive
Device,Syringe,NewEra,Pump
Property,Syringe,Port,COM3
Property,COM3,BaudRate,19200
Property,Stand,Port,COM4
Parent,ZDrive,Stand
Property,Core,Initialize,1
Property,Core,Camera,Camera
Property,Core,Focus,ZDrive
Property,Syringe,FlowRate,0.0246
Property,COM3,Verbose,1
ConfigGroup,System,Startup,Syringe,FlowRate,0.0246
""".splitlines()

SIMULATED = """
#py pyDevice,Camera,acquisition.simulated.devices,SimulatedCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py pyDevice,Pump,acquisition.simulated.devices,SimulatedPump
#py pyDevice,Shutter,acquisition.simulated.devices,SimulatedShutter
#py Property,Pump,LogFile,{log}
#py Property,Focus,LogFile,{log}
#py Property,Shutter,LogFile,{log}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
#py Property,Pump,FlowRate,0.0246
#py Property,Shutter,State,1
"""
LIMITS = LimitsSettings(safe_flow_ul_s=0.001, min_focus_um=100, max_focus_um=200, safe_focus_um=120)


def test_a_pump_comes_with_its_port_and_what_the_port_needs_and_nothing_is_started():
    assert only(REAL, ["Syringe"]) == [
        "Device,COM3,SerialManager,COM3",
        "Device,Syringe,NewEra,Pump",
        "Property,Syringe,Port,COM3",
        "Property,COM3,BaudRate,19200",
        "Property,Core,Initialize,1",
    ]


def test_a_drive_comes_with_the_hub_that_it_hangs_on_and_the_hubs_port():
    kept = only(REAL, ["ZDrive"])
    assert {line.split(",")[1] for line in kept if line.startswith("Device")} == {"ZDrive", "Stand", "COM4"}
    assert "Parent,ZDrive,Stand" in kept
    assert not any("Camera" in line for line in kept)


def test_a_device_that_is_not_there_brings_nothing():
    assert only(REAL, ["Nobody"]) == ["Property,Core,Initialize,1"]
    assert core_device(REAL, "Focus") == "ZDrive"
    assert core_device(REAL, "Shutter") == ""


@pytest.mark.parametrize("named", [{}, {"pump": "Pump"}, {"pump": "Pump", "focus": "Focus"}])
def test_pump_shutter_and_focus_are_made_safe_and_read_back(tmp_path, named):
    config, log = tmp_path / "scope.cfg", tmp_path / "settings.jsonl"
    config.write_text(SIMULATED.format(log=log))
    settings = MicroscopeSettings(config=str(config), shutter="Shutter", **named)
    known = make_safe_anew(settings, LIMITS)
    assert [device.safe for device in known] == [True, True, True]
    told = [(entry["device"], entry["value"]) for entry in read_settings(log)]
    assert sorted(told) == [("Focus", 120.0), ("Pump", 0.001), ("Shutter", False)]  # never 0.0246 again


def test_a_configuration_that_is_gone_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="no microscope configuration"):
        make_safe_anew(MicroscopeSettings(config=str(tmp_path / "gone.cfg")), LIMITS)
