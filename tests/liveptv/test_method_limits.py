"""The summary of a run says what was beyond the method, from the counts of its stages, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from engines.settings import MOST_PARTICLES, DetectorSettings
from liveptv.method_limits import outside_the_limits
from liveptv.workflows.offline import detect_images


def test_a_run_within_its_limits_has_nothing_to_say() -> None:
    assert outside_the_limits({}) == ""
    assert (
        outside_the_limits({"detect": {"particles": 9, "left_out_doubtful": 4}, "track": {"born": 3}}) == ""
    )


@pytest.mark.parametrize(
    ("stage", "count", "says"),
    [
        ("detect", "left_out_too_many", "7 particles over detector.max_particles left out"),
        ("detect", "left_out_hidden_px", "7 pixels under large objects not searched"),
        ("detect", "repeated_images", "7 images delivered twice"),
        ("track", "unresolved", "displacements beyond what links can resolve in 7 frames"),
        ("track", "rows_left_out", "7 predicted rows left out"),
    ],
)
def test_each_limit_has_its_words(stage: str, count: str, says: str) -> None:
    assert outside_the_limits({stage: {count: 7}}) == says


APART_PX = 14


def crowd(path: Path, count: int) -> Path:
    """A video of two frames with `count` particles, the first frame twice."""
    rng = np.random.default_rng(0)
    side = APART_PX * int(np.ceil(np.sqrt(count)))
    rows, columns = np.indices((side, side))
    light = 150 * np.exp(-(((rows % APART_PX - 6) ** 2 + (columns % APART_PX - 6) ** 2) / 4.0))
    frames = [np.round(200 + light + rng.normal(0, 3, light.shape)).astype(np.uint16) for _ in range(2)]
    tifffile.imwrite(path, np.stack([frames[0], frames[0], frames[1]]), photometric="minisblack")
    return path


def test_detect_takes_as_many_particles_as_there_are(tmp_path: Path) -> None:
    said: list[str] = []
    found = [
        d for d, _ in detect_images(crowd(tmp_path / "v.tif", 2500), DetectorSettings(), say=said.append)
    ]
    assert all(2400 < len(d) <= MOST_PARTICLES for d in found)
    assert not any("max_particles" in text for text in said)
    assert sum("repeats the image before it" in text for text in said) == 1
    assert said[-1] == "in all: 1 images delivered twice"


def test_detect_says_how_many_are_over_a_limit_that_was_given(tmp_path: Path) -> None:
    said: list[str] = []
    settings = DetectorSettings(max_particles=100)
    found = [d for d, _ in detect_images(crowd(tmp_path / "v.tif", 400), settings, say=said.append)]
    assert [len(d) for d in found] == [100] * 3
    assert sum("detector.max_particles is 100, raise it" in text for text in said) == 1
    assert any(
        text.startswith("in all: ") and "over detector.max_particles left out" in text for text in said
    )
