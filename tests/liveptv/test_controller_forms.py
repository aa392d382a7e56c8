import json

import pytest
from page_runs import card_of

from liveptv.config import Experiment
from liveptv.monitor.controller_forms import controller_forms
from liveptv.monitor.run_view import RunView
from stream.messages import StageState, Status
from tracking.control.settings import KINDS, ControllerSettings

EXAMPLES = {
    "hold_flow": {"target_um_s": 75, "max_flow_ul_s": 0.1},
    "hold_flow_rate": {"target_ul_s": 0.02, "max_flow_ul_s": 0.1},
    "hold_shear": {"target_pa": 0.002, "max_flow_ul_s": 0.1},
    "hold_focus": {},
    "until_enough": {"slices": [10.0, 20.0], "trajectories": 5},
    "pulse_on_entry": {"min_x_um": 3.0},
    "stop_when": {"frames": 9},
}


def forms(**sections):
    made = controller_forms(Experiment.model_validate(sections).resolved())
    return {form["kind"]: {field["name"]: field for field in form["fields"]} for form in made}


def test_every_setting_of_every_controller_can_be_filled_in():
    made = forms()
    assert set(made) == set(KINDS) - {"file"}
    for kind, settings in EXAMPLES.items():
        model = ControllerSettings.model_validate({kind: settings})
        assert set(made[kind]) == set(type(getattr(model, kind)).model_fields)
    assert all(field["label"] for fields in made.values() for field in fields.values())


def test_a_form_filled_with_its_own_defaults_is_valid():
    for kind, fields in forms().items():
        filled = {name: field["default"] for name, field in fields.items() if "default" in field}
        ControllerSettings.model_validate({kind: filled | EXAMPLES[kind]})


def test_required_settings_come_first_and_units_are_those_of_the_names():
    made = controller_forms({})
    hold = next(form for form in made if form["kind"] == "hold_flow")
    assert [field["name"] for field in hold["fields"][:2]] == ["target_um_s", "max_flow_ul_s"]
    units = {field["name"]: field["unit"] for field in hold["fields"]}
    assert (units["target_um_s"], units["max_flow_ul_s"], units["axis"]) == ("µm/s", "µL/s", "")
    assert units["ul_s_per_um_s"] == "µL/s per µm/s"


def test_a_form_begins_with_the_experiments_own_settings_and_its_limits():
    assert forms(limits={"max_flow_ul_s": 0.06})["hold_flow"]["max_flow_ul_s"]["value"] == 0.06
    own = {"until_enough": {"slices": {"first_um": 0.0, "last_um": 20.0, "count": 3}, "trajectories": 7}}
    fields = forms(controller=own)["until_enough"]
    assert fields["slices"]["value"] == [0.0, 10.0, 20.0]
    assert fields["trajectories"]["value"] == 7


def test_a_controller_file_is_offered_where_the_experiment_names_it_and_nowhere_else(tmp_path):
    made = forms(controller={"file": str(tmp_path / "mine.py"), "options": {"gain": 0.5, "careful": True}})
    assert {name: field["type"] for name, field in made["file"].items()} == {
        "gain": "number",
        "careful": "flag",
    }
    assert "file" not in forms()


def test_forms_are_sent_as_json():
    text = json.dumps(controller_forms({"controller": {"hold_focus": {"reference": "wall"}}}))
    assert '"value": "wall"' in text


def viewed(**configuration):
    view = RunView()
    view.introduce(card_of(configuration={"microscope": {"config": "simulated"}, **configuration}))
    return view


@pytest.mark.parametrize(
    ("configuration", "on"),
    [
        ({}, ""),
        ({"controller": {"hold_flow": EXAMPLES["hold_flow"], "stop_when": None}}, "hold_flow"),
        ({"protocol": {"steps": []}, "controller": {"hold_flow": {}}}, "protocol"),
    ],
)
def test_the_page_knows_which_controller_a_run_begins_with(configuration, on):
    assert viewed(**configuration).summary()["control"]["on"] == on


def test_the_page_follows_the_event_log_and_the_stage_in_what_is_on_and_whether_it_works():
    view = viewed()
    event = {"kind": "controller", "text": "page asked for hold_flow", "wall_s": 0.0}
    view.happened(event | {"on": True, "controller": "hold_flow", "settings": {"target_um_s": 75}})
    gauges = {"controller_on": 1.0, "controller_works": 1.0, "measured_velocity_um_s": 74.0}
    view.take(Status("r", "control", StageState.RUNNING, {}, gauges))
    control = view.summary()["control"]
    assert (control["on"], control["works"]) == ("hold_flow", True)
    assert control["settings"] == {"target_um_s": 75}
    assert control["measured"] == {"velocity_um_s": 74.0}
    view.take(Status("r", "control", StageState.RUNNING, {}, gauges | {"controller_works": 0.0}))
    assert not view.summary()["control"]["works"]
    view.happened(event | {"on": False, "controller": "", "settings": {}})
    assert view.summary()["control"]["on"] == ""


def test_in_a_replay_there_is_nothing_to_control():
    view = RunView()
    view.introduce(card_of(configuration={"recording": {"path": "a.tif"}}))
    assert view.summary()["control"] is None
