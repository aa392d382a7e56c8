import json
import time
from contextlib import closing

import numpy as np
import pytest
from figure_contents import drawn, panels  # noqa: F401

from engines.engine import EngineInfo
from engines.ordered_threads import OrderedWork
from engines.prediction_choice import LAG
from liveptv.bench import machine
from liveptv.bench.cpu_cost import CpuCost
from liveptv.bench.engine import Plan, measure_engines, parse_sizes
from liveptv.bench.flow_case import Film, Follower, measure_flow
from liveptv.bench.latency import Latency, _latency
from liveptv.bench.latency_figure import ADDED, WAY, latency_figure
from liveptv.bench.machine import best_s, measure_limits, peak_memory_mib
from liveptv.cli.main import run_command_line
from liveptv.models import SHIPPED_MODEL
from liveptv.session.cpu_use import CpuUse
from stream.messages import Detections, FrameInfo, StageState, Status, Tracks
from tracking.trajectories.control_record import store_control
from tracking.trajectories.file import TrajectoryWriter


class SteppingClock:
    """In the place of the module `time`: time passes when work says so."""

    def __init__(self):
        self.now_s = 0.0

    def perf_counter(self):
        return self.now_s

    def passes(self, seconds):
        self.now_s += seconds


@pytest.mark.slow
def test_the_loop_is_timed_from_the_camera_to_the_first_affected_frame(tmp_path, drawn):  # noqa: F811
    rows_file, picture = tmp_path / "latency.json", tmp_path / "latency.png"
    arguments = ["bench", "latency", "--seconds", "6", "--particles", "10", "--rate", "30"]
    assert run_command_line([*arguments, "--json", str(rows_file), "--picture", str(picture)]) == 0
    found = json.loads(rows_file.read_text())
    costs = {row["part"]: row["cpu_ms"] for row in found if "part" in row}
    parts_of_ours = ("acquire", "detect", "track", "write", "control", "session")
    assert costs["all but detection"] == pytest.approx(sum(costs[part] for part in parts_of_ours), abs=0.01)
    assert all(cost > 0 for cost in costs.values())
    assert {"detection", "camera"} < set(costs)
    rows = {row["stage"]: row for row in found if "stage" in row}
    assert all(0 <= row["p50_ms"] <= row["p99_ms"] <= row["max_ms"] for row in rows.values())
    parts = ("camera -> detections", "detections -> tracks", "tracks -> command", "command -> executed")
    whole = rows["camera -> executed"]
    assert all(
        rows[part]["p50_ms"] <= whole["max_ms"] and rows[part]["count"] == whole["count"] for part in parts
    )
    assert rows["camera -> first affected frame"]["p50_frames"] >= 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    figure = drawn[-1]  # after those of the report
    way, added, frames = panels(figure)
    assert f"{whole['count']} commands" in figure.get_suptitle()
    np.testing.assert_allclose(way.widths, [rows[part]["p50_ms"] for part in parts], atol=6e-4)
    counted = [rows[stage]["count"] for stage in ADDED]
    assert [len(line) for line in added.lines[: len(ADDED)]] == counted
    assert frames.bars.sum() == pytest.approx(100)
    assert run_command_line([*arguments, "--json", str(rows_file)]) == 1


def test_the_parts_of_each_command_s_way_add_up_to_the_whole(tmp_path):
    ms = 1_000_000
    period_s, commands = 1 / 30, range(60, 90, 3)
    tracks, taken_ns = tmp_path / "tracks.h5", 5_000 * ms
    infos = [FrameInfo("r", n, n, n * period_s, 0, 100 + n * period_s) for n in range(100)]
    with TrajectoryWriter(tracks, run_id="r", attributes={}) as writer:
        for info in infos:
            writer.append(Tracks.empty(info))
    record = []
    for k, n in enumerate(commands):
        measured = {"taken_ns": taken_ns, "tracks_ns": taken_ns + (9 + k) * ms, "detector_ms": 4.0}
        command = {
            "wall_s": 100.0,
            "text": "",
            "kind": "command",
            "command_id": str(n),
            "frame": n,
            "sent_ms": 12.0 + k,
        }
        answer = {
            "wall_s": 100.0,
            "text": "",
            "kind": "answer",
            "command_id": str(n),
            "first_frame": n + 2,
            "executed_ms": 3.0,
        }
        beat = {"wall_s": 100.0, "text": "", "kind": "measured", "frame": n, "heartbeat_ms": 1.5}
        record += [command | {"measured": measured}, answer | {"answered_ms": 5.0}, beat]
    store_control(tracks, record)
    detected_ns = {n: taken_ns + (6 + k) * ms for k, n in enumerate(commands)}
    latency = _latency(tracks, detected_ns, 30.0, 0, (512, 512))
    found = latency.stages_ms
    late = np.arange(10.0)
    np.testing.assert_allclose(found["camera -> detections"], 6 + late)
    np.testing.assert_allclose(found["camera -> executed"], 15 + late)
    np.testing.assert_allclose(sum(found[part] for part in WAY), found["camera -> executed"])
    np.testing.assert_allclose(found["camera -> command but detection"], 8 + late)
    np.testing.assert_allclose(found["camera -> first affected frame"], 2e3 * period_s, rtol=1e-6)
    assert latency.frames.tolist() == [2] * 10


