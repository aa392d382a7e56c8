from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from engines.flatfield import FlatField, load_flat_field
from stream.errors import ConfigurationError


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_corrected_image_is_equation_2(dtype: type) -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(50, 200, (20, 30)).astype(dtype)
    bright, dark = rng.uniform(180, 220, (20, 30)), rng.uniform(5, 10, (20, 30))
    out = np.empty((20, 30), np.float32)
    FlatField(bright, dark, gain=1.2).correct(raw, out)
    np.testing.assert_allclose(out, 1 - (raw - dark) / (1.2 * (bright - dark)), atol=1e-5)


def test_uneven_light_becomes_a_flat_background() -> None:
    light = np.linspace(100, 200, 40)[None, :] * np.ones((30, 1))
    out = np.empty((30, 40), np.float32)
    FlatField(light).correct(np.rint(light).astype(np.uint8), out)
    assert np.abs(out).max() < 0.01


@pytest.mark.parametrize(
    ("bright", "dark", "says"),
    [
        (np.full((4, 4), 9.0), np.full((4, 5), 1.0), "use one camera"),
        (np.full((4, 4), 9.0), np.full((4, 4), 9.0), "swapped"),
        (np.zeros((4, 4)), None, "swapped"),
        (np.full((4, 4), np.nan), None, "not numbers"),
        (np.ones(4), None, "one image"),
    ],
)
def test_references_that_cannot_be_right_are_refused(
    bright: np.ndarray, dark: np.ndarray | None, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        FlatField(bright, dark)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="same camera settings"):
        FlatField(np.ones((4, 4))).correct(np.ones((4, 5), np.uint8), np.empty((4, 5), np.float32))


def test_a_reference_file_with_several_images_is_averaged(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "bright.tif", np.stack([np.full((8, 8), v, np.uint16) for v in (90, 110)]))
    assert load_flat_field(tmp_path / "bright.tif", None).grey_values == pytest.approx(100)


@pytest.mark.parametrize("content", [None, b"not a picture"])
def test_a_reference_that_cannot_be_read_is_one_clear_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bright.tif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot read the flat-field reference"):
        load_flat_field(path, None)
