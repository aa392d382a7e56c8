"""What a GPU is given to do, done by the processor: the same numbers as on the way without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import empty_maps, put

torch = pytest.importorskip("torch")

from engines.cuda.check import agreement, drawn_frame, logits_of, reference_answer  # noqa: E402
from engines.cuda.layout import MOST_KEPT, FrameFormat  # noqa: E402
from engines.cuda.unpacking import Answer, kept_slots  # noqa: E402
from engines.cuda.with_torch.background import contrast_of, pixels_of  # noqa: E402
from engines.cuda.with_torch.program import FrameProgram  # noqa: E402
from engines.engine import WrongNumbersError  # noqa: E402
from engines.flatfield import FlatField  # noqa: E402
from engines.network.decode import particles_of, slots_of  # noqa: E402
from engines.network.layout import LOGIT  # noqa: E402
from engines.network.model import OnnxModel  # noqa: E402
from engines.network.preparation import Preparation  # noqa: E402
from engines.network.torch_model import TorchModel, network_of  # noqa: E402
from engines.network.weights import KEY, unpack  # noqa: E402
from liveptv.models import SHIPPED_MODEL  # noqa: E402
from stream.errors import ConfigurationError  # noqa: E402

SHAPE = (275, 390)
MODEL = OnnxModel(SHIPPED_MODEL)
NETWORK = network_of(MODEL, "the model")
torch.set_num_threads(1)
quick = settings(max_examples=30, deadline=None)


def flat_field(dtype: type) -> FlatField:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    full = np.iinfo(dtype).max
    return FlatField(
        full * (0.6 + 0.3 * columns / SHAPE[1] - 0.2 * rows / SHAPE[0]), np.full(SHAPE, 0.02 * full)
    )


def raw(image: np.ndarray) -> object:
    return torch.from_numpy(image if image.dtype == np.uint8 else image.view(np.uint8).reshape(*SHAPE, 2))


def answer_of(image, field, *, half):
    frame = FrameFormat.of(image.shape, image.dtype, field is not None, 2000)
    program = FrameProgram(NETWORK, MODEL.card, frame, half=half).eval()
    references = () if field is None else tuple(torch.from_numpy(a) for a in (field.dark, field.factor))
    with torch.inference_mode():
        kept, summary, maps = program(raw(image), *references)
    return frame, Answer(kept.numpy(), summary.numpy()), maps[0].numpy()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("flat", [False, True])
def test_the_program_of_a_gpu_finds_what_the_processor_finds(dtype, flat):
    field = flat_field(dtype) if flat else None
    frame = FrameFormat.of(SHAPE, np.dtype(dtype), flat, 2000)
    image = drawn_frame(MODEL.card, MODEL.psf(), frame, field)
    reference = reference_answer(MODEL, image, field)
    _, answer, maps = answer_of(image, field, half=False)
    found = agreement(reference.particles, particles_of(kept_slots(answer, frame)), MODEL.card)
    assert found.sure >= 5
    assert found.missed == found.invented == 0
    assert found.xy_px < 0.001
    assert found.z_um < 0.01
    np.testing.assert_allclose(logits_of(maps), reference.logits, atol=1e-2)
    grey_values = 1.0 if field is None else field.grey_values
    assert answer.background * grey_values == pytest.approx(reference.background, rel=2e-6)


def test_in_half_precision_it_finds_the_same_a_little_less_exactly():
    frame = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000)
    image = drawn_frame(MODEL.card, MODEL.psf(), frame, None)
    reference = reference_answer(MODEL, image)
    _, answer, _ = answer_of(image, None, half=True)
    found = agreement(reference.particles, particles_of(kept_slots(answer, frame)), MODEL.card)
    assert (found.missed, found.invented) == (0, 0)
    assert found.xy_px < 0.05
    assert found.z_um < 0.5


def test_the_torch_reference_answers_like_the_model_file():
    images = np.random.default_rng(0).standard_normal((1, 1, 96, 144)).astype(np.float32)
    np.testing.assert_allclose(
        slots_of(TorchModel(SHIPPED_MODEL, MODEL)(images)[0] + _raised()),
        slots_of(MODEL(images)[0] + _raised()),
        atol=1e-3,
    )


def _raised() -> np.ndarray:
    """Added to planes, makes every slot one that may be a particle."""
    planes = np.zeros((18, 1, 1), np.float32)
    planes[LOGIT::9] = 20.0
    return planes


def test_a_model_without_its_weights_is_named():
    with pytest.raises(ConfigurationError, match=r"old\.onnx does not contain its weights"):
        unpack({}, "old.onnx")
    with pytest.raises(ConfigurationError, match="onnxruntime"):
        unpack({KEY: "bm9uc2Vuc2U="}, "damaged.onnx")


@quick
@given(st.integers(2, 80), st.integers(2, 80), st.sampled_from([8, 16]), st.integers(0, 2**32 - 1))
def test_the_background_is_the_processors_median(height, width, bits, seed):
    rng = np.random.default_rng(seed)
    top = int(rng.integers(2, 1 << bits))
    image = rng.integers(1, top + 1, (height, width)).astype(np.uint8 if bits == 8 else np.uint16)
    preparation = Preparation((height, width), -1.0, 0.01, None)
    expected = preparation.fill(image)
    bytes_ = torch.from_numpy(image if bits == 8 else image.view(np.uint8).reshape(height, width, 2))
    contrast, background = contrast_of(pixels_of(bytes_), 1, bits, -100.0, None)
    assert float(background) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(
        contrast.numpy(), preparation.input[0, 0, :height, :width], rtol=1e-5, atol=1e-3
    )


@quick
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 100_000))
def test_strips_are_equal_and_never_keep_more_than_tensorrt_can(height, width, particles):
    frame = FrameFormat.of((height, width), np.dtype(np.uint8), False, particles)
    rows, columns = frame.cells
    assert rows % frame.strips == 0
    assert 1 <= frame.kept <= min(MOST_KEPT, 2 * rows // frame.strips * columns)
    assert 4 * rows >= height
    assert 4 * columns >= width


places = st.tuples(
    st.floats(0, 95), st.floats(0, 63), st.floats(-1, 1), st.integers(0, 1), st.floats(0.02, 1)
)


def strongest(maps: np.ndarray, particles: int) -> tuple[FrameFormat, Answer]:
    """What the program keeps of a network that answers with `maps`."""
    frame = FrameFormat.of((64, 96), np.dtype(np.uint8), False, particles)

    class Says(torch.nn.Module):
        def forward(self, _):
            return torch.from_numpy(maps)[None]

    program = FrameProgram(
        network_of(OnnxModel(SHIPPED_MODEL), ""), OnnxModel(SHIPPED_MODEL).card, frame, half=False
    )
    program.network = Says()
    kept, summary, _ = program(torch.zeros(64, 96, dtype=torch.uint8))
    return frame, Answer(kept.numpy(), summary.numpy())


@quick
@given(st.lists(places, max_size=40))
def test_kept_slots_are_those_of_the_maps_to_the_last_bit(wanted):
    maps = empty_maps()
    for x, y, z, slot, p in wanted:
        put(maps, x, y, z, p=p, slot=slot)
    frame, answer = strongest(maps, 2000)
    assert answer.complete
    np.testing.assert_array_equal(kept_slots(answer, frame), slots_of(maps))


def test_a_frame_with_more_slots_than_there_is_room_for_is_known():
    maps = empty_maps()
    for x in range(2, 96, 4):
        put(maps, x, 6, 0.0, p=0.9)
    assert not strongest(maps, 8)[1].complete
    assert strongest(maps, 2000)[1].complete


@pytest.mark.parametrize(
    ("value", "what"), [(np.nan, "not finite numbers"), (np.inf, "not finite numbers"), (0.0, "same value")]
)
def test_answers_that_cannot_be_are_refused(value, what):
    maps = empty_maps()
    put(maps, 40, 30, 0.0)
    if value == 0.0:
        maps[:] = 0.0
    else:
        maps[3, 4, 1, 5] = value
    with pytest.raises(WrongNumbersError, match=what):
        strongest(maps, 2000)[1].check()


def test_a_model_without_a_particle_image_is_shown_spots():
    frame = FrameFormat.of((300, 400), np.dtype(np.uint8), False, 2000)
    image = drawn_frame(MODEL.card, None, frame, None)
    reference = reference_answer(MODEL, image)
    assert len(reference.particles) >= 3
    np.testing.assert_array_equal(image, drawn_frame(MODEL.card, None, frame, None))
    assert np.isfinite(reference.logits).all()
