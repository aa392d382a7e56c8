import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import small_experiment, wait_until

from liveptv.cli.main import run_command_line
from liveptv.session.events import read_events
from stream.errors import ConfigurationError
from tracking.trajectories.control_record import read_control
from tracking.trajectories.file import TrajectoryFile

pytestmark = pytest.mark.slow

PROTOCOL = """
[microscope]
config = {config!r}
pixel_size_um = 0.8
[detector]
polarity = "dark"
diameter_px = 15
workers = 1
[link]
policy = "block"
[optics]
refraction_factor = 1.2
[limits]
min_focus_um = 100
max_focus_um = 200
max_flow_ul_s = 0.05
safe_flow_ul_s = 0.0
[protocol]
repeats = 2
[[protocol.steps]]
focus_um = [140, 150]
flow_ul_s = 0.02
settle_s = 0.1
seconds = 1.0
[[protocol.steps]]
focus_um = 160
flow_ul_s = 0.03
frames = 45
"""


@pytest.fixture
def experiment(tmp_path):
    config = small_experiment(tmp_path).microscope.config
    path = tmp_path / "experiment.toml"
    path.write_text(PROTOCOL.format(config=config))
    return path


def slices(tracks: Path):
    return [entry for entry in read_control(tracks) if entry["kind"] == "slice" and entry["done"]]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
def test_a_protocol_whose_session_was_killed_goes_on_where_it_stopped_in_the_same_file(experiment, tmp_path):
    tracks, events = tmp_path / "all.h5", tmp_path / "all.events.jsonl"
    command = [sys.executable, "-m", "liveptv", "run", str(experiment), "-o", str(tracks)]
    with (tmp_path / "output.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def done():
        found = read_events(events) if events.exists() else []
        return sum(e["kind"] == "slice" and e["done"] for e in found)

    wait_until(lambda: done() >= 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(300)

    def finished():
        try:
            with TrajectoryFile(tracks) as file:
                return file.finished
        except OSError:
            return False

    wait_until(finished)
    before = done()
    assert run_command_line(["run", str(experiment), "-o", str(tracks), "--resume"]) == 0
    found = slices(tracks)
    assert [entry["slice"] for entry in found] == list(range(6))
    with TrajectoryFile(tracks) as file:
        assert file.finished
        assert len(file.attributes["joined"]) == 2
        assert file.attributes["refraction_factor"] == 1.2
        frames = file.frames
    assert frames["frame"].tolist() == list(range(len(frames)))
    for entry in found:
        part = frames[entry["first_frame"] : entry["last_frame"] + 1]
        assert part["focus_um"] == pytest.approx(entry["focus_um"], abs=0.1)
        assert part["flow_ul_s"] == pytest.approx(entry["flow_ul_s"])
    assert sum(e["kind"] == "slice" and e["done"] for e in read_events(events)) == 6
    assert before >= 2
    assert {path.name for path in tmp_path.glob("all.*h5")} == {"all.h5"}
    assert run_command_line(["run", str(experiment), "-o", str(tracks), "--resume"]) == 2


def test_a_slice_that_the_limits_forbid_ends_the_run_with_the_reason(experiment, tmp_path):
    tracks = tmp_path / "refused.h5"
    arguments = ["run", str(experiment), "-o", str(tracks), "--set", "limits.max_focus_um=145"]
    assert run_command_line(arguments) == 0
    assert [entry["slice"] for entry in slices(tracks)] == [0]
    with TrajectoryFile(tracks) as file:
        assert (
            "slice 2 of 6 cannot be measured: focus 150 um is outside the limits"
            in file.attributes["end_reason"]
        )


def test_only_a_protocol_is_resumed(tmp_path):
    from liveptv.files import RunFiles
    from liveptv.workflows.resume import prepare_to_resume

    experiment = small_experiment(tmp_path)
    with pytest.raises(ConfigurationError, match="protocol"):
        prepare_to_resume(experiment, RunFiles.beside(experiment.run.output))


def test_what_was_measured_before_has_its_names_again_after_a_run_that_measured_nothing(tmp_path):
    from liveptv.files import RunFiles
    from liveptv.workflows.resume import Resumed, give_back
    from tracking.trajectories.file import TrajectoryWriter

    files, part = RunFiles.beside(tmp_path / "all.h5"), tmp_path / "all.part.h5"
    with TrajectoryWriter(part, run_id="before", attributes={}):
        pass
    before = part.read_bytes()
    (tmp_path / "all.part.events.jsonl").write_text("first\n")
    files.events.write_text("second\n")
    give_back(Resumed(small_experiment(tmp_path), part, 1), files)
    assert files.tracks.read_bytes() == before
    assert files.events.read_text() == "first\nsecond\n"
    assert not list(tmp_path.glob("*part*"))
