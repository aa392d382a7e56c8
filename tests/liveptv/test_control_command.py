import csv
import json

import numpy as np
import pytest

from liveptv.cli.main import run_command_line
from stream.messages import FrameInfo, Tracks
from tracking.trajectories.control_record import store_control
from tracking.trajectories.file import TrajectoryWriter

EXPERIMENT = """
[microscope]
config = "simulated"
[controller.hold_flow]
target_um_s = 100
max_flow_ul_s = 0.05
"""


@pytest.fixture
def recorded(tmp_path):
    """A run in which particles flowed at 50 um/s, with one command on record; returns file and experiment."""
    path, experiment = tmp_path / "run.h5", tmp_path / "experiment.toml"
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        for frame in range(200):
            info = FrameInfo("run", frame, frame, 0.02 * frame, 0, 0.02 * frame, flow_ul_s=0.01)
            number = np.arange(20)
            columns = {"track": number, "x_um": frame, "y_um": number, "vx_um_s": 50.0 + 0.1 * number}
            writer.append(Tracks.from_columns(info, **columns, flags=0, detection=number))
        writer.finalize({}, "done")
    store_control(path, [{"wall_s": 0.0, "kind": "command", "text": "", "command": "trigger"}])
    experiment.write_text(EXPERIMENT)
    return str(path), str(experiment)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_recorded_run_is_shown_to_another_controller(recorded, tmp_path, capsys, suffix):
    output = tmp_path / f"would{suffix}"
    assert run_command_line(["control", *recorded, "-o", str(output)]) == 0
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file)) if suffix == ".csv" else [json.loads(line) for line in file]
    assert {row["command"] for row in rows} == {"set_flow"}
    assert float(rows[0]["value"]) == pytest.approx(0.02, rel=0.1)  # twice the velocity needs twice the flow
    assert float(rows[0]["velocity_um_s"]) == pytest.approx(51, abs=1)
    assert float(rows[0]["flow_ul_s"]) == 0.01
    said = capsys.readouterr().out
    assert "set_flow  recorded     0   hold_flow" in said
    assert "trigger  recorded     1   hold_flow     0" in said
    assert run_command_line(["control", *recorded, "-o", str(output)]) == 1


def test_what_cannot_be_asked_or_written_is_refused(recorded, tmp_path):
    (tmp_path / "empty.toml").write_text('[microscope]\nconfig = "simulated"\n')
    assert run_command_line(["control", recorded[0], str(tmp_path / "empty.toml")]) == 2
    assert run_command_line(["control", *recorded, "-o", str(tmp_path / "would.txt")]) == 2
    assert run_command_line(["control", str(tmp_path / "none.h5"), recorded[1]]) == 1
