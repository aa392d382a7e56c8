import json

import numpy as np
import pytest

from liveptv.bench.engine import Plan, measure_engines, parse_sizes
from liveptv.bench.latency import Latency
from liveptv.bench.latency_figure import ADDED, WAY, latency_figure
from liveptv.bench.machine import best_s, measure_limits, peak_memory_mib
from liveptv.cli.main import run_command_line
from liveptv.models import SHIPPED_MODEL


@pytest.mark.slow
def test_the_loop_is_timed_from_the_camera_to_the_first_affected_frame(tmp_path):
    rows_file, picture = tmp_path / "latency.json", tmp_path / "latency.png"
    arguments = ["bench", "latency", "--seconds", "6", "--particles", "10", "--rate", "30"]
    assert run_command_line([*arguments, "--json", str(rows_file), "--picture", str(picture)]) == 0
    rows = {row["stage"]: row for row in json.loads(rows_file.read_text())}
    assert all(0 <= row["p50_ms"] <= row["p99_ms"] <= row["max_ms"] for row in rows.values())
    parts = ("camera -> detections", "detections -> tracks", "tracks -> command", "command -> executed")
    whole = rows["camera -> executed"]["p50_ms"]
    assert sum(rows[part]["p50_ms"] for part in parts) == pytest.approx(whole, rel=0.5)
    assert rows["camera -> first affected frame"]["p50_frames"] >= 1
    assert picture.stat().st_size > 10_000
    assert run_command_line([*arguments, "--json", str(rows_file)]) == 1


def test_a_run_that_stalled_for_seconds_still_makes_a_picture(tmp_path):
    stages = {stage: np.r_[np.full(95, 2.0), np.full(5, 4000.0)] for stage in (*WAY, *ADDED)}
    frames = np.r_[np.full(95, 1), np.full(5, 130)]
    latency_figure(Latency(stages, frames, 30.0, 0)).savefig(tmp_path / "stalled.png")
    assert (tmp_path / "stalled.png").stat().st_size > 10_000


def test_what_is_not_known_is_not_measured():
    assert run_command_line(["bench", "patience"]) == 2


@pytest.mark.slow
def test_every_back_end_that_can_run_here_is_timed_beside_the_machine():
    said = []
    plan = Plan(
        {"the small one": SHIPPED_MODEL},
        sizes=[(64, 96)],
        full=(128, 160),
        particles=(5, 40),
        seconds=0.2,
        large=False,
    )
    rows = measure_engines(plan, said.append)
    by_case = {
        case: [row for row in rows if row["case"] == case] for case in ("back end", "particles", "size")
    }
    assert "onnxruntime" in {row["backend"] for row in by_case["back end"]}
    assert {row["refine"] for row in by_case["back end"]} == {False, True}
    assert all(row["particles"] == 40 for row in by_case["particles"])
    assert [(row["height"], row["width"]) for row in by_case["size"]] == [(64, 96)]
    for row in rows:
        assert 0 < row["latency_p50_ms"] <= row["latency_p99_ms"] <= row["latency_max_ms"]
        assert row["frames_per_s"] > 0
        assert row["cpu_ms_per_frame"] > 0
        assert row["peak_memory_mib"] > 50
        assert row["sgemm_gflop_s"] > 0
        assert row["model"] == "the small one"
        assert row["device"]
    assert all(10 < row["found_per_frame"] < 50 for row in by_case["particles"])


def test_sizes_are_height_and_width():
    assert parse_sizes("512x768, 64X64") == [(512, 768), (64, 64)]
    for wrong in ("512", "512x", "8x512", "512x99999", "ax2"):
        assert run_command_line(["bench", "engine", "--sizes", wrong]) == 2


def test_the_machine_itself_is_measured():
    limits = measure_limits()
    assert 0.5 < limits.copy_gb_s < 1000
    assert 0.5 < limits.sgemm_gflop_s < 10_000
    grown = np.ones(64 << 20, np.uint8)
    assert peak_memory_mib() > grown.nbytes / 2**20
    assert best_s(lambda: None, 0.01) < 0.01
