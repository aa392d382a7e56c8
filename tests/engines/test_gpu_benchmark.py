"""The GPU's benchmark, rehearsed on the processor: all of its parts run, and what they say is so."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxscript")
pytest.importorskip("nvidia.cuda_nvrtc", reason="no nvidia-cuda-nvrtc for this system")
if not (shutil.which("gcc") or shutil.which("clang")):
    pytest.skip("no C compiler", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu_material
import gpu_roads
from gpu_frames import latency, throughput
from gpu_parts import PARTS, Task

from engines.network.model import OnnxModel

BENCHMARKS = Path(gpu_roads.__file__).parent
SHAPE = (192, 256)
ROADS = {road.name: road for road in gpu_roads.roads(rehearse=True)}


def task(folder, model="small", large=None, road="rtx"):
    return Task(road, model, 10.0, True, folder, 60.0, large)


def test_a_rehearsal_does_all_parts_and_keeps_their_rows(tmp_path):
    path = tmp_path / "rows.json"
    given = ["--rehearse", "--json", str(path), "--large", str(gpu_material.SHIPPED), "--live-hz", "30"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_engine.py"), *given],
        capture_output=True,
        text=True,
        timeout=450,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text("utf-8"))
    assert content["device"].startswith("none")
    assert content["rehearsal"]
    rows = content["rows"]
    assert not [row for row in rows if "failed" in row], rows
    kinds = {(row.get("part"), row.get("what")) for row in rows}
    assert kinds >= {
        ("start", "start"),
        ("agreement", "agreement"),
        ("speed", "start"),
        ("speed", "engine"),
        ("speed", "memory"),
        ("speed", "spent"),
        ("fit", "fit"),
    }
    assert all(row["as_many"] and row["off_se"] < 1e-4 for row in rows if row.get("what") == "fit")
    agreement = [row for row in rows if row.get("what") == "agreement"]
    assert [(row["half"], row["bits"], row["flat_field"]) for row in agreement] == [
        (True, 8, False),
        (True, 16, True),
        (False, 8, False),
        (False, 16, True),
    ]
    assert all(row["passed"] and row["sure"] > 5 for row in agreement)
    timed = [row for row in rows if row.get("what") == "engine" and row["road"] == "rtx"]
    assert {row["fit"] for row in timed if row["half"]} == {"", "gpu", "processor"}
    for row in timed:
        assert 0 < row["latency_p50_ms"] <= row["latency_p99_ms"] <= row["latency_max_ms"]
        assert row["found_per_frame"] > 3
    spent = [row for row in rows if row.get("what") == "spent"]
    assert len(spent) == 4
    for row in spent:
        named = ("to_pinned_ms", "copy_in_ms", "program_ms", "copy_out_ms", "decode_ms", "answer_bytes")
        assert all(row[name] > 0 for name in named)
    first, *_, last = (
        row for row in rows if row.get("what") == "start" and row["road"] == "rtx" and row["half"]
    )
    assert any("built in" in text for text in first["said"])
    assert not last["said"], "what was built and compiled first is not used again"
    (live,) = [row for row in rows if row.get("part") == "live" and "exposed" in row]
    assert live["unaccounted"] == 0
    assert live["exposed"] == live["tracked"] + sum(live["declared"].values())
    assert len([row for row in rows if "target" in row]) == 3


def test_torch_is_rehearsed_where_it_is_installed(tmp_path):
    pytest.importorskip("torch")
    rows = list(PARTS["start"](task(tmp_path, road="torch")))
    assert [row["half"] for row in rows] == [True, False]
    assert all("0 are missing and 0 are new" in row["agreement"] for row in rows)


def test_a_large_network_with_random_weights_is_timed_with_the_finds_of_the_small_one(tmp_path):
    pytest.importorskip("torch")
    path = gpu_material.make_large(tmp_path)
    assert OnnxModel(path).card.size == "large"
    images = task(tmp_path).images(3)
    found = {}
    for lends in (False, True):
        with closing(ROADS["rtx"].open(path, tmp_path, half=True, refine=False)) as engine:
            if lends:
                finder = ROADS["rtx"].open(gpu_material.SHIPPED, tmp_path, half=True, refine=False)
                gpu_material.lend_finds(engine, finder, images)
            found[lends] = throughput(engine, gpu_material.frames_of(images), 0.2)["found_per_frame"]
    assert found[False] < 1
    assert found[True] > 3


class Slow:
    """An engine that takes 20 ms to take a frame, and then has its result."""

    def __init__(self):
        self.pending = 0

    def submit(self, _frame):
        time.sleep(0.02)
        self.pending += 1

    def results(self, _timeout_s):
        self.pending, ready = 0, self.pending
        return [()] * ready


def test_latency_counts_from_when_the_camera_has_the_frame_and_not_from_when_the_engine_takes_it():
    row = latency(Slow(), itertools.repeat(None), 1000.0, 0.01)
    assert row["latency_max_ms"] > 10 * 20 - 10
    assert row["latency_p50_ms"] > 5 * 20 - 5
    assert row["late"] == 10


def test_its_pictures_are_no_zeros_and_no_two_are_alike():
    model = OnnxModel(gpu_material.SHIPPED)
    one, other = (gpu_material.picture(model, SHAPE, np.uint8, 5, seed) for seed in (0, 1))
    assert 100 < np.median(one) < 200
    assert (one != other).mean() > 0.5
