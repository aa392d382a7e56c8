"""Images of any byte order, type and layout are read as what they are, or refused in one line."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from astigmatic import draw, frame, grid

from engines.classical.engine import ClassicalEngine
from engines.cuda.check import drawn_frame
from engines.cuda.layout import FrameFormat
from engines.engine import DetectionError, Engine, readable, working_dtype
from engines.network.engine import NetworkEngine
from engines.network.model import OnnxModel
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL

SHAPE = (160, 192)
SETTINGS = DetectorSettings(workers=2)


def spots() -> npt.NDArray[np.uint8]:
    x, y = grid(SHAPE, 32)
    noise = np.random.default_rng(0).normal(0, 2, SHAPE)
    return np.rint(80 + draw(SHAPE, x, y, 2.5, 2.5, 60) + noise).astype(np.uint8)


def drawn() -> npt.NDArray[np.uint8]:
    """Particles of the shipped model."""
    model = OnnxModel(SHIPPED_MODEL)
    form = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000)
    return drawn_frame(model.card, model.psf(), form, None)


def engines() -> list[Engine]:
    made: list[Engine] = [
        ClassicalEngine(SETTINGS, 0.8),
        NetworkEngine(SETTINGS, 0.8, SHIPPED_MODEL),
    ]
    try:
        import torch  # noqa: F401
    except ImportError:
        return made
    from host_device import HostDevice

    from engines.cuda.engine import GpuEngine
    from engines.cuda.with_torch.runner import TorchBackEnd

    return [*made, GpuEngine(SETTINGS, 0.8, SHIPPED_MODEL, TorchBackEnd(HostDevice(), half=False))]


def table(engine: Engine, image: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    engine.submit(frame(0, image))
    found = []
    while engine.pending:
        found += engine.results(10.0)
    return found[0].table


def forms(image: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.generic]]:
    height, width = image.shape
    wide = np.zeros((height, 2 * width), np.uint8)
    wide[:, ::2] = image
    frozen = image.copy()
    frozen.flags.writeable = False
    odd = np.zeros(2 * image.size + 1, np.uint8)[1:].view("<u2").reshape(image.shape)
    odd[:] = image
    return {
        "big-endian": image.astype(">u2"),
        "little-endian": image.astype("<u2"),
        "every second column": wide[:, ::2],
        "columns first": np.asfortranarray(image),
        "upside down twice": image[::-1].copy()[::-1],
        "read-only": frozen,
        "not aligned": odd,
        "signed": image.astype(np.int16),
        "signed, big-endian": image.astype(">i2"),
        "32 bits": image.astype(np.int32),
        "64 bits, big-endian": image.astype(">i8"),
        "unsigned 32 bits": image.astype(np.uint32),
    }


@pytest.mark.parametrize("which", range(3))
def test_every_engine_finds_the_same_in_every_form_of_an_image(which: int) -> None:
    made = engines()
    if which >= len(made):
        pytest.skip("torch is not installed")
    engine = made[which]
    image = drawn() if which else spots()
    with closing(engine):
        engine.warmup(*SHAPE, np.dtype(">u2"))
        expected = table(engine, image)
        assert expected.shape[1] > 2
        for name, form in forms(image).items():
            np.testing.assert_allclose(table(engine, form), expected, rtol=1e-4, atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 4), np.float32), "float32 pixels"),
        (np.zeros((4, 4), ">f8"), "convert the images"),
        (np.zeros((4, 4), complex), "complex128 pixels"),
        (np.zeros((4, 4), "datetime64[s]"), "convert the images"),
        (np.zeros((4, 4), object), "object pixels"),
        (np.full((4, 4), -1, np.int16), "from -1 to 0"),
        (np.full((4, 4), 70_000, np.int32), "from 0 to 70000"),
        (np.zeros((0, 4), np.uint8), "has no pixels"),
        (np.zeros((3, 4, 4), np.uint8), "volume"),
        (np.zeros(4, np.uint8), "volume"),
        (np.zeros((5, 4), np.uint8), "images before it"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line_with_the_frame(
    image: npt.NDArray[np.generic], says: str
) -> None:
    shape = (4, 4) if "before" in says else ()
    with pytest.raises(DetectionError, match=says) as caught:
        readable(frame(17, image), shape, "the detector")
    assert "frame 17" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_ordinary_frame_is_not_copied() -> None:
    for dtype in (np.uint8, np.uint16):
        given = frame(0, np.zeros((4, 4), dtype))
        assert readable(given, (4, 4), "it") is given


def test_values_stay_what_they_are() -> None:
    values = np.array([[0, 1, 255], [256, 4095, 65535]])
    for dtype in (">u2", "<u2", "<i4", ">i4", ">u8"):
        read = readable(frame(0, values.astype(dtype)), (), "it").image
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, values)
    mask = readable(frame(0, values > 255), (), "it").image
    assert mask.dtype == np.uint8
    assert [str(working_dtype(d)) for d in ("bool", "u1", "i1", ">u2", "i4")] == [
        "uint8", "uint8", "uint16", "uint16", "uint16",
    ]  # fmt: skip


def test_what_an_imagej_file_holds_can_be_handed_on_as_tifffile_gives_it(tmp_path: Path) -> None:
    import tifffile

    image = spots().astype(np.uint16) * 9
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([image] * 3), imagej=True)
    read = tifffile.imread(tmp_path / "stack.tif")
    with closing(ClassicalEngine(SETTINGS, 0.8)) as engine:
        np.testing.assert_array_equal(table(engine, read[1]), table(engine, image))
