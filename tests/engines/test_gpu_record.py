"""The GPU's benchmark keeps what it has: a part that fails, ends or hangs is a row, and the next goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu_engine
from gpu_record import Clock, Part, Record, rows_of, run_parts

BENCHMARKS = Path(gpu_engine.__file__).parent
TELLS = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); from gpu_record import tell_rows\n"


def python(code):
    return [sys.executable, "-c", TELLS + code]


def silent(_text):
    pass


def test_rows_come_one_by_one_and_what_else_is_printed_is_no_row():
    rows = rows_of(python("print('ROWS of trees'); tell_rows([{'one': 1}, {'two': float('nan')}])"), 60.0)
    assert list(rows) == [{"one": 1}, {"two": None}]


def test_an_error_is_the_last_row_after_those_that_were_known():
    code = "def rows():\n    yield {'one': 1}\n    raise ValueError('no\\nmemory')\ntell_rows(rows())"
    assert list(rows_of(python(code), 60.0)) == [{"one": 1}, {"failed": "ValueError: no memory"}]


def test_a_process_that_dies_is_told_with_its_last_words():
    code = (
        "import os\ndef rows():\n    yield {'one': 1}\n"
        "    print('CUDA error 700', flush=True)\n    os._exit(9)\ntell_rows(rows())"
    )
    one, failed = rows_of(python(code), 60.0)
    assert one == {"one": 1}
    assert failed["failed"] == "its process ended with status 9: CUDA error 700"


def test_a_process_that_hangs_is_stopped_and_what_it_had_told_is_kept():
    code = "import time\ndef rows():\n    yield {'one': 1}\n    time.sleep(600)\ntell_rows(rows())"
    begun_s = time.monotonic()
    assert list(rows_of(python(code), 5.0)) == [{"one": 1}, {"failed": "stopped after 5 s"}]
    assert time.monotonic() - begun_s < 60


def test_the_other_parts_go_on_and_each_says_how_long_it_took(tmp_path):
    record = Record(tmp_path / "rows.json", {"device": "none"}, silent)
    code = {"start": "import os; os._exit(2)", "speed": "tell_rows([{'frames_per_s': 1 / 3}])"}
    parts = [Part("start", 1, "torch"), Part("speed", 1, "torch", "small")]
    run_parts(parts, Clock(200.0), record, lambda part, _limit_s: python(code[part.name]))
    content = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    assert content["device"] == "none"
    failed, first_s, row, _ = content["rows"]
    assert "ended with status 2" in failed["failed"]
    assert first_s["took_s"] > 0
    assert row == {"part": "speed", "road": "torch", "model": "small", "frames_per_s": 0.3333}


def test_parts_for_which_no_time_is_left_are_told():
    record = Record(None, {}, silent)
    run_parts([Part("start", 30), Part("speed", 60)], Clock(1.0), record, lambda *_: python(""))
    assert [row["failed"] for row in record.rows] == 2 * ["not begun: 1 s were not enough for all parts"]


def test_time_is_shared_as_wanted_and_never_more_than_wanted():
    now_s = [0.0]
    clock = Clock(100.0, lambda: now_s[0])
    first, second, third = (Part(name, wants_s) for name, wants_s in (("a", 40), ("b", 120), ("c", 40)))
    assert clock.limit_s(first, [second, third]) == 20
    now_s[0] = 10.0  # it took less
    assert clock.limit_s(second, [third]) == pytest.approx(67.5)
    now_s[0] = 20.0
    assert clock.limit_s(third, []) == 40
    now_s[0] = 200.0
    assert clock.limit_s(third, []) == 0


def test_a_run_that_is_killed_leaves_what_it_had_and_no_process(tmp_path):
    path = tmp_path / "rows.json"
    slow = (
        TELLS
        + "import os, time\ndef rows():\n    yield {'pid': os.getpid()}\n    time.sleep(600)\ntell_rows(rows())"
    )
    code = (
        f"from pathlib import Path; from gpu_record import Clock, Part, Record, run_parts\n"
        f"record = Record(Path({str(path)!r}), {{'device': 'none'}})\n"
        f"command = [sys.executable, '-c', {slow!r}]\n"
        "run_parts([Part('speed', 500)], Clock(500.0), record, lambda *_: command)"
    )
    process = subprocess.Popen(python(code), stdout=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.kill()
    process.wait()
    (row,) = json.loads(path.read_text("utf-8"))["rows"]
    while psutil.pid_exists(row["pid"]) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not psutil.pid_exists(row["pid"])


def looked(*usable, tried=()):
    rows = [{"road": road, "usable": True, "could_be_tried": False} for road in usable]
    rows += [{"road": road, "usable": False, "could_be_tried": True} for road in tried]
    return [{"gpus": ["NVIDIA H200, 580.159"]}, *rows, {"took_s": 2.0}]


def test_the_first_road_is_measured_whole_before_the_second():
    parts = gpu_engine.plan(looked("rtx", "torch", "openvino", "onnxruntime"))
    assert parts[0].name == "prepare"
    roads = list(dict.fromkeys(part.road for part in parts if part.road))
    assert roads == ["rtx", "torch", "openvino", "onnxruntime"]
    assert [part.road for part in parts if part.name == "live"] == ["rtx"]
    assert not [part for part in parts if (part.name, part.road) == ("agreement", "openvino")]


def test_a_library_that_refuses_the_gpu_is_tried_for_what_it_says_itself():
    parts = gpu_engine.plan(looked("torch", "onnxruntime", tried=("rtx",)))
    assert [part.name for part in parts if part.road == "rtx"] == ["start"]
    assert [part.road for part in parts if part.name == "live"] == ["torch"]


def test_the_fits_kernel_is_timed_on_an_nvidia_gpu_that_no_library_here_can_use():
    assert "fit" in [part.name for part in gpu_engine.plan(looked("onnxruntime", tried=("rtx",)))]
    assert "fit" not in [part.name for part in gpu_engine.plan(looked("openvino", "onnxruntime"))]


def test_what_was_asked_for_is_compared_with_the_best_on_a_gpu():
    rows = [
        measured("torch", "large", "", 700.0, 4.0),
        measured("torch", "large", "gpu", 410.0, 7.0),
        measured("torch", "large", "processor", 90.0, 6.0),
        measured("torch", "small", "", 3000.0, 1.0),
        measured("onnxruntime", "large", "", 9000.0, 1.0),
    ]
    found = [(row["found"], row["reached"]) for row in gpu_engine.targets(rows)]
    assert found == [(700.0, False), (410.0, True), (6.0, False)]
    assert all(row["found"] is None and row["reached"] is None for row in gpu_engine.targets([]))


def test_frames_in_which_nothing_was_found_reach_no_target():
    rows = [measured("torch", "large", "gpu", 5000.0, 1.0) | {"found_per_frame": 3.0}]
    assert all(row["found"] is None for row in gpu_engine.targets(rows))


def test_the_summary_has_a_line_for_each_engine_and_each_failure():
    rows = [
        measured("rtx", "small", "gpu", 1234.5, 2.0) | {"half": True, "latency_p50_ms": 1.0},
        {"part": "speed", "road": "rtx", "model": "large", "failed": "stopped after 100 s"},
    ]
    _, engine, failed = gpu_engine.summary(rows).splitlines()
    assert engine.split() == ["rtx", "small", "half", "gpu", "1234.5", "1.0", "2.0"]
    assert failed == "speed rtx large: stopped after 100 s"


def measured(road, model, fit, frames_per_s, p99_ms):
    named = {"road": road, "model": model, "fit": fit, "particles": 200, "found_per_frame": 196.0}
    return named | {"frames_per_s": frames_per_s, "latency_p99_ms": p99_ms}


def test_without_a_gpu_it_says_of_each_library_why_it_cannot_run_and_ends():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_engine.py"), "--only", "nothing"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert not [row for row in rows if "failed" in row]
    roads = {row["road"]: row for row in rows if "usable" in row}
    assert roads["onnxruntime"]["usable"]
    assert all(row["usable"] or row["why_not"] for row in roads.values())
    gpu = [row for name, row in roads.items() if name != "onnxruntime"]
    gpu = [row for row in gpu if row["usable"] or row["could_be_tried"]]
    assert done.returncode == (0 if gpu else 1)
    assert ("no GPU here" in done.stderr) == (not gpu)
