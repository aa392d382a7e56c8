import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from acquisition.recording import open_stack
from acquisition.references import read_image
from liveptv.cli import run_command_line
from liveptv.config import build_experiment

CONFIG = """
#py pyDevice,Camera,acquisition.simulated.devices,SimulatedCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py Property,Camera,Width,160
#py Property,Camera,Height,128
#py Property,Camera,ParticlesPerFrame,10
#py Property,Camera,FrameRate,100
#py Property,Camera,Diffusion_um2_s,0
#py Property,Camera,RealTime,{real_time}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
"""

EXPERIMENT = """
[microscope]
config = "{config}"
pixel_size_um = 0.8
[microscope.properties]
"Camera.ParticlesFile" = "{truth}"
[scan]
start_um = 120
stop_um = 180
step_um = {step}
settle_s = 0.0
images = 3
end_um = 100
light = "Camera.Lamp"
bright_properties = {{ "Camera.Particles" = 0 }}
"""


@pytest.fixture
def experiment(tmp_path):
    return make_experiment(tmp_path)


def make_experiment(folder, *, real_time=0, step=5):
    config, truth = folder / "small.cfg", folder / "particles.csv"
    config.write_text(CONFIG.format(real_time=real_time))
    path = folder / "scan.toml"
    path.write_text(EXPERIMENT.format(config=config.as_posix(), truth=truth.as_posix(), step=step))
    return path


def run(*arguments):
    return run_command_line([str(argument) for argument in arguments])


def failure(capsys, *arguments):
    status = run(*arguments)
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ")
    assert "\n" not in err
    return status, err


def positions(path):
    stack = open_stack(path)
    try:
        return [stack.read(index).focus_um for index in range(stack.info.planes)], stack.info
    finally:
        stack.close()


def test_a_scan_needs_no_questions_on_the_simulated_microscope(tmp_path, experiment, capsys):
    output = tmp_path / "beads.ome.tif"
    assert run("scan", experiment, "-o", output) == 0
    focus_um, info = positions(output)
    assert (info.planes, info.height, info.width, info.pixel_size_um) == (13 * 3, 128, 160, 0.8)
    np.testing.assert_allclose(focus_um, np.repeat(120 + 5.0 * np.arange(13), 3), atol=0.5)
    assert "13 in" in capsys.readouterr().out
    images = tifffile.imread(output)
    bright, dark = read_image(tmp_path / "beads.bright.tif"), read_image(tmp_path / "beads.dark.tif")
    assert dark.max() == 0
    assert bright.std() < 2
    assert abs(bright.mean() - np.median(images)) < 2
    assert bright.min() - images.min() > 10
    assert (tmp_path / "particles.csv").read_text().startswith("particle,x_um,y_um,height_um\n")


def test_particles_that_stand_still_look_the_same_in_every_repeat_and_move_only_in_depth(
    tmp_path, experiment
):
    output = tmp_path / "beads.ome.tif"
    quiet = ["--set", 'microscope.properties."Camera.SNR"=1e6']
    assert run("scan", experiment, "-o", output, "--no-references", *quiet) == 0
    images = tifffile.imread(output).astype(int)
    assert np.abs(images - images[:, :1]).max() <= 1
    assert np.abs(images[0, 0] - images[-1, 0]).max() > 10
    assert not (tmp_path / "beads.bright.tif").exists()


def test_a_zarr_is_written_where_its_name_says_so(tmp_path, experiment):
    output = tmp_path / "beads.ome.zarr"
    assert run("scan", experiment, "-o", output, "--dark") == 0
    focus_um, info = positions(output)
    assert (info.axes, info.lead) == ("TZ", (3, 13))
    np.testing.assert_allclose(focus_um[:13], 120 + 5.0 * np.arange(13), atol=0.5)
    assert (tmp_path / "beads.dark.tif").exists()
    assert not (tmp_path / "beads.bright.tif").exists()


@pytest.fixture
def moves(monkeypatch):
    """Where the focus was sent."""
    from acquisition.microscope.microscope import Microscope

    sent, move = [], Microscope.move_focus
    monkeypatch.setattr(
        Microscope,
        "move_focus",
        lambda self, position_um: (sent.append(position_um), move(self, position_um)),
    )
    return sent


def test_ctrl_c_leaves_the_focus_safe_and_the_scan_to_be_gone_on_with(
    tmp_path, experiment, capsys, monkeypatch, moves
):
    from acquisition.scan.zscan import ZScan

    keep, output = ZScan._keep, tmp_path / "beads.ome.tif"

    def interrupted(self, plane, taken):
        keep(self, plane, taken)
        if plane == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ZScan, "_keep", interrupted)
    status, err = failure(capsys, "scan", experiment, "-o", output)
    assert status == 1
    assert "stopped by the user; 5 of 13 planes are kept: continue with --resume" in err
    assert moves[-1] == 100
    monkeypatch.setattr(ZScan, "_keep", keep)
    status, err = failure(capsys, "scan", experiment, "-o", output)
    assert (status, "--resume" in err) == (1, True)
    assert run("scan", experiment, "-o", output, "--resume") == 0
    assert moves[-1] == 100
    assert tifffile.imread(output).shape == (13, 3, 128, 160)
    assert [path.name for path in tmp_path.glob("beads.*")].count("beads.ome.tif.part") == 0


def test_a_scan_that_fails_says_where_and_leaves_the_focus_safe(tmp_path, experiment, capsys, moves):
    status, err = failure(
        capsys,
        *("scan", experiment, "-o", tmp_path / "beads.ome.tif"),
        *("--set", 'microscope.properties."Camera.DropEvery"=2'),
    )
    assert status == 1
    assert "plane 0 at 120 um cannot be taken in 3 tries" in err
    assert "0 of 13 planes are kept" in err
    assert moves[-1] == 100


