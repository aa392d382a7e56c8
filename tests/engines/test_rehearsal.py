"""Before the first frame an engine is made ready with drawn frames, of which nothing remains."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from expected_particles import PIXEL_UM, Flow, detect, shipped_psf

from engines.network.engine import NetworkEngine
from engines.network.model import OnnxModel
from engines.network.rehearsal import PX_PER_PARTICLE, drawn_frames
from engines.prediction.search import PredictedSearch
from engines.refine.psf import FitModel
from engines.refine.refiner import Refiner
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL

SHAPE = (320, 480)
COUNT = SHAPE[0] * SHAPE[1] // PX_PER_PARTICLE


@pytest.fixture(scope="module")
def psf() -> FitModel:
    return shipped_psf()


def engine_of(**settings: object) -> NetworkEngine:
    return NetworkEngine(DetectorSettings.model_validate(settings), PIXEL_UM, SHIPPED_MODEL)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_each_thread_has_searched_fitted_and_corrected_before_the_first_frame(
    monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    corrected: list[dict[str, float]] = []
    fitted: list[dict[str, int]] = []
    forget, forget_fit = PredictedSearch.forget, Refiner.forget

    def look(search: PredictedSearch) -> None:
        corrected.append(search.counts())
        forget(search)

    def look_at_fit(refiner: Refiner) -> None:
        if hasattr(refiner, "_counts"):
            fitted.append(refiner.counts())
        forget_fit(refiner)

    monkeypatch.setattr(PredictedSearch, "forget", look)
    monkeypatch.setattr(Refiner, "forget", look_at_fit)
    with closing(engine_of(workers=2)) as engine:
        engine.warmup(*SHAPE, np.dtype(dtype))
    assert corrected[0]["frames"] == 2
    assert corrected[0]["whole"] == 0
    assert corrected[0]["predicted"] >= 2 * 0.7 * COUNT
    assert fitted[0]["refined"] >= 2 * 0.7 * COUNT
    assert fitted[0].get("reduced", 0) == 0


def test_nothing_of_the_drawn_frames_remains(psf: FitModel, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow(psf, SHAPE, seed=3)
    frame = flow.frame()
    with closing(engine_of(workers=2)) as engine:
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        details = engine.info.details
        assert details["refine"] == {"refined": 0, "not_refined": 0, "added": 0, "not_there": 0}
        assert all(part["particles"] == 0 for part in details["stated_errors"].values())
        assert not any(details["prediction"].values())
        assert engine.counts() == {}
        assert engine.costs() == []
        assert engine.pending == 0
        rehearsed = detect(engine, frame)
    monkeypatch.setattr(NetworkEngine, "_rehearse", lambda *_: None)
    with closing(engine_of(workers=2)) as engine:
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        np.testing.assert_array_equal(detect(engine, frame).table, rehearsed.table)


def test_a_drawn_frame_is_one_of_this_camera_with_its_uneven_light(tmp_path: Path, psf: FitModel) -> None:
    across = np.linspace(80, 220, SHAPE[1]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "bright.tif", np.broadcast_to(across, SHAPE))
    with closing(engine_of(workers=1, bright=tmp_path / "bright.tif")) as engine:
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        first, second = drawn_frames(OnnxModel(SHIPPED_MODEL).card, psf, SHAPE, np.uint8, engine._flat_field)
        found = detect(engine, first)
        assert len(found) >= 0.7 * COUNT
    left, right = (np.median(first.image[:, part]) for part in (slice(0, 40), slice(-40, None)))
    assert right > 2 * left
    assert second.info.frame == first.info.frame + 1
