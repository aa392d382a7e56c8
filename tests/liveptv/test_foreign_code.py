import json

import pytest

from liveptv.cli import run_command_line
from liveptv.config import load_experiment
from liveptv.files import RunFiles
from liveptv.foreign_code import code_that_will_run
from liveptv.workflows import run as application

OURS = "#py pyDevice,Camera,acquisition.simulated.devices,SimulatedCamera\n"
RAISES = "raise RuntimeError('it was imported')\n"


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pumps").mkdir()
    for name in ("pumps/__init__.py", "pumps/syringe.py", "stages.py"):
        (tmp_path / name).write_text(RAISES)
    (tmp_path / "mine.py").write_text(RAISES)
    (tmp_path / "scope.cfg").write_text(
        OURS + "#py pyDevice,Pump,pumps.syringe,Syringe\n#py Device,Stage,stages,Piezo\n"
        "#py pyDevice,Laser,nowhere_at_all,Laser\nDevice,XY,DemoCamera,DXYStage\n"
    )
    path = tmp_path / "experiment.toml"
    config, controller = str(tmp_path / "scope.cfg"), str(tmp_path / "mine.py")
    path.write_text(f"[microscope]\nconfig = {config!r}\n[controller]\nfile = {controller!r}\n")
    return path


def test_each_piece_of_foreign_python_is_named_with_its_file_and_none_is_imported(experiment, tmp_path):
    lines = code_that_will_run(load_experiment(experiment, []))
    assert len(lines) == 4
    assert str(tmp_path / "mine.py") in lines[0]
    assert "device Pump" in lines[1]
    assert str(tmp_path / "pumps" / "syringe.py") in lines[1]
    assert "Piezo" in lines[2]
    assert str(tmp_path / "stages.py") in lines[2]
    assert "nowhere_at_all, which cannot be found" in lines[3]
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("config", ["simulated", "paper", "nothing.cfg"])
def test_our_own_devices_and_a_missing_configuration_need_no_word(config):
    assert code_that_will_run(load_experiment(None, [], base={"microscope": {"config": config}})) == []


def test_a_built_in_controller_needs_no_word():
    hold = {"hold_flow": {"target_um_s": 1.0, "max_flow_ul_s": 1.0}}
    experiment = load_experiment(None, [], base={"microscope": {"config": "simulated"}, "controller": hold})
    assert code_that_will_run(experiment) == []


def test_a_run_says_it_before_anything_is_started_and_keeps_it_in_the_event_log(
    experiment, tmp_path, monkeypatch
):
    class NothingStartedError(Exception):
        pass

    def no_session(*_arguments, **_options):
        raise NothingStartedError

    monkeypatch.setattr(application, "Session", no_session)
    files, said = RunFiles.beside(tmp_path / "tracks.h5"), []
    with pytest.raises(NothingStartedError):
        application.run_experiment(
            load_experiment(experiment, []), files, on_update=lambda _: None, on_note=said.append
        )
    written = [json.loads(line) for line in files.events.read_text().splitlines()]
    assert [event["text"] for event in written if event["kind"] == "code"] == said
    assert len(said) == 4


def test_control_says_which_controller_it_runs(experiment, tmp_path, capsys):
    run_command_line(["control", str(tmp_path / "no.h5"), str(experiment)])
    out = capsys.readouterr()
    assert f"the controller {tmp_path / 'mine.py'} is Python code and will be run" in out.out
