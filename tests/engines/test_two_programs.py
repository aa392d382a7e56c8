"""The GPU program in torch and the one written as ONNX are the same program, whatever network is trained."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from written_program import WrittenProgram, raw_bytes  # noqa: E402

from calibration.training.export import export  # noqa: E402
from engines.cuda.layout import FrameFormat  # noqa: E402
from engines.cuda.unpacking import Answer, kept_slots  # noqa: E402
from engines.cuda.with_torch.program import FrameProgram  # noqa: E402
from engines.flatfield import FlatField  # noqa: E402
from engines.network.architecture import ParticleNet  # noqa: E402
from engines.network.layout import LOGIT  # noqa: E402
from engines.network.model import OnnxModel  # noqa: E402
from engines.network.torch_model import network_of  # noqa: E402
from liveptv.models import SHIPPED_MODEL  # noqa: E402

SHAPE = (200, 330)
torch.set_num_threads(1)


@pytest.fixture(
    scope="module",
    params=[
        {"size": "small"},
        {"size": "small", "field_shape": SHAPE},
        {"size": "small", "field_shape": (400, 600), "knee": 8.0, "kinds": 3},
        {"size": "large", "kinds": 2},
    ],
    ids=["small", "in the whole field", "in the middle of a field, knee, three kinds", "large, two kinds"],
)
def path(request, tmp_path_factory):
    """A model file with a network of random weights, as a training writes it."""
    torch.manual_seed(4)
    network = ParticleNet(**request.param).eval()
    torch.nn.init.normal_(network.head.weight, std=0.3)
    for name, parameter in network.named_parameters():
        if "norm" in name or "coefficients" in name:
            torch.nn.init.normal_(parameter, mean=0.3, std=0.3)
    for buffer in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(buffer.running_var, 0.5, 2.0)
        torch.nn.init.normal_(buffer.running_mean, std=0.3)
    changed = {"schema_version": 3, **request.param}
    target = tmp_path_factory.mktemp("models") / "model.onnx"
    export(target, network.state_dict(), OnnxModel(SHIPPED_MODEL).card.model_copy(update=changed))
    return target


def case(path, dtype, flat):
    """A frame with noise and a dark patch, its flat field and its format."""
    rng = np.random.default_rng(6)
    top = np.iinfo(dtype).max
    image = np.clip(top * (0.6 + 0.004 * rng.standard_normal(SHAPE)), 0, top).astype(dtype)
    image[40:60, 100:130] //= 2
    field = FlatField(np.linspace(0.6, 0.9, SHAPE[1]) * np.full(SHAPE, top)) if flat else None
    return image, field, FrameFormat.of(SHAPE, np.dtype(dtype), flat, 2000, OnnxModel(path).card.kinds)


def in_torch(path, image, field, frame, *, half):
    model = OnnxModel(path)
    program = FrameProgram(network_of(model, str(path)), model.card, frame, half=half).eval()
    references = () if field is None else (field.dark, field.factor)
    with torch.inference_mode():
        kept, summary, maps = program(*map(torch.from_numpy, (raw_bytes(image), *references)))
    return Answer(kept.numpy(), summary.numpy()), maps[0].numpy()


def typical(maps):
    """Nearly the largest of each of a slot's values over the frame."""
    return np.quantile(np.abs(maps), 0.99, axis=(0, 1))


formats = pytest.mark.parametrize(("dtype", "flat"), [(np.uint8, False), (np.uint8, True), (np.uint16, True)])


@formats
def test_in_single_precision_both_give_the_same_maps_slots_and_summary(path, dtype, flat):
    image, field, frame = case(path, dtype, flat)
    written, maps = WrittenProgram(path, frame, half=False)(image, field)
    answer, expected = in_torch(path, image, field, frame, half=False)
    spread = expected.std(axis=(0, 1))
    assert spread[:, LOGIT].min() > 0.1
    assert (np.abs(maps - expected).max(axis=(0, 1)) < 1e-3 * spread).all()
    assert written.background == pytest.approx(answer.background, rel=1e-6)
    np.testing.assert_allclose(written.summary, answer.summary, rtol=1e-4, atol=2.0)
    slots = kept_slots(answer, frame)
    assert len(slots) > 100
    assert len(kept_slots(written, frame)) == pytest.approx(len(slots), abs=2)


@formats
def test_in_half_precision_both_are_as_near_to_single_precision(path, dtype, flat):
    image, field, frame = case(path, dtype, flat)
    written, maps = WrittenProgram(path, frame, half=True)(image, field)
    answer, halved = in_torch(path, image, field, frame, half=True)
    _, exact = in_torch(path, image, field, frame, half=False)
    error = typical(halved - exact)
    assert (error > 1e-5 * typical(exact)).all()
    assert (typical(maps - exact) < 2.0 * error).all()
    assert (typical(maps - halved) < 2.0 * error).all()
    assert written.background == pytest.approx(answer.background, rel=1e-6)
