import csv
import json

import numpy as np
import pytest

from liveptv.cli.main import run_command_line
from stream.messages import FrameInfo, Tracks
from tracking.physics.sections.choice import profile_of
from tracking.physics.sections.shapes import Rectangle
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


CHANNEL = """
[microscope]
config = "simulated"
[channel]
width_um = 400
depth_um = 100
[controller.hold_flow_rate]
target_ul_s = 0.004
max_flow_ul_s = 0.05
"""


def test_a_controller_on_the_flow_is_shown_its_fits_too(tmp_path):
    path, experiment, output = (tmp_path / name for name in ("run.h5", "experiment.toml", "would.jsonl"))
    rng = np.random.default_rng(0)
    number = np.arange(150)
    x, y, z = rng.uniform(0, 300, 150), rng.uniform(-190, 190, 150), rng.uniform(3, 97, 150)
    speed = 50.0 * profile_of(Rectangle(400.0, 100.0)).at(y, z)
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        for frame in range(240):
            time_s = frame / 20
            info = FrameInfo("run", frame, frame, time_s, 0, time_s, focus_um=0.0, flow_ul_s=0.01)
            noise = rng.normal(0, 1, (3, 150)) * [[0.1], [0.1], [0.5]]
            writer.append(
                Tracks.from_columns(
                    info, track=number, x_um=x + speed * time_s + noise[0], y_um=y + noise[1], z_um=z + noise[2],
                    vx_um_s=speed, vy_um_s=0.0 * speed, vz_um_s=0.0 * speed, sigma_vx_um_s=1.0, sigma_x_um=0.1,
                    sigma_y_um=0.1, sigma_z_um=0.5, age_frames=frame, flags=0, detection=number,
                )
            )  # fmt: skip
        writer.finalize({}, "done")
    experiment.write_text(CHANNEL)
    assert run_command_line(["control", str(path), str(experiment), "-o", str(output)]) == 0
    first = json.loads(output.read_text().splitlines()[0])
    assert first["command"] == "set_flow"
    # The channel has 0.002 uL/s at a set-point of 0.01: twice as much needs twice the set-point.
    assert first["flow_rate_ul_s"] == pytest.approx(0.002, rel=0.02)
    assert first["value"] == pytest.approx(0.02, rel=0.05)