def test_a_run_that_stalled_for_seconds_still_makes_a_picture(tmp_path):
    stages = {stage: np.r_[np.full(95, 2.0), np.full(5, 4000.0)] for stage in (*WAY, *ADDED)}
    frames = np.r_[np.full(95, 1), np.full(5, 130)]
    figure = latency_figure(Latency(stages, frames, 30.0, 0))
    figure.savefig(tmp_path / "stalled.png")
    way, added, in_frames = panels(figure)
    assert way.widths == pytest.approx([2.0] * len(WAY))
    assert [(len(line), *line[-1]) for line in added.lines[: len(ADDED)]] == [(100, 4000.0, 100.0)] * len(
        ADDED
    )
    assert in_frames.bars[[1, -1]] == pytest.approx([95.0, 5.0])
    assert in_frames.bars.sum() == pytest.approx(100.0)


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
    told = [row for row in rows if row["case"] == "prediction"]
    assert [row["prediction"] for row in told] == ["off", "auto"]
    assert told[1]["tracker_ms_per_frame"] > 0
    assert any("with prediction auto" in line for line in said)


class SeesTheFilm:
    """An engine that finds the particles of a film where they are, and remembers what it was told."""

    def __init__(self, film, count):
        self.film, self.told, self.waiting = film, {}, []
        rng = np.random.default_rng(1)
        self.x, self.y = rng.uniform(0, 300, count), rng.uniform(0, 200, count)
        self.predicted = 0

    @property
    def info(self):
        counts = {"predicted": self.predicted, "searched": 2 * len(self.told), "tiles_px": 0.1}
        return EngineInfo("film", "none", "cpu", details={"prediction": counts})

    @property
    def pending(self):
        return len(self.waiting)

    def submit(self, frame, predicted=None):
        self.told[frame.info.frame] = predicted
        self.predicted += 0 if predicted is None else len(predicted)
        self.waiting.append(frame)

    def results(self, timeout_s):
        done, self.waiting = self.waiting, []
        return [
            Detections.from_columns(
                frame.info, x_um=(self.x + frame.info.frame * self.film.step_px) % 300, y_um=self.y, z_um=3.0,
                sigma_x_um=0.1, sigma_y_um=0.1, sigma_z_um=0.5, brightness=9.0,
            )
            for frame in done
        ]  # fmt: skip


@pytest.mark.parametrize("tells", [True, False])
def test_the_bench_tells_an_engine_what_a_tracker_expects_in_its_film(tells):
    images = np.zeros((2, 200, 300), np.uint8)
    images[0, 7, 298] = 1
    film = Film(images, 20, 1.0)
    engine = SeesTheFilm(film, 20)
    follower = Follower(engine, film, tells=tells)
    follower.run(0.0, 30)
    ages = {number - known.info.frame for number, known in engine.told.items() if known is not None}
    assert ages == ({LAG} if tells else set())
    assert (len(engine.told[29] or ()) >= 15) == tells
    assert follower.found == [20] * 30


def test_a_film_moves_all_particles_by_one_step_and_lets_them_in_again():
    images = np.zeros((2, 8, 30), np.uint8)
    images[:, 3, 25] = 100
    film = Film(images, 15, 1.0)
    where = [int(np.argmax(film.next().image[3])) for _ in range(6)]
    assert where == [(25 + n * film.step_px) % 30 for n in range(6)]
    assert film.step_px >= 1


