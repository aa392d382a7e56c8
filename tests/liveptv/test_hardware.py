"""What the session knows of the hardware, and what it does where the acquisition can do nothing any more."""

import multiprocessing

import pytest

from acquisition.safety.hardware_state import DeviceSafety
from acquisition.simulated.settings_log import read_settings
from liveptv.config import build_experiment
from liveptv.session.hardware import Hardware, unsafe
from liveptv.session.plan import MakeSafe, Opening, Secured

SAFE = DeviceSafety("pump Pump", "the pump at 0.001 uL/s", True)
PUMP = """
#py pyDevice,Camera,acquisition.simulated.devices,SimulatedCamera
#py pyDevice,Pump,acquisition.simulated.devices,SimulatedPump
#py Property,Pump,LogFile,{log}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Pump,FlowRate,0.0246
"""


class Session:
    """The session's end of the lane, and what it noted."""

    def __init__(self, config="scope.cfg", **limits):
        limits = limits or {"safe_flow_ul_s": 0.001}
        experiment = build_experiment({"microscope": {"config": str(config)}, "limits": limits}, "the test")
        self.notes = []
        self.hardware = Hardware(experiment, lambda _kind, text, _facts: self.notes.append(text))
        ours, self.acquisition = multiprocessing.Pipe()
        self.hardware.connect(ours)


@pytest.fixture
def session():
    made = []

    def build(*arguments, **limits):
        made.append(Session(*arguments, **limits))
        return made[-1]

    yield build
    for one in made:
        one.hardware.close()


def test_the_end_of_a_run_that_is_done_is_said_as_such(session):
    one = session()
    one.acquisition.send(Opening())
    one.acquisition.send(Secured((SAFE,), "done", True))
    one.hardware.poll()
    assert one.notes == ["safe state at the end of the run: the pump at 0.001 uL/s"]


def test_what_the_acquisition_reports_is_known_and_needs_no_rescue(session):
    one = session()
    one.hardware.make_safe("enough", ends=True)
    assert one.acquisition.recv() == MakeSafe("enough", ends=True)
    one.acquisition.send(Opening())
    one.acquisition.send(Secured((SAFE,), "enough", True))
    one.hardware.wait(lambda: None, 30)
    one.hardware.acquisition_is_gone(was_a_process=True)
    assert one.hardware.is_settled
    assert one.hardware.known == (SAFE,)
    assert one.notes == ["safe state (the pump at 0.001 uL/s): enough"]


def test_an_acquisition_that_never_touched_a_device_needs_no_rescue(session):
    one = session()
    one.acquisition.close()
    one.hardware.acquisition_is_gone(was_a_process=True)
    assert one.hardware.is_settled
    assert one.hardware.known == ()


def test_a_microscope_without_a_safe_state_needs_no_rescue(session):
    one = session("scope.cfg", max_flow_ul_s=1.0)
    one.acquisition.send(Opening())
    one.hardware.acquisition_is_gone(was_a_process=True)
    assert one.hardware.known == ()


def test_the_devices_of_a_killed_acquisition_are_opened_again_and_made_safe(session, tmp_path):
    log = tmp_path / "settings.jsonl"
    config = tmp_path / "scope.cfg"
    config.write_text(PUMP.format(log=log))
    one = session(config)
    one.acquisition.send(Opening())
    one.hardware.stand_by(is_silent=True)  # nothing is touched as long as the acquisition may come back
    one.hardware.poll()
    assert one.hardware.is_settled
    one.hardware.acquisition_is_gone(was_a_process=True)
    one.hardware.settle()
    assert [device.safe for device in one.hardware.known] == [True]
    assert [entry["value"] for entry in read_settings(log)] == [0.001]
    assert one.notes[-1] == "opened again, safe state (the pump at 0.001 uL/s)"


def test_where_the_devices_cannot_be_opened_it_is_said_what_may_still_run(session, tmp_path):
    one = session(tmp_path / "gone.cfg")
    one.acquisition.send(Opening())
    one.hardware.acquisition_is_gone(was_a_process=True)
    one.hardware.settle()
    assert unsafe(one.hardware.known).startswith(
        "the pump may still run: there is no microscope configuration"
    )
    assert one.notes[-1].startswith("the pump may still run (there is no")


def test_an_acquisition_that_is_a_thread_is_not_opened_twice(session):
    one = session()
    one.acquisition.send(Opening())
    one.hardware.acquisition_is_gone(was_a_process=False)
    assert one.hardware.is_settled
    assert "cannot be killed" in unsafe(one.hardware.known)


UNSAFE = DeviceSafety("pump Pump", "the pump at 0.001 uL/s", False, "no answer", "the pump may still run")
FOCUS_SAFE = DeviceSafety("focus Focus", "the focus at 145 um", True)
BOTH = {"safe_flow_ul_s": 0.001, "min_focus_um": 140, "max_focus_um": 160, "safe_focus_um": 145.0}


def scope(tmp_path):
    log, config = tmp_path / "settings.jsonl", tmp_path / "scope.cfg"
    text = PUMP.format(log=log) + "#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus\n"
    text = text.replace(
        "Property,Core,Initialize,1", f"#py Property,Focus,LogFile,{log}\nProperty,Core,Initialize,1"
    )
    lines = text.splitlines()
    lines.insert(1, lines.pop())  # devices are loaded before they are initialised
    config.write_text("\n".join([*lines, "Property,Core,Focus,Focus", ""]))
    return config, log


def test_a_device_that_is_known_not_to_be_safe_is_opened_again_and_the_others_are_left_alone(
    session, tmp_path
):
    config, log = scope(tmp_path)
    one = session(config, **BOTH)
    one.acquisition.send(Opening())
    one.acquisition.send(Secured((UNSAFE, FOCUS_SAFE), "stopped by the user", True))
    one.hardware.poll()
    assert unsafe(one.hardware.known)
    one.hardware.acquisition_is_gone(was_a_process=True)
    assert not one.hardware.is_settled
    one.hardware.settle()
    assert not unsafe(one.hardware.known)
    assert {device.device for device in one.hardware.known} == {"pump Pump", "focus Focus"}
    assert [(entry["device"], entry["value"]) for entry in read_settings(log)] == [("Pump", 0.001)]
    one.hardware.acquisition_is_gone(was_a_process=True)  # as at the end of the session, once more
    assert one.hardware.is_settled


def test_what_was_safe_stays_known_where_the_rest_cannot_be_opened(session, tmp_path):
    one = session(tmp_path / "gone.cfg", **BOTH)
    one.acquisition.send(Opening())
    one.acquisition.send(Secured((UNSAFE, FOCUS_SAFE), "stopped by the user", True))
    one.hardware.acquisition_is_gone(was_a_process=True)
    one.hardware.settle()
    assert FOCUS_SAFE in one.hardware.known
    assert unsafe(one.hardware.known).startswith("the pump may still run: there is no microscope")
    one.hardware.acquisition_is_gone(was_a_process=True)
    assert one.hardware.is_settled
    assert len(one.hardware.known) == 2


def test_a_device_of_a_thread_that_was_not_safe_stays_so(session):
    one = session()
    one.acquisition.send(Opening())
    one.acquisition.send(Secured((UNSAFE,), "stopped by the user", True))
    one.hardware.acquisition_is_gone(was_a_process=False)
    assert one.hardware.known == (UNSAFE,)
