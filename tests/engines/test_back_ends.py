"""Which back end is chosen, and what happens when it fails, with back ends made for the purpose."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from engines.backends.failover import BLANK_RUN, GuardedEngine
from engines.backends.registry import BACK_ENDS, BackEnd, missing, open_back_end
from engines.engine import BackEndError, DetectionError, Engine, EngineInfo
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import Detections, Frame, FrameInfo

MODEL = Path("model.onnx")
EMPTY = np.full((32, 32), 200, np.uint8)
STRUCTURED = EMPTY.copy()
STRUCTURED[10:18, 10:18] = 120


def frame(number, image=STRUCTURED):
    return Frame(FrameInfo("run", number, number, 0.04 * number, 0, 0.0), image)


class MadeEngine:
    """Answers with one particle a frame at x = its own number, as long as `behave` lets it."""

    def __init__(self, name="made", behave=lambda number: 1.0, holds=4):
        self.name, self.behave, self.holds = name, behave, holds
        self.waiting, self.closed, self.warm, self.seen = deque(), False, None, []

    @property
    def info(self):
        return EngineInfo("network", self.name, "cpu", details={"own": 1})

    @property
    def pending(self):
        return len(self.waiting)

    def warmup(self, *like):
        self.behave(-1)
        self.warm = like

    def submit(self, frame, predicted=None):
        if frame.image.ndim != 2:
            raise DetectionError(f"frame {frame.info.frame} is a volume")
        self.waiting.append(frame)
        self.seen.append(frame.info.frame)

    def results(self, timeout_s):
        ready = []
        while self.waiting and len(ready) < self.holds:
            frame = self.waiting.popleft()
            value = self.behave(frame.info.frame)
            table = np.full((len(Detections.COLUMNS), 0 if value is None else 1), value, float)
            ready.append(Detections(frame.info, table))
        return ready

    def counts(self):
        return {"doubtful": len(self.seen)}

    def close(self):
        self.closed = True


def fails_from(first):
    def behave(number):
        if number >= first:  # the warm-up is number -1
            raise BackEndError(f"made failed at frame {number}")
        return 1.0

    return behave


def back_end(name, reason="", opens=None, automatic=True):
    def open_it(settings, pixel_size_um, model, say):
        if opens is not None:
            raise opens
        return MadeEngine(name)

    return BackEnd(name, "cpu", lambda settings, model: reason, open_it, automatic)


def opened(back_ends, backend="auto"):
    return open_back_end(DetectorSettings(backend=backend), 0.8, MODEL, tuple(back_ends))


def test_the_first_that_can_run_is_chosen_and_the_others_say_why_not():
    found = opened(
        [
            back_end("tensorrt", "no device"),
            back_end("torch", opens=BackEndError("out of memory")),
            back_end("openvino"),
            back_end("onnxruntime", "never asked"),
        ]
    )
    assert found.engine.info.backend == "openvino"
    assert found.skipped == {"tensorrt (cpu)": "no device", "torch (cpu)": "out of memory"}


def test_a_back_end_asked_for_by_name_is_that_one_or_none():
    back_ends = [back_end("openvino", "openvino not installed"), back_end("onnxruntime")]
    assert opened(back_ends, "onnxruntime").engine.info.backend == "onnxruntime"
    with pytest.raises(
        ConfigurationError, match=r'"openvino" cannot run model.onnx here.*not installed.*"auto"'
    ):
        opened(back_ends, "openvino")


def test_a_slow_reference_runs_only_when_it_is_asked_for():
    back_ends = [back_end("torch", automatic=False), back_end("onnxruntime")]
    assert opened(back_ends).engine.info.backend == "onnxruntime"
    assert opened(back_ends, "torch").engine.info.backend == "torch"


def test_a_model_that_is_no_good_is_not_tried_elsewhere():
    with pytest.raises(ConfigurationError, match="damaged"):
        opened([back_end("openvino", opens=ConfigurationError("damaged")), back_end("onnxruntime")])


def test_libraries_that_are_not_installed_are_named_with_the_way_to_get_them():
    assert missing("numpy", "scipy", extra="train") == ""
    assert missing("numpy", "nowhere_to_be_found", extra="train") == (
        'nowhere_to_be_found not installed: pip install "liveptv[train]"'
    )


def test_asking_what_can_run_imports_none_of_it():
    code = (
        "import sys; from pathlib import Path; from engines.settings import DetectorSettings\n"
        "from engines.backends.registry import candidates\n"
        "found = list(candidates(DetectorSettings(), Path('none.onnx')))\n"
        "heavy = {'onnxruntime', 'openvino', 'torch', 'nncf', 'tensorrt', 'tensorrt_rtx_bindings', 'onnx'}\n"
        "heavy &= set(sys.modules)\n"
        "assert len(found) >= 2 and not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_the_last_resort_can_always_run():
    assert BACK_ENDS[-1].name == "onnxruntime"
    assert BACK_ENDS[-1].why_not(DetectorSettings(), MODEL) == ""


def test_single_precision_is_not_passed_off_as_reduced():
    assert (
        BACK_ENDS[-1].why_not(DetectorSettings(precision="reduced"), MODEL) == "runs in single precision only"
    )


def guarded(engine, other=None, **options):
    said = []
    reference = None if other is None else (lambda: other)
    return GuardedEngine(engine, reference, say=said.append, **options), said


def run(engine, frames):
    found = []
    for one in frames:
        engine.submit(one)
        found += engine.results(0.0)
    while engine.pending:
        found += engine.results(1.0)
    return found


def test_a_sound_back_end_is_left_alone():
    engine, said = guarded(MadeEngine(), MadeEngine("other"), skipped={"tensorrt (cuda)": "no device"})
    assert isinstance(engine, Engine)
    found = run(engine, map(frame, range(7)))
    assert [d.info.frame for d in found] == list(range(7))
    assert not said
    assert engine.info.backend == "made"
    assert engine.info.details == {"own": 1, "skipped": {"tensorrt (cuda)": "no device"}}
    assert engine.counts() == {"doubtful": 7}


@pytest.mark.parametrize("at", [0, 3, 9])
@pytest.mark.parametrize("in_hand", [1, 4])
def test_no_frame_is_lost_or_changes_its_place_when_the_back_end_fails(at, in_hand):
    first, other = MadeEngine("first", fails_from(at), holds=2), MadeEngine("other")
    engine, said = guarded(first, other)
    engine.warmup(32, 32, np.dtype(np.uint8))
    found = []
    for start in range(0, 12, in_hand):
        for number in range(start, start + in_hand):
            engine.submit(frame(number))
        found += engine.results(0.0)
    while engine.pending:
        found += engine.results(1.0)
    assert [d.info.frame for d in found] == list(range(12))
    assert first.closed
    assert engine.info.backend == "other"
    assert engine.info.details["failed"] == f"made failed at frame {at}"
    assert said == [f"made failed at frame {at}; other (cpu) continues in its place"]
    assert engine.counts()["back_end_failures"] == 1
    by_other = [d.info.decisions is not None and d.info.decisions.replaced for d in found]
    assert by_other == sorted(by_other)  # each detection says which of the two has made it
    assert all(by_other[at:])


def test_a_back_end_that_fails_as_it_warms_up_is_replaced_by_one_that_is_warm():
    def cold(number):
        raise BackEndError("no memory")

    other = MadeEngine("other")
    engine, said = guarded(MadeEngine("first", cold), other)
    engine.warmup(32, 32, np.dtype(np.uint8))
    assert other.warm == (32, 32, np.dtype(np.uint8), 1)
    assert said == ["no memory; other (cpu) continues in its place"]


def test_the_run_stops_where_the_settings_say_so_or_nothing_is_left():
    for engine, _ in (
        guarded(MadeEngine("first", fails_from(2)), MadeEngine("other"), falls_back=False),
        guarded(MadeEngine("first", fails_from(2))),
    ):
        with pytest.raises(BackEndError, match="frame 2"):
            run(engine, map(frame, range(5)))


def test_a_frame_that_no_detector_can_read_is_not_the_back_ends_fault():
    engine, said = guarded(MadeEngine(), MadeEngine("other"))
    with pytest.raises(DetectionError, match="volume"):
        engine.submit(frame(0, np.zeros((2, 32, 32), np.uint8)))
    assert not said
    assert engine.pending == 0


def test_places_that_are_no_numbers_are_a_failure():
    first = MadeEngine("first", lambda number: np.nan if number == 4 else 1.0)
    engine, said = guarded(first, MadeEngine("other"))
    found = run(engine, map(frame, range(8)))
    assert [d.info.frame for d in found] == list(range(8))
    assert all(np.isfinite(d.table).all() for d in found)
    assert "not finite numbers in frame 4" in said[0]


def blind_from(first):
    return lambda number: None if number >= first else 1.0


def test_a_back_end_that_has_gone_blind_is_found_out_by_the_reference():
    engine, said = guarded(MadeEngine("first", blind_from(5)), MadeEngine("other"))
    found = run(engine, map(frame, range(40)))
    assert [d.info.frame for d in found] == list(range(40))
    blank = [d.info.frame for d in found if not len(d)]
    assert len(blank) <= BLANK_RUN - 1
    assert "detected nothing in 10 frames up to frame 14, in which onnxruntime finds particles" in said[0]
    assert engine.counts()["blank"] == BLANK_RUN


def test_frames_that_the_reference_finds_empty_too_are_counted_and_looked_at_ever_more_rarely():
    asked = []
    other = MadeEngine("other", asked.append)
    engine, said = guarded(MadeEngine("first", blind_from(0)), other)
    run(engine, map(frame, range(100)))
    assert asked == [9, 19, 39, 79]
    assert not said
    assert engine.counts()["blank"] == 80


def test_nothing_found_where_nothing_is_is_right():
    engine, said = guarded(MadeEngine("first", blind_from(0)), MadeEngine("other"))
    run(engine, (frame(n, EMPTY) for n in range(50)))
    assert not said
    assert "blank" not in engine.counts()


def test_with_no_other_to_ask_blank_frames_are_counted():
    engine, _ = guarded(MadeEngine("first", blind_from(0)))
    run(engine, map(frame, range(25)))
    assert engine.counts()["blank"] == 20
