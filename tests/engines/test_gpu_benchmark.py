"""The parts of the GPU's benchmark, on the processor: they run, and what they say is so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from host_device import HostDevice

from engines.cuda.torch_runner import TorchBackEnd
from engines.network.model import OnnxModel

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu_engine
import gpu_material
import gpu_parts

SHAPE = (192, 256)


@pytest.fixture
def device():
    opened = HostDevice()
    yield opened
    opened.close()


@pytest.mark.parametrize("half", [False, True])
def test_agreement_is_found_for_every_kind_of_frame(device, half):
    rows = list(gpu_parts.check(TorchBackEnd(device, half=half), gpu_material.SHIPPED, SHAPE, 6))
    assert [(row["bits"], row["flat_field"]) for row in rows] == [
        (8, False),
        (8, True),
        (16, False),
        (16, True),
    ]
    assert all(row["passed"] for row in rows), rows
    assert all(row["sure"] > 5 for row in rows)


def test_the_engine_is_timed_with_a_large_network_as_well(device, tmp_path):
    path = gpu_material.make_large(tmp_path)
    rows = list(gpu_parts.engine_rows(TorchBackEnd(device, half=False), path, SHAPE, 5, 0.2, (False,)))
    assert len(rows) == 1
    for row in rows:
        assert row["model"] == "large"
        assert row["frames_per_s"] > 0
        assert 0 < row["latency_p50_ms"] <= row["latency_p99_ms"] <= row["latency_max_ms"]


def test_the_parts_of_a_frame_are_timed(device):
    row = gpu_parts.parts_of_a_frame(TorchBackEnd(device, half=False), gpu_material.SHIPPED, SHAPE, 0.1)
    assert row["frames_per_s_1_slots"] > 0
    assert row["frames_per_s_3_slots"] > 0
    assert row["decode_ms"] > 0


def test_both_ways_to_fit_are_timed_and_compared(device):
    (row,) = gpu_parts.fit_rows(device, SHAPE, (3,))
    assert row["as_many"]
    assert row["xy_px"] < 0.01
    assert row["z_um"] < 0.1
    assert row["processor_ms"] > 0
    assert row["batched_ms"] > 0


def test_the_start_with_references_is_compared_with_onnx_runtime(device, tmp_path):
    row = gpu_parts.with_flat_field(TorchBackEnd(device, half=True), gpu_material.SHIPPED, SHAPE, tmp_path)
    assert "0 are missing and 0 are new" in row["agreement"]


def test_a_part_that_fails_is_recorded_and_the_others_are_kept(tmp_path):
    path = tmp_path / "rows.json"
    record = gpu_engine.Record(path, {"gpu": "none"})
    record.do("first", lambda: {"part": "first", "value": 1 / 3})
    record.do("second", lambda: iter([{"part": "second"}, {}["missing"]]))
    content = json.loads(path.read_text("utf-8"))
    assert content["rows"][0] == {"part": "first", "value": 0.3333}
    assert content["rows"][1]["failed"].startswith("KeyError")


def test_its_pictures_are_no_zeros_and_no_two_are_alike():
    model = OnnxModel(gpu_material.SHIPPED)
    one, other = (gpu_material.picture(model, SHAPE, np.uint8, 5, seed) for seed in (0, 1))
    assert 100 < np.median(one) < 200
    assert (one != other).mean() > 0.5
