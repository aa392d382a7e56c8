"""Predictions on optics that vary over the field: parts of a frame are read where they lie in it."""

from __future__ import annotations

import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from expected_particles import FIELD, PIXEL_UM, REGIONS, Flow, detect, uneven_psf

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from calibration.training.export import export, export_anew, read_weights  # noqa: E402
from engines.network.architecture import ParticleNet, Planes  # noqa: E402
from engines.network.engine import NetworkEngine  # noqa: E402
from engines.network.model import OnnxModel  # noqa: E402
from engines.network.tiles import origin_px, reach_blocks  # noqa: E402
from engines.settings import DetectorSettings  # noqa: E402
from liveptv.models import SHIPPED_MODEL  # noqa: E402
from stream.errors import ConfigurationError  # noqa: E402
from stream.messages import Detections, Predictions  # noqa: E402

PADDED = (400, 608)


def written(path: Path, ramps: float) -> Path:
    """The shipped network made to know its place, which changes its features by `ramps` (standard deviation)."""
    shipped = OnnxModel(SHIPPED_MODEL)
    generator = torch.Generator().manual_seed(5)
    network = ParticleNet("small", shipped.card.knee, FIELD)
    weights = network.state_dict() | read_weights(SHIPPED_MODEL, "small")
    for name in ("ramps_1", "ramps_2"):
        drawn = torch.randn(weights[f"{name}.coefficients"].shape, generator=generator)
        weights[f"{name}.coefficients"] = ramps * drawn
    card = shipped.card.model_copy(update={"schema_version": 3, "field_shape": FIELD})
    export(path, weights, card, uneven_psf())
    return path


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that sees a local image as the shipped one does, wherever it is."""
    return written(tmp_path_factory.mktemp("even") / "model.onnx", 0.0)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose answer depends on the place."""
    return written(tmp_path_factory.mktemp("uneven") / "model.onnx", 0.15)


class ImageOnly(Planes):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network.planes(image)