def test_references_can_be_taken_afterwards(tmp_path, experiment, moves):
    output = tmp_path / "beads.ome.tif"
    assert run("scan", experiment, "-o", output, "--no-references") == 0
    before = output.read_bytes()
    assert run("scan", experiment, "-o", output, "--resume") == 0
    assert output.read_bytes() == before
    assert read_image(tmp_path / "beads.dark.tif").max() == 0
    assert moves[-2:] == [pytest.approx(150, abs=0.5), 100]


@pytest.mark.parametrize(
    ("arguments", "status", "what"),
    [
        (["--bright", "--no-references"], 2, "contradicts"),
        (["--resume", "--overwrite"], 2, "pass only one of them"),
        (["--set", "scan.start_um=-9000", "--set", "scan.stop_um=-8900"], 1, "plane 0 at -9000 um"),
        (["--set", "limits.max_focus_um=150"], 2, "outside the limits"),
        (["--set", "scan.light=Camera.Nothing"], 2, "has no property 'Nothing'"),
        (["--set", "scan.bright_properties={}"], 2, "needs a person"),
        (["--set", "scan.range_um=20"], 2, "range_um alone"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, experiment, capsys, arguments, status, what):
    found, err = failure(capsys, "scan", experiment, "-o", tmp_path / "beads.ome.tif", *arguments)
    assert (found, what in err) == (status, True), err
    assert not (tmp_path / "beads.ome.tif").exists()


def test_an_existing_scan_is_not_replaced_unasked(tmp_path, experiment, capsys):
    output = tmp_path / "beads.ome.tif"
    output.write_bytes(b"precious")
    assert failure(capsys, "scan", experiment, "-o", output)[0] == 1
    assert output.read_bytes() == b"precious"
    assert run("scan", experiment, "-o", output, "--overwrite", "--no-references") == 0
    assert positions(output)[1].planes == 39


def test_replacing_a_scan_that_is_interrupted_goes_on_with_the_new_one(
    tmp_path, experiment, capsys, monkeypatch
):
    from acquisition.scan.zscan import ZScan

    output, dark = tmp_path / "beads.ome.tif", tmp_path / "beads.dark.tif"
    output.write_bytes(b"the old scan")
    dark.write_bytes(b"the old reference")
    keep = ZScan._keep

    def interrupted(self, plane, taken):
        keep(self, plane, taken)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ZScan, "_keep", interrupted)
    assert "1 of 13 planes" in failure(capsys, "scan", experiment, "-o", output, "--overwrite")[1]
    assert output.read_bytes() == b"the old scan"
    assert not dark.exists()
    aside = tmp_path / "beads.dark.tif.replaced"
    assert aside.read_bytes() == b"the old reference"
    monkeypatch.setattr(ZScan, "_keep", keep)
    assert run("scan", experiment, "-o", output, "--resume") == 0
    assert positions(output)[1].planes == 39
    assert read_image(dark).max() == 0
    assert not aside.exists()


def test_an_experiment_without_a_scan_is_refused(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text('[microscope]\nconfig = "simulated"\n')
    assert "[scan]" in failure(capsys, "scan", path, "-o", tmp_path / "beads.ome.tif")[1]


def test_a_person_is_asked_where_the_microscope_cannot_do_it_alone(tmp_path, experiment):
    from acquisition.scan.paths import ScanPaths
    from liveptv.config import load_experiment
    from liveptv.workflows.scan import run_scan

    asked, notes = [], []

    def answer(question):
        asked.append(question)
        return "light" in question and "particles" not in question

    loaded = load_experiment(experiment)
    values = loaded.model_dump(exclude_unset=True)
    del values["scan"]["light"], values["scan"]["bright_properties"]
    outcome = run_scan(
        build_experiment(values, "test"),
        ScanPaths(tmp_path / "beads.ome.tif"),
        ask=answer,
        on_progress=lambda _: None,
        on_note=notes.append,
    )
    assert [question.split(":")[0] for question in asked] == ["Bright reference", "Dark reference"]
    assert [path.name for path in outcome.references] == ["beads.dark.tif"]
    assert "no bright reference; --resume takes it later" in notes


@pytest.mark.slow
def test_a_scan_that_was_killed_goes_on_where_it_was(tmp_path):
    experiment, output = make_experiment(tmp_path, real_time=1, step=2), tmp_path / "beads.ome.tif"
    command = [sys.executable, "-m", "liveptv", "scan", str(experiment), "-o", str(output), "--no-references"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        journal = output.with_name("beads.ome.tif.journal.jsonl")
        deadline_s = time.monotonic() + 240
        while not journal.exists() or journal.read_bytes().count(b"\n") < 6:
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.kill()
    done = [json.loads(line) for line in journal.read_bytes().split(b"\n")[1:-1]]
    assert run("scan", experiment, "-o", output, "--no-references", "--resume") == 0
    images = tifffile.imread(output)
    focus_um, _ = positions(output)
    assert images.shape == (31, 3, 128, 160)
    np.testing.assert_allclose(focus_um, np.repeat(120.0 + 2 * np.arange(31), 3), atol=1 / 3)
    assert [focus_um[3 * record["plane"]] for record in done] == [record["focus_um"] for record in done]
    assert (images.reshape(31, -1).max(axis=1) > 0).all()


def test_the_example_asks_no_questions():
    from liveptv.config import load_experiment

    scan = load_experiment(Path(__file__).parents[2] / "examples" / "scan.toml").scan
    assert scan is not None
    assert scan.light
    assert scan.bright_properties
