"""The scripts for clusters in `examples/cluster` call liveptv as it is."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import typer

from liveptv.batch.recordings.part import Part
from liveptv.cli.main import app
from liveptv.models import SHIPPED_MODEL
from stream.errors import ConfigurationError

CLUSTER = Path(__file__).parents[2] / "examples" / "cluster"
SHELL = sorted(CLUSTER.glob("*.sh"))
needs_bash = pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix shell")


def options_of(command):
    return {
        option
        for parameter in typer.main.get_command(app).commands[command].params
        for option in parameter.opts
    }


def called(text):
    """The calls of liveptv in a script: each command with the options that follow it."""
    joined = re.sub(r'["\',]|\\\n', " ", text)
    for call in re.finditer(r"\bliveptv +(batch|train)\b([^\n]*(?:\n +[^\n]*--[^\n]*)*)", joined):
        yield call.group(1), set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", call.group(2)))


@pytest.mark.parametrize("path", sorted(CLUSTER.iterdir()), ids=lambda path: path.name)
def test_every_option_that_a_script_gives_to_liveptv_exists(path):
    text = path.read_text(encoding="utf-8")
    calls = [(command, options) for command, options in called(text) if options]
    assert calls, f"{path.name} calls liveptv with no option"
    for command, options in calls:
        assert options <= options_of(command), path.name


def test_the_python_script_is_python():
    tree = ast.parse((CLUSTER / "batch_dask.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)


@needs_bash
@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_a_shell_script_can_be_read_and_its_directives_come_first(path):
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    lines = path.read_text(encoding="utf-8").splitlines()
    commands = [number for number, line in enumerate(lines) if line and not line.startswith("#")]
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert directives
    assert max(directives) < min(commands)  # SLURM reads none behind the first command


def in_path(folder, **programs):
    """A folder of programs to be found before others."""
    folder.mkdir()
    for name, text in programs.items():
        path = folder / name
        path.write_text(f"#!{'/bin/bash'}\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@needs_bash
@pytest.mark.slow
def test_the_jobs_of_an_array_do_each_recording_once(tmp_path):
    recordings = tmp_path / "recordings"
    (recordings / "day 2").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = ["a", "b c", "day 2/d"]
    for name in names:
        images = rng.normal(200, 2, (4, 64, 64)).astype(np.uint8)
        tifffile.imwrite(recordings / f"{name}.tif", images, photometric="minisblack")
    environment = in_path(tmp_path / "bin", liveptv=f'exec "{sys.executable}" -m liveptv "$@"')
    out = tmp_path / "results"
    options = ["--pixel-size", "0.8", "--frame-rate", "24", "--set", "detector.refine=false"]
    done = []
    for task in (5, 6):  # an array need not begin at 1
        job = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "2"}
        command = ["bash", CLUSTER / "batch_array.sh", recordings, SHIPPED_MODEL, out, *options]
        ended = subprocess.run(
            command, env=environment | job | {"SLURM_CPUS_PER_TASK": "1"}, capture_output=True, check=False
        )
        assert ended.returncode == 0, ended.stderr.decode()
        done.append(
            {str(path.relative_to(out)).replace(".done.json", "") for path in out.rglob("*.done.json")}
        )
        assert (out / f"batch.{task - 4}-of-2.csv").is_file()
    assert len(done[0]) == 2
    assert done[1] == {name.replace("/", os.sep) for name in names}
    markers = [json.loads(path.read_text()) for path in out.rglob("*.done.json")]
    assert [marker["result"]["frames"] for marker in markers] == [4, 4, 4]


@needs_bash
def test_the_training_script_starts_torchrun_on_the_first_node_for_each_core(tmp_path):
    environment = in_path(
        tmp_path / "bin",
        srun='exec "$@"',
        scontrol='[ "$1 $2 $3" = "show hostnames node[7-8]" ] && printf "node7\\nnode8\\n"',
        torchrun='printf "%s\\n" "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT" "$@"',
    )
    job = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "31"}
    command = ["bash", CLUSTER / "train.sh", "c.h5", "m.onnx", "--minutes", "5"]
    for more, processes in (({"SLURM_CPUS_PER_TASK": "6"}, "6"), ({"SLURM_GPUS_ON_NODE": "4"}, "4")):
        ended = subprocess.run(
            command, env=environment | job | more, capture_output=True, check=True, text=True
        )
        patience, *given = ended.stdout.splitlines()
        assert int(patience) < 600  # SLURM kills what is left then
        launcher, program = given[: given.index("-m")], given[given.index("-m") :]
        options = dict(zip(launcher[::2], launcher[1::2], strict=True))
        assert options["--nnodes"] == "2"
        assert options["--nproc-per-node"] == processes
        assert options["--rdzv-endpoint"] == "node7:29500"
        assert program[:4] == ["-m", "liveptv", "train", "c.h5"]
        assert program[-2:] == ["--minutes", "5"]
        assert "--checkpoint" in program


def test_the_shares_of_a_batch_are_all_of_it_and_none_twice():
    for items in range(12):
        for of in range(1, 8):
            shares = [Part(number, of).taken(range(items)) for number in range(1, of + 1)]
            assert sorted(one for share in shares for one in share) == list(range(items))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert Part.read("3/40") == Part(3, 40)
    assert Part.read("3/40").named("batch.csv") == "batch.3-of-40.csv"
    for text in ("0/4", "5/4", "1", "1/0", "a/b", "-1/3", "1/2/3", "", "1/99999999", "\u0661/2"):
        with pytest.raises(ConfigurationError, match="as 3/40"):
            Part.read(text)
