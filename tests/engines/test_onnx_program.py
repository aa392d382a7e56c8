"""The GPU program as the ONNX file that TensorRT gets finds what the processor's own path finds."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
from altered_models import altered, knowing_its_place, telling_kinds, with_a_knee
from hypothesis import example, given, settings
from hypothesis import strategies as st
from maps import empty_maps, put
from onnx import TensorProto, numpy_helper
from onnxscript import GraphBuilder, ir
from scipy.spatial import cKDTree
from written_program import WrittenProgram, raw_bytes, session

from engines.cuda.check import agreement, drawn_frame, logits_of, reference_answer
from engines.cuda.layout import COUNTS, INDEX, FrameFormat
from engines.cuda.ranges import LARGEST_HALF, MOST_LIGHT
from engines.cuda.unpacking import Answer, kept_slots
from engines.engine import BackEndError, WrongNumbersError
from engines.flatfield import FlatField
from engines.network.decode import LEAST_LOGIT, particles_of, slots_of
from engines.network.layout import LOGIT
from engines.network.model import OnnxModel
from engines.network.preparation import LEAST_LIGHT, Preparation
from engines.tensorrt.onnx_file import OUTPUTS, shapes_of, write_onnx
from engines.tensorrt.onnx_program import contrast_of, image_of, maps_of, pixels_of, strongest
from liveptv.models import SHIPPED_MODEL
from stream.errors import ConfigurationError

SHAPE = (275, 390)
FIELD = (300, 400)
SHIPPED = OnnxModel(SHIPPED_MODEL)
WEIGHTS = sum(
    numpy_helper.to_array(tensor).size for tensor in onnx.load(str(SHIPPED_MODEL)).graph.initializer
)
variants = [(dtype, flat) for dtype in (np.uint8, np.uint16) for flat in (False, True)]
quick = settings(max_examples=30, deadline=None)


def flat_field(shape, dtype) -> FlatField:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    full = np.iinfo(dtype).max
    return FlatField(
        full * (0.6 + 0.3 * columns / shape[1] - 0.2 * rows / shape[0]), np.full(shape, 0.02 * full)
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "plain": SHIPPED_MODEL,
        "place": knowing_its_place(folder / "place.onnx", FIELD),
        "knee": with_a_knee(folder / "knee.onnx", 10.0),
        "kinds": telling_kinds(folder / "kinds.onnx", 2),
    }


@pytest.fixture(scope="module")
def program(models):
    @functools.cache
    def opened(which: str, frame: FrameFormat, half: bool) -> WrittenProgram:
        return WrittenProgram(models[which], frame, half=half)

    return opened


def assert_same_slots(found, expected):
    """The same slots in any order, but for those within rounding of the least probability."""
    least = 1 / (1 + np.exp(-LEAST_LOGIT)) * (1 + 1e-3)
    found, expected = found[found[:, 7] > least], expected[expected[:, 7] > least]
    assert len(found) == len(expected)
    _, nearest = cKDTree(found).query(expected)
    assert len(set(nearest)) == len(expected)
    np.testing.assert_allclose(found[nearest], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("which", ["plain", "place", "knee", "kinds"])
@pytest.mark.parametrize(("dtype", "flat"), variants)
def test_in_single_precision_the_strongest_slots_are_the_processors(program, models, which, dtype, flat):
    model = OnnxModel(models[which])
    field = flat_field(SHAPE, dtype) if flat else None
    frame = FrameFormat.of(SHAPE, np.dtype(dtype), flat, 2000, model.card.kinds)
    image = drawn_frame(model.card, model.psf(), frame, field)
    preparation = Preparation(SHAPE, model.card.sign, model.card.noise_contrast, field)
    background = preparation.fill(image)
    planes = model(preparation.input)[0]
    answer, maps = program(which, frame, False)(image, field)
    answer.check()
    assert answer.complete
    expected = slots_of(planes)
    assert len(expected) >= 5
    assert_same_slots(kept_slots(answer, frame), expected)
    np.testing.assert_allclose(logits_of(maps), logits_of(planes), atol=5e-3)
    grey_values = 1.0 if field is None else field.grey_values
    assert answer.background * grey_values == pytest.approx(background, rel=2e-6)


@pytest.mark.parametrize("which", ["plain", "place", "knee", "kinds"])
@pytest.mark.parametrize(("dtype", "flat"), variants)
def test_in_half_precision_it_finds_the_same_particles_a_little_less_exactly(
    program, models, which, dtype, flat
):
    model = OnnxModel(models[which])
    field = flat_field(SHAPE, dtype) if flat else None
    frame = FrameFormat.of(SHAPE, np.dtype(dtype), flat, 2000, model.card.kinds)
    image = drawn_frame(model.card, model.psf(), frame, field)
    reference = reference_answer(model, image, field)
    answer, _ = program(which, frame, True)(image, field)
    found = agreement(reference.particles, particles_of(kept_slots(answer, frame)), model.card)
    assert found.sure >= 5
    assert (found.missed, found.invented) == (0, 0)
    assert found.xy_px < 0.05
    assert found.z_um < 0.5


def test_the_place_in_the_field_matters_and_is_known_from_the_size_of_the_frame(program, models):
    place, plain = (OnnxModel(models[which]) for which in ("place", "plain"))
    frame = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000)
    image = drawn_frame(place.card, place.psf(), frame, None)
    preparation = Preparation(SHAPE, place.card.sign, place.card.noise_contrast, None)
    preparation.fill(image)
    without = logits_of(plain(preparation.input)[0])
    for half, atol in ((False, 5e-3), (True, 0.25)):
        found = logits_of(program("place", frame, half)(image)[1])
        np.testing.assert_allclose(found, logits_of(place(preparation.input)[0]), atol=atol)
        assert np.abs(found - without).max() > 1.0


@pytest.mark.parametrize("which", ["plain", "place", "knee", "kinds"])
@pytest.mark.parametrize(("dtype", "flat"), variants)
@pytest.mark.parametrize("half", [True, False])
def test_the_file_has_every_type_and_shape_written_in_it(program, models, which, dtype, flat, half):
    frame = FrameFormat.of(SHAPE, np.dtype(dtype), flat, 2000, OnnxModel(models[which]).card.kinds)
    model = onnx.load_from_string(program(which, frame, half).file)
    onnx.checker.check_model(model, full_check=True)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    ends = {
        end.name: (
            tuple(dim.dim_value for dim in end.type.tensor_type.shape.dim),
            onnx.helper.tensor_dtype_to_np_dtype(end.type.tensor_type.elem_type),
        )
        for end in (*typed.input, *typed.output)
    }
    assert ends == {name: (shape, np.dtype(kind)) for name, (shape, kind) in shapes_of(frame).items()}
    assert tuple(end.name for end in typed.output) == OUTPUTS
    assert {node.op_type for node in typed.node if "raw" in node.input} == {"Cast"}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in typed.value_info}
    assert all(min(shape, default=1) > 0 for shape in shapes.values())
    types = {v.name: v.type.tensor_type.elem_type for v in (*typed.value_info, *typed.input, *typed.output)}
    types |= {tensor.name: tensor.data_type for tensor in typed.initializer}
    assert set(types) >= {name for node in typed.node for name in (*node.input, *node.output)}
    wanted = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    convolutions = [node for node in typed.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(convolutions) == 10
    assert {types[name] for node in convolutions for name in (*node.input, *node.output)} == {wanted}
    assert (TensorProto.FLOAT16 in types.values()) == half
    if half:  # TensorRT keeps a plane of zeros as large as the input for an odd number of channels
        assert all(shapes[node.input[0]][1] % 2 == 0 for node in convolutions)


@pytest.mark.parametrize("half", [True, False])
def test_a_file_holds_the_weights_once_and_no_map(program, half):
    frame = FrameFormat.of((1440, 2560), np.dtype(np.uint16), True, 4000)
    for which in ("plain", "place"):
        tensors = onnx.load_from_string(program(which, frame, half).file).graph.initializer
        weights = [tensor for tensor in tensors if ".weight" in tensor.name or ".bias" in tensor.name]
        assert sum(numpy_helper.to_array(tensor).size for tensor in weights) == WEIGHTS
        assert all(numpy_helper.to_array(tensor).size < 1024 for tensor in tensors if tensor not in weights)


def hot_pixels(rng, shape, top):
    return np.where(rng.random(shape) < 0.3, top, 0)


def half_dark(rng, shape, top):
    return np.broadcast_to(np.where(np.arange(shape[1]) < shape[1] // 2, 0.0, 0.7 * top), shape)


def particles(rng, shape, top):
    spots = 0.3 * (rng.random(shape) < 0.01)
    return 0.6 * top * (1.0 - spots + 0.01 * rng.standard_normal(shape))


PICTURES = {
    "no light": lambda rng, shape, top: np.zeros(shape),
    "saturated": lambda rng, shape, top: np.full(shape, top),
    "one value": lambda rng, shape, top: np.full(shape, rng.integers(1, top + 1)),
    "noise": lambda rng, shape, top: rng.integers(0, top + 1, shape),
    "hot pixels in the dark": hot_pixels,
    "half dark": half_dark,
    "particles": particles,
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("flat", ["", "even", "with zeros"])
@settings(max_examples=6, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 75), st.integers(1, 75)),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    half=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(shape=(33, 70), dtype=np.uint16, half=True, seed=1)
@example(shape=(33, 70), dtype=np.uint8, half=False, seed=1)
def test_any_frame_of_any_size_is_answered_as_by_the_processor(picture, flat, shape, dtype, half, seed):
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    image = np.clip(np.rint(picture(rng, shape, top)), 0, top).astype(dtype)
    field = flat_field(shape, dtype) if flat else None
    if flat == "with zeros":
        field.dark[rng.random(shape) < 0.3] = 0.0
        field.factor[rng.random(shape) < 0.3] = 0.0
    frame = FrameFormat.of(shape, np.dtype(dtype), field is not None, 2000)
    answer, maps = WrittenProgram(SHIPPED_MODEL, frame, half=half)(image, field)
    assert np.isfinite(answer.summary).all()
    assert np.isfinite(answer.kept).all()
    card = SHIPPED.card
    preparation = Preparation(shape, card.sign, card.noise_contrast, field)
    expected = preparation.fill(image)
    grey_values = 1.0 if field is None else field.grey_values
    if expected == 0.0:
        assert answer.background * grey_values < LEAST_LIGHT
        return
    if field is not None and expected > 1.9 * grey_values:
        # twice as bright as the reference the processor takes the mean of the two middle values
        sampled = np.sort(((image - field.dark) * field.factor)[:: frame.row_step], axis=None)
        lower, upper = sampled[(sampled.size - 1) // 2], sampled[sampled.size // 2]
        assert lower - 1e-4 < answer.background < upper + 1e-4
        assert answer.background < MOST_LIGHT - 1
        return
    assert answer.background * grey_values == pytest.approx(expected, rel=1e-4, abs=1e-6 * top)
    if not half:
        logits = logits_of(SHIPPED(preparation.input)[0])
        np.testing.assert_allclose(logits_of(maps), logits, atol=1e-2 + 1e-3 * np.abs(logits).max())


def built(shape_of_input, add, dtype=ir.DataType.FLOAT):
    """A session of a small graph: what `add` adds after one input."""
    builder = GraphBuilder(ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="part"))
    for number, value in enumerate(add(builder.op, builder.input("x", dtype, shape_of_input))):
        builder.add_output(value, f"y{number}")
    return session(ir.serde.serialize_model(ir.Model(builder.graph, ir_version=10)).SerializeToString())


@quick
@given(st.integers(2, 80), st.integers(2, 80), st.sampled_from([8, 16]), st.integers(0, 2**32 - 1))
def test_the_background_is_the_processors_median(height, width, bits, seed):
    rng = np.random.default_rng(seed)
    top = int(rng.integers(2, 1 << bits))
    image = rng.integers(1, top + 1, (height, width)).astype(np.uint8 if bits == 8 else np.uint16)
    preparation = Preparation((height, width), -1.0, 0.01, None)
    expected = preparation.fill(image)
    frame = FrameFormat.of((height, width), image.dtype, False, 2000)
    part = built(
        frame.raw_shape,
        lambda op, raw: contrast_of(op, pixels_of(op, raw, frame), frame, -100.0, None),
        ir.DataType.UINT8,
    )
    contrast, background = part.run(None, {"x": raw_bytes(image)})
    assert float(background) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(contrast, preparation.input[0, 0, :height, :width], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("height", [801, 1440])
def test_of_a_high_frame_the_background_is_that_of_the_same_rows_as_on_the_processor(height):
    frame = FrameFormat.of((height, 16), np.dtype(np.uint8), False, 2000)
    assert frame.row_step > 1
    image = np.full((height, 16), 10, np.uint8)
    image[:: frame.row_step] = np.random.default_rng(1).integers(90, 110, image[:: frame.row_step].shape)
    expected = Preparation((height, 16), -1.0, 0.01, None).fill(image)
    part = built(
        frame.raw_shape,
        lambda op, raw: contrast_of(op, pixels_of(op, raw, frame), frame, -100.0, None),
        ir.DataType.UINT8,
    )
    assert float(part.run(None, {"x": image})[1]) == pytest.approx(expected, rel=1e-6)


@functools.cache
def selecting(particles: int, kinds: int = 1):
    frame = FrameFormat.of((64, 96), np.dtype(np.uint8), False, particles, kinds)
    part = built(
        frame.maps_shape, lambda op, maps: strongest(op, maps, op.ReduceMax(maps, keepdims=0), frame)
    )
    return frame, lambda maps: Answer(*part.run(None, {"x": maps[None]}))


places = st.tuples(
    st.floats(0, 95), st.floats(0, 63), st.floats(-1, 1), st.integers(0, 1), st.floats(0.02, 1)
)


@quick
@given(st.lists(places, max_size=40), st.sampled_from([0, 2, 3]))
def test_kept_slots_are_those_of_the_maps_to_the_last_bit(wanted, classes):
    maps = empty_maps(classes=classes)
    for x, y, z, slot, p in wanted:
        put(maps, x, y, z, p=p, slot=slot)
    frame, select = selecting(2000, max(1, classes))
    answer = select(maps)
    assert answer.complete
    np.testing.assert_array_equal(kept_slots(answer, frame), slots_of(maps))


@quick
@given(st.integers(0, 2**32 - 1))
def test_where_there_is_no_room_for_all_the_strongest_are_kept_and_all_are_counted(seed):
    maps = np.random.default_rng(seed).normal(0.0, 3.0, (16, 24, 2, 9)).astype(np.float32)
    frame, select = selecting(8)
    answer = select(maps)
    assert not answer.complete
    strips = maps.reshape(frame.strips, -1, 9)
    logits = np.sort(strips[..., LOGIT], axis=1)[:, ::-1]
    np.testing.assert_array_equal(answer.kept[..., 1 + LOGIT], logits[:, : frame.kept])
    np.testing.assert_array_equal(answer.summary[COUNTS:], (logits > LEAST_LOGIT).sum(axis=1))
    index = answer.kept[..., INDEX].astype(int)
    for strip, kept, at in zip(strips, answer.kept, index, strict=True):
        np.testing.assert_array_equal(kept[:, 1:], strip[at])


@pytest.mark.parametrize(
    ("number", "what"), [(np.nan, "not finite numbers"), (np.inf, "not finite numbers"), (0.0, "same value")]
)
def test_answers_that_cannot_be_are_refused(number, what):
    maps = empty_maps()
    put(maps, 40, 30, 0.0)
    if number == 0.0:
        maps[:] = 0.0
    else:
        maps[3, 4, 1, 5] = number
    with pytest.raises(WrongNumbersError, match=what):
        selecting(2000)[1](maps).check()


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_maps_are_what_the_planes_of_a_model_file_say(classes):
    frame = FrameFormat.of((64, 96), np.dtype(np.uint8), False, 2000, max(1, classes))
    planes = np.random.default_rng(2).normal(0.0, 3.0, (1, 2 * (9 + classes), 16, 24)).astype(np.float32)
    part = built(planes.shape, lambda op, x: [maps_of(op, x, frame)])
    (maps,) = part.run(None, {"x": planes})
    assert maps.shape == frame.maps_shape
    expected = slots_of(planes[0])
    assert len(expected) > 300
    assert_same_slots(slots_of(maps[0]), expected)
    part = built(frame.maps_shape, lambda op, x: [op.Identity(maps_of(op, x, frame))])
    np.testing.assert_array_equal(part.run(None, {"x": maps})[0], maps)


@pytest.mark.parametrize("half", [True, False])
def test_the_network_gets_the_frame_at_the_upper_left_among_zeros_and_in_half_precision_never_infinity(half):
    frame = FrameFormat.of((20, 30), np.dtype(np.uint8), False, 2000)
    contrast = np.random.default_rng(0).normal(0.0, 1.0, (20, 30)).astype(np.float32)
    contrast[3, 4:6] = -1e9, 1e9
    (image,) = built((20, 30), lambda op, x: [image_of(op, x, frame, half=half)]).run(None, {"x": contrast})
    assert image.shape == (1, 1, 32, 32)
    assert image.dtype == (np.float16 if half else np.float32)
    largest = LARGEST_HALF if half else np.inf
    expected = np.clip(contrast, -largest, largest).astype(image.dtype)
    np.testing.assert_array_equal(image[0, 0, :20, :30], expected)
    assert not image[0, 0, 20:].any()
    assert not image[0, 0, :, 30:].any()


def test_without_the_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    for name in ("onnx_network", "onnx_program"):
        monkeypatch.delitem(__import__("sys").modules, f"engines.tensorrt.{name}")
    frame = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000)
    with pytest.raises(BackEndError, match="pip install onnx onnxscript"):
        write_onnx(SHIPPED_MODEL, SHIPPED, frame, half=True)


def test_weights_that_half_precision_cannot_hold_are_named(tmp_path):
    def change(graph, builder):
        node = next(iter(graph))
        large = ir.tensor(1e5 * np.sign(node.inputs[1].const_value.numpy()), name="large")
        node.replace_input_with(1, builder.initializer(large))

    path = altered(tmp_path / "model.onnx", change)
    frame = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000)
    with pytest.raises(BackEndError, match=r"large.*precision = \"full\""):
        write_onnx(path, OnnxModel(path), frame, half=True)
    write_onnx(path, OnnxModel(path), frame, half=False)


def test_a_file_with_branches_is_refused(tmp_path):
    def change(graph, builder):
        image, stem = graph.inputs[0], next(iter(graph))
        ends = [ir.val(name, ir.DataType.FLOAT, image.shape) for name in ("one", "other")]
        branches = [builder.subgraph(lambda op: op.Identity(image), [], [end]) for end in ends]
        either = builder.op.If(True, then_branch=branches[0], else_branch=branches[1])
        stem.replace_input_with(0, either)

    path = altered(tmp_path / "model.onnx", change)
    frame = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000)
    with pytest.raises(ConfigurationError, match=r"model\.onnx has loops or branches"):
        write_onnx(path, OnnxModel(path), frame, half=False)


def test_a_file_in_other_operators_is_refused(tmp_path):
    def change(graph, builder):
        graph.opset_imports[""] = 17

    path = altered(tmp_path / "model.onnx", change)
    frame = FrameFormat.of(SHAPE, np.dtype(np.uint8), False, 2000)
    with pytest.raises(ConfigurationError, match=r"model\.onnx is written in ONNX opset 17, not 18"):
        write_onnx(path, OnnxModel(path), frame, half=False)
