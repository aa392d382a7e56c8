"""The shipped network on several back ends: they agree, and those that do not answer rightly are found out."""

from __future__ import annotations

from contextlib import closing
from functools import cache, partial

import numpy as np
import pytest
from small_run import Run, small_experiment

from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer
from engines.backends.failover import GuardedEngine
from engines.backends.registry import BACK_ENDS, ONNXRUNTIME, BackEnd, Opened
from engines.engine import BackEndError, WrongNumbersError
from engines.factory import open_engine
from engines.network.engine import NetworkEngine
from engines.network.layout import LOGIT
from engines.settings import DetectorSettings
from liveptv.cli.main import run_command_line
from liveptv.models import SHIPPED_MODEL
from stream.errors import ConfigurationError
from stream.messages import Frame, FrameInfo

SHAPE = (112, 160)
SETTINGS = DetectorSettings(workers=2)


@cache
def pictures(count=6):
    rng = np.random.default_rng(3)
    renderer = Renderer(load_bank(OpticsModel()), SHAPE, np.uint8, snr=8.0, seed=3)
    images = np.empty((count, *SHAPE), np.uint8)
    for image in images:
        renderer.render(rng.uniform(0, 128, 8), rng.uniform(0, 89, 8), rng.uniform(-150, 150, 8), image)
    return [
        Frame(FrameInfo("run", n, n, 0.04 * n, 0, 0.0, pixel_size_um=0.8), image)
        for n, image in enumerate(images)
    ]


class MadeNetwork:
    """ONNX Runtime until the `after`-th image, then `spoilt`."""

    backend, device, precision = "made", "cpu", "float32"

    def __init__(self, spoilt, after, model, workers):
        self.model, self.spoilt, self.left = model, spoilt, after

    def __call__(self, images):
        self.left -= 1
        answer = self.model(images)
        return answer if self.left >= 0 else self.spoilt(answer)


def broken(answer):
    raise RuntimeError("the driver\nis gone")


def not_a_number(answer):
    answer = answer.copy()
    answer[0, LOGIT, 3, 4] = np.nan
    return answer


def blind(answer):
    answer = answer.copy()
    answer[:, LOGIT::9] = np.minimum(answer[:, LOGIT::9], -5.0)
    return answer


def made_engine(spoilt, after=2):
    return NetworkEngine(DetectorSettings(workers=1), 0.8, SHIPPED_MODEL, partial(MadeNetwork, spoilt, after))


def run(engine, frames):
    found = []
    with closing(engine):
        for frame in frames:
            engine.submit(frame)
        while engine.pending:
            found += engine.results(10.0)
    return found


@pytest.mark.parametrize(
    ("spoilt", "kind", "says"),
    [
        (broken, BackEndError, "made failed at frame 2: the driver is gone"),
        (not_a_number, WrongNumbersError, "made gave values that are not finite numbers for frame 2"),
        (np.zeros_like, WrongNumbersError, "made gave the same value everywhere for frame 2"),
    ],
)
def test_a_network_that_fails_is_never_taken_for_one_that_sees_nothing(spoilt, kind, says):
    with pytest.raises(kind, match=says):
        run(made_engine(spoilt), pictures())
    said = []
    guarded = GuardedEngine(
        made_engine(spoilt), partial(ONNXRUNTIME.open, SETTINGS, 0.8, SHIPPED_MODEL), say=said.append
    )
    found = run(guarded, pictures())
    for ours, theirs in zip(
        found, run(ONNXRUNTIME.open(SETTINGS, 0.8, SHIPPED_MODEL), pictures()), strict=True
    ):
        np.testing.assert_array_equal(ours.table, theirs.table)
    assert said == [f"{says}; onnxruntime (cpu) continues in its place"]
    assert guarded.info.details["failed"] == says


