"""What the detector decides by the clock is said with its results, and with it the same results come again."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.physics.optics import OpticsModel
from calibration.synthesis.from_optics import model_from_optics, noise_for_snr
from calibration.synthesis.layout import Layout
from calibration.synthesis.rendered_source import Rendered
from engines.engine import Engine
from engines.network.engine import NetworkEngine
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import Decisions, Detections, FitDecision, Frame, FrameInfo
from stream.wire import decode, encode

SHAPE = (192, 256)
OPTICS = OpticsModel()
PIXEL_UM = OPTICS.pixel_size_um


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    psf = model_from_optics(OPTICS)
    density = 45 / (SHAPE[0] * SHAPE[1])
    source = Rendered(psf, noise_for_snr(psf, 8.0), layout=Layout((density, density)))
    images = [source.draw(np.random.default_rng(n), SHAPE, dtype=np.uint8).images[0] for n in range(24)]
    return [
        Frame(FrameInfo("run", n, n, 0.05 * n, 0, 0.0, pixel_size_um=PIXEL_UM), image)
        for n, image in enumerate(images)
    ]


def opened(workers: int) -> NetworkEngine:
    engine = NetworkEngine(DetectorSettings(workers=workers), PIXEL_UM, SHIPPED_MODEL)
    engine.warmup(*SHAPE, np.dtype(np.uint8))
    return engine


def in_a_hurry(engine: NetworkEngine, frames: list[Frame]) -> list[Detections]:
    """Detections of a live run whose budget changes from frame to frame, and whose results are fetched late."""
    found: list[Detections] = []
    for frame in frames:
        engine.allow_fit(1.0, (4.0, 9.0, 0.0, 25.0, 1e6)[frame.info.frame % 5])
        engine.submit(frame)
        if frame.info.frame % 3:
            found += engine.results(0.0)
    return found + rest_of(engine)


def rest_of(engine: Engine) -> list[Detections]:
    found: list[Detections] = []
    while engine.pending:
        found += engine.results(10.0)
    return found


@pytest.mark.parametrize(("live_workers", "replay_workers"), [(1, 2), (2, 1), (3, 3)])
def test_a_run_in_a_hurry_comes_out_the_same_once_more(frames, live_workers, replay_workers) -> None:
    with closing(opened(live_workers)) as engine:
        live = in_a_hurry(engine, frames)
    made = [found.info.decisions for found in live]
    assert {one.fit for one in made} == {FitDecision.LIMITED, FitDecision.NO_TIME}
    assert any(math.isfinite(one.credit) for one in made)  # some particles were left out
    assert any(one.turns_from >= 0 for one in made)
    assert any(one.learnt_from >= 0 for one in made)
    with closing(opened(replay_workers)) as engine:
        for frame, one in zip(frames, made, strict=True):
            engine.submit(replace(frame, info=replace(frame.info, decisions=one)))
        again = rest_of(engine)
    for before, after in zip(live, again, strict=True):
        assert np.array_equal(before.table, after.table, equal_nan=True)
        assert before.info.decisions == after.info.decisions
    with closing(opened(1)) as engine:  # without them, frames for which there was no time come out otherwise
        for frame in frames:
            engine.submit(frame)
        whole = rest_of(engine)
    assert not all(
        np.array_equal(before.table, after.table, equal_nan=True)
        for before, after in zip(live, whole, strict=True)
    )


def test_a_frame_that_depends_on_one_that_had_no_choice_to_make_goes_by_those_before_it(frames) -> None:
    dark = Frame(replace(frames[1].info), np.zeros_like(frames[1].image))
    limited = Decisions(fit=FitDecision.LIMITED, credit=5.0)
    given = [limited, limited, replace(limited, turns_from=1), replace(limited, turns_from=2)]
    with closing(opened(2)) as engine:
        for frame, one in zip([frames[0], dark, frames[2], frames[3]], given, strict=True):
            engine.submit(replace(frame, info=replace(frame.info, decisions=one)))
        found = rest_of(engine)
    assert [one.info.decisions.turns_from for one in found] == [-1, -1, 0, 2]


def test_while_the_fit_is_being_compiled_a_frame_says_so_and_is_not_fitted_in_a_replay(frames) -> None:
    with closing(opened(1)) as engine:
        engine.fit_ready.clear()
        engine.submit(frames[0])
        (early,) = rest_of(engine)
        engine.fit_ready.set()
    assert early.info.decisions.fit is FitDecision.NOT_COMPILED
    with closing(opened(1)) as engine:
        engine.submit(replace(frames[0], info=early.info))
        (again,) = rest_of(engine)
    assert np.array_equal(early.table, again.table, equal_nan=True)


def test_results_of_earlier_frames_do_not_change_a_frame_that_was_submitted_before_they_were_there(
    frames,
) -> None:
    with closing(opened(1)) as engine:
        engine.allow_fit(1.0, 1e6)
        engine.submit(frames[0])
        engine.submit(frames[1])  # frame 0 is still being worked on, or not
        found = rest_of(engine)
        time.sleep(0)
        engine.submit(frames[2])
        found += rest_of(engine)
    assert found[0].info.decisions.learnt_from == -1
    assert found[1].info.decisions.learnt_from in {-1, 0}
    assert found[2].info.decisions.learnt_from == 1


whole = st.integers(-1, 2**53)


@given(
    st.builds(
        Decisions,
        opened=st.integers(0, 2**32 - 1),
        replaced=st.booleans(),
        predicted_from=whole,
        fit=st.sampled_from(FitDecision),
        credit=st.floats(allow_nan=False, allow_infinity=False) | st.just(math.inf),
        turns_from=whole,
        learnt_from=whole,
    )
)
@settings(max_examples=50, deadline=None)
def test_decisions_come_through_the_wire_and_the_file_as_they_were_made(made: Decisions) -> None:
    from tracking.trajectories.decisions import as_columns, decisions_of
    from tracking.trajectories.schema import FRAME

    info = FrameInfo("run", 3, 3, 0.1, 1, 1.0, decisions=made)
    header, payload = encode(Detections.empty(info))
    assert decode(header, bytes(payload)).message.info.decisions == made
    row = np.array((3, 3, 0.1, 1.0, 0.0, 0.0, 1.0, 0, 0, 1, math.nan, *as_columns(made), 0, 0, 0, 0), FRAME)
    assert decisions_of(row) == made