@pytest.fixture(scope="module")
def before(uneven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in a file as it was before parts could be read: the image is its only input."""
    from engines.network.torch_model import network_of

    path = tmp_path_factory.mktemp("before") / "model.onnx"
    model = OnnxModel(uneven)
    rows, columns = (16 * torch.export.Dim(name, min=2, max=1024) for name in ("rows", "columns"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            ImageOnly(network_of(model, "model.onnx")).eval(),
            (torch.zeros(1, 1, 64, 128),),
            str(path),
            dynamo=True,
            external_data=False,
            opset_version=18,
            input_names=["image"],
            output_names=["maps"],
            dynamic_shapes=({2: rows, 3: columns},),
            verbose=False,
        )
    graph = onnx.load(str(path))
    onnx.helper.set_model_props(graph, dict(model.metadata))
    onnx.save(graph, str(path))
    return path


def noise(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, 1, *shape)).astype(np.float32)


def opened(path: Path, shape: tuple[int, int]) -> NetworkEngine:
    engine = NetworkEngine(DetectorSettings(workers=1), PIXEL_UM, path)
    engine.warmup(*shape, np.dtype(np.uint8))
    return engine


def places(found: Detections) -> np.ndarray:
    return np.column_stack([found.x_um / PIXEL_UM, found.y_um / PIXEL_UM, found.z_um])


def nearest(found: Detections, to: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The detection nearest to each place (N, 3), and how far off it is (N, 3)."""
    off = places(found)[None] - to[:, None]
    which = np.abs(off / [1.0, 1.0, 10.0]).max(axis=2).argmin(axis=1)
    return which, off[np.arange(len(to)), which]


@pytest.mark.parametrize("shape", [PADDED, (320, 480), (448, 656)])
def test_a_part_is_read_as_it_is_in_the_whole_frame(uneven: Path, shape: tuple[int, int]) -> None:
    model, given = OnnxModel(uneven), noise(shape)
    assert model.may_read_parts
    whole, reach = model(given)[0], 16 * reach_blocks("small")
    x, y = origin_px(model.card.field_shape, shape)
    top, left = 16 * 3, 16 * 4
    part = np.ascontiguousarray(given[:, :, top:, left:])
    inside = np.s_[:, reach // 4 :, reach // 4 :]
    mine = whole[:, top // 4 :, left // 4 :][inside]
    np.testing.assert_allclose(model(part, (x + left, y + top))[0][inside], mine, atol=5e-4, rtol=1e-4)
    assert np.abs(model(part, (x, y))[0][inside] - mine).max() > 0.05
    assert np.abs(model(part)[0][inside] - mine).max() > 0.05


@pytest.mark.parametrize("shape", [PADDED, (320, 480), (448, 656), (64, 64)])
def test_whole_frames_are_read_as_before_bit_for_bit(
    uneven: Path, before: Path, shape: tuple[int, int]
) -> None:
    model, given = OnnxModel(uneven), noise(shape)
    whole = model(given)
    np.testing.assert_array_equal(whole, OnnxModel(before)(given))
    np.testing.assert_array_equal(whole, model(given, origin_px(model.card.field_shape, shape)))


def test_files_that_cannot_be_told_the_place_search_whole_frames(before: Path) -> None:
    assert not OnnxModel(before).may_read_parts
    flow = Flow(uneven_psf(), FIELD, count=8)
    with closing(opened(before, FIELD)) as engine:
        assert engine.info.details["prediction"] is False
        predicted = flow.predictions()
        flow.step()
        frame = flow.frame()
        np.testing.assert_array_equal(detect(engine, frame, predicted).table, detect(engine, frame).table)


def test_a_file_of_before_is_written_anew_to_read_parts(before: Path, tmp_path: Path) -> None:
    path = tmp_path / "anew.onnx"
    export_anew(before, path)
    old, new, given = OnnxModel(before), OnnxModel(path), noise(PADDED)
    assert new.may_read_parts
    assert dict(new.metadata) == dict(old.metadata)
    np.testing.assert_array_equal(new(given), old(given))


def test_a_file_whose_place_is_no_place_is_refused_when_it_is_opened(uneven: Path, tmp_path: Path) -> None:
    graph = onnx.load(str(uneven))
    for part in list(graph.graph.initializer):
        if part.name == "origin":
            graph.graph.initializer.remove(part)
    three = np.full((1, 3), np.nan, np.float32)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(three, "origin"))
    graph.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 3
    onnx.save(graph, str(tmp_path / "three.onnx"))
    with pytest.raises(ConfigurationError, match=r"three.onnx cannot be run: .*origin"):
        OnnxModel(tmp_path / "three.onnx")


def test_back_ends_that_know_nothing_of_parts_see_one_input(uneven: Path) -> None:
    openvino = pytest.importorskip("openvino")
    from engines.backends.openvino_network import OpenVinoNetwork, open_graph

    core, graph = open_graph(uneven)
    assert [end.get_any_name() for end in graph.inputs] == ["image"]
    network, model = OpenVinoNetwork(core, graph, 1, "float32"), OnnxModel(uneven)
    assert openvino is not None
    for shape in (PADDED, (320, 480)):
        np.testing.assert_allclose(network(noise(shape)), model(noise(shape)), atol=2e-3)


@pytest.mark.parametrize("shape", REGIONS)
def test_expected_particles_are_found_as_by_a_search_and_stated_errors_hold(
    even: Path, shape: tuple[int, int]
) -> None:
    pulls, apart, missed, false = [], [], [0, 0], [0, 0]
    with closing(opened(even, shape)) as engine:
        for seed in range(6):
            flow = Flow(uneven_psf(), shape, count=15, seed=seed)
            flow.particles[:, 2] *= 0.9
            predicted = flow.predictions()
            flow.step()
            frame, truth = flow.frame(), flow.particles[:, :3]
            both = [detect(engine, frame), detect(engine, frame, predicted)]
            good = []
            for way, found in enumerate(both):
                _, off = nearest(found, truth)
                good.append((np.abs(off) < [1.5, 1.5, 15.0]).all(axis=1))
                missed[way] += int((~good[-1]).sum())
                false[way] += len(found) - int(good[-1].sum())
            searched, corrected = both
            which, off = nearest(corrected, truth)
            sigma = np.column_stack(
                [corrected.sigma_x_um / PIXEL_UM, corrected.sigma_y_um / PIXEL_UM, corrected.sigma_z_um]
            )[which]
            pulls.append((off / sigma)[good[0] & good[1]])
            _, other = nearest(searched, truth)
            apart.append(((off - other) / sigma)[good[0] & good[1]])
        prediction = engine.info.details["prediction"]
    assert prediction["whole"] == 0
    assert prediction["predicted"] > 0.9 * 6 * 15
    assert prediction["tiles_px"] < 0.6
    assert missed[1] <= missed[0] + 1
    assert false[1] <= false[0] + 1
    np.testing.assert_array_less(np.quantile(np.abs(np.vstack(pulls)), 0.68, axis=0), 1.3)
    np.testing.assert_array_less(np.quantile(np.abs(np.vstack(apart)), 0.9, axis=0), 0.5)


@pytest.mark.parametrize("shape", REGIONS)
def test_new_particles_are_seen_with_the_eyes_for_their_place(uneven: Path, shape: tuple[int, int]) -> None:
    seen, alike = 0, []
    with closing(opened(uneven, shape)) as engine:
        for seed in range(8):
            flow = Flow(uneven_psf(), shape, count=9, seed=20 + seed)
            flow.particles[:, 2] *= 0.9
            predicted = flow.predictions()
            known = Predictions(predicted.info, np.ascontiguousarray(predicted.table[:, :8]))
            flow.step()
            frame = flow.frame()
            searched, helped = detect(engine, frame), detect(engine, frame, known)
            new = flow.particles[8:, :3]
            which, off = nearest(searched, new)
            there = (np.abs(off) < [1.5, 1.5, 15.0]).all(axis=1)
            mine, off = nearest(helped, new)
            assert (np.abs(off[there]) < [1.5, 1.5, 15.0]).all()
            seen += int(there.sum())
            alike.append((helped.confidence[mine] - searched.confidence[which])[there])
        assert engine.info.details["prediction"]["whole"] <= 2
    assert seen >= 6
    assert np.abs(np.concatenate(alike)).max() < 0.02