def test_a_network_that_answers_background_for_everything_is_found_out():
    said = []
    guarded = GuardedEngine(
        made_engine(blind, 0), partial(ONNXRUNTIME.open, SETTINGS, 0.8, SHIPPED_MODEL), say=said.append
    )
    found = run(guarded, pictures() * 2)
    assert len(found) == 12
    assert "made (cpu) detected nothing in 10 frames" in said[0]
    theirs = run(ONNXRUNTIME.open(SETTINGS, 0.8, SHIPPED_MODEL), pictures() * 2)
    np.testing.assert_array_equal(found[9].table, theirs[9].table)


def small_run(folder):
    return small_experiment(
        folder,
        real_time=False,
        frames=12,
        session={"mode": "threads"},
        link={"transport": "inproc"},
        detector={"model": str(SHIPPED_MODEL), "diameter_px": None},
    )


def test_a_back_end_that_fails_in_the_middle_of_a_run_costs_no_frame_and_is_told(tmp_path, monkeypatch):
    made = BackEnd("tensorrt", "gpu", lambda *_: "", lambda *_: made_engine(broken, 6))
    monkeypatch.setattr(
        "engines.backends.failover.open_back_end", lambda *_: Opened(made.open(None, 0.8, None), made, {})
    )
    run = Run(small_run(tmp_path))
    assert run.result.ok
    assert run.frames()[0] == list(range(12))
    assert any("the driver is gone; onnxruntime (cpu) continues in its place" in note for note in run.notes)
    assert run.result.counts["detect"]["left_out_back_end_failures"] == 1
    assert run.events("engine")[0]["backend"] == "made"


def test_a_run_says_what_its_network_runs_on_and_what_was_passed_over(tmp_path):
    run = Run(small_run(tmp_path))
    assert run.result.ok
    (event,) = run.events("engine")
    assert event["text"].startswith("network detector on ")
    assert len(event["hash"]) == 64
    assert all(event["details"]["skipped"].values())


def test_auto_says_what_it_passed_over():
    with closing(open_engine(SETTINGS, model=SHIPPED_MODEL, pixel_size_um=0.8)) as engine:
        info = engine.info
    names = [str(back_end) for back_end in BACK_ENDS if back_end.automatic]
    used = names.index(f"{info.backend} ({info.device})")
    assert list(info.details["skipped"]) == names[:used]
    assert all(info.details["skipped"].values())


def test_a_back_end_asked_for_that_cannot_run_is_one_line(monkeypatch):
    monkeypatch.setattr("engines.backends.registry.find_spec", lambda name: None)
    with pytest.raises(
        ConfigurationError, match=r'openvino not installed: pip install "liveptv\[openvino\]"'
    ):
        open_engine(DetectorSettings(backend="openvino"), model=SHIPPED_MODEL, pixel_size_um=0.8)


def test_a_back_end_is_for_networks():
    with pytest.raises(ConfigurationError, match=r"runs networks; give a model \(.onnx\)"):
        open_engine(DetectorSettings(backend="onnxruntime"), model=None, pixel_size_um=0.8)


def test_what_can_run_here_is_listed(capsys):
    assert run_command_line(["engine", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("onnxruntime") for line in lines)
    assert sum("yes" in line.split() for line in lines) == 1


def test_openvino_agrees_with_onnxruntime():
    pytest.importorskip("openvino")
    settings = DetectorSettings(workers=2, backend="openvino", precision="full")
    engine = open_engine(settings, model=SHIPPED_MODEL, pixel_size_um=0.8)
    assert (engine.info.backend, engine.info.details["precision"]) == ("openvino", "float32")
    found = run(engine, pictures())
    wanted = run(ONNXRUNTIME.open(SETTINGS, 0.8, SHIPPED_MODEL), pictures())
    assert sum(len(d) for d in wanted) > 20
    for ours, theirs in zip(found, wanted, strict=True):
        assert len(ours) == len(theirs)
        for name, most_um in (("x_um", 0.008), ("y_um", 0.008), ("z_um", 0.1)):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=most_um)