def test_a_case_of_the_bench_says_what_came_from_which_way():
    images = np.zeros((2, 200, 300), np.uint8)
    film = Film(images, 20, 1.0)
    row = measure_flow(SeesTheFilm(film, 20), images, 20, 1.0, 0.0, tells=True)
    assert row["prediction"] == "auto"
    assert row["searched_per_frame"] == 2
    assert 10 < row["predicted_per_frame"] < 30  # those at the edge, missed and new, among them
    assert row["pixels_read"] == 0.1
    assert row["found_per_frame"] == 20
    plain = measure_flow(SeesTheFilm(film, 20), images, 20, 1.0, 0.0, tells=False)
    assert plain["prediction"] == "off"
    assert "predicted_per_frame" not in plain


def test_sizes_are_height_and_width():
    assert parse_sizes("512x768, 64X64") == [(512, 768), (64, 64)]
    for wrong in ("512", "512x", "8x512", "512x99999", "ax2"):
        assert run_command_line(["bench", "engine", "--sizes", wrong]) == 2


def test_the_machine_itself_is_measured(monkeypatch):
    clock, took_s = SteppingClock(), 0.01
    monkeypatch.setattr(machine, "time", clock)
    monkeypatch.setattr(machine.np, "matmul", lambda *_, **__: clock.passes(took_s))
    monkeypatch.setattr(machine.np, "copyto", lambda *_: clock.passes(2 * took_s))
    limits = measure_limits()
    assert limits.sgemm_gflop_s == limits.sgemm_all_gflop_s == round(2e-9 * machine.MATRIX**3 / took_s, 1)
    assert limits.copy_gb_s == round(1e-9 * machine.COPIED_BYTES / (2 * took_s), 1)
    assert limits.copy_all_gb_s == limits.copy_gb_s  # this clock knows no two things at once


def test_the_best_of_several_counts_for_other_programs_can_only_slow_it_down(monkeypatch):
    clock, took_s = SteppingClock(), iter([9.0, 0.3, 0.1, 0.7, *[0.5] * 100])
    monkeypatch.setattr(machine, "time", clock)
    assert best_s(lambda: clock.passes(next(took_s)), 2.0) == pytest.approx(0.1)
    assert clock.now_s == pytest.approx(9 + 0.3 + 0.1 + 0.7 + 0.5 + 0.5)


def test_the_memory_that_was_used_at_most_is_known():
    grown = np.ones(64 << 20, np.uint8)
    assert peak_memory_mib() > grown.nbytes / 2**20


def status(stage, received, cpu_s, state=StageState.RUNNING, **gauges):
    counts = {"received": received}
    return Status("r", stage, state, counts=counts, gauges={"cpu_s": cpu_s, **gauges})


def test_the_cost_of_a_frame_leaves_out_start_end_detection_and_the_camera():
    cost = CpuCost(warm_up=10)
    cost.take(status("track", 9, 50.0), own_s=7.0)  # still warming up
    cost.take(status("detect", 0, 0.0, StageState.STARTING), own_s=7.0)
    for n, own_s in ((10, 8.0), (60, 8.05), (110, 8.1)):
        cost.take(status("acquire", 2 * n, 1.0 + 0.004 * n, cpu_camera_s=0.003 * n), own_s)
        cost.take(status("detect", n, 2.0 + 0.03 * n, cpu_detection_s=0.028 * n), own_s)
        cost.take(status("track", n, 3.0 + 0.001 * n), own_s)
    cost.take(status("track", 120, 99.0, StageState.DRAINING), own_s=99.0)
    found = {row["part"]: (row["cpu_ms"], row["frames"]) for row in cost.rows()}
    assert found == {
        "camera": (1.5, 200),
        "detection": (28.0, 100),
        "acquire": (0.5, 200),
        "detect": (2.0, 100),
        "track": (1.0, 100),
        "session": (1.0, 100),
        "all but detection": (4.5, 100),
    }


def test_a_run_that_is_too_short_has_no_cost():
    cost = CpuCost(warm_up=10)
    cost.take(status("track", 9, 50.0), own_s=7.0)
    assert cost.rows() == []


def test_the_time_of_detecting_threads_is_told_from_that_of_the_others():
    use = CpuUse()
    with closing(OrderedWork(1, "test")) as work:
        work.on_every_thread(lambda: burn(0.1))
        burn(0.05)
        found = use.gauges()
    assert found["cpu_s"] >= 0.14
    assert 0.08 <= found["cpu_detection_s"] <= found["cpu_s"] - 0.03
    assert "cpu_camera_s" not in found


def burn(seconds):
    """Use so much processor time."""
    until_s = time.thread_time() + seconds
    while time.thread_time() < until_s:
        pass
