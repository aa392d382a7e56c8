"""The network for volumes learns, and reads stacks of any number of slices, with slices missing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from test_volume_drawing import EVEN

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from calibration.training.checkpoint import Course  # noqa: E402
from calibration.training.settings import TrainingError, TrainingSettings  # noqa: E402
from calibration.training.train import train  # noqa: E402
from calibration.volumes.drawing.placing import Crowd  # noqa: E402
from calibration.volumes.training.export import export, make_card, read_volume_weights  # noqa: E402
from calibration.volumes.training.loss import VolumeTargets, volume_loss  # noqa: E402
from calibration.volumes.training.material import VolumeMaterial, material_for  # noqa: E402
from calibration.volumes.training.method import method, targets_of  # noqa: E402
from engines.network.card_text import KEY  # noqa: E402
from engines.network.model_card import card_of  # noqa: E402
from engines.settings import DetectorSettings  # noqa: E402
from engines.volumes.network.agreement import SINGLE, check_agreement, difference, drawn_volume  # noqa: E402
from engines.volumes.network.architecture import WIDTHS, SteadyNorm, VolumeNet  # noqa: E402
from engines.volumes.network.decode import decode  # noqa: E402
from engines.volumes.network.layout import ABSENT, CHANNELS, LOGIT, STEP, STRIDE, X, Y, Z  # noqa: E402
from engines.volumes.network.model import VolumeOnnxModel  # noqa: E402
from engines.volumes.network.proposer import NetworkProposer  # noqa: E402
from engines.volumes.network.running import open_running  # noqa: E402
from engines.volumes.network.torch_network import TorchVolumeNetwork  # noqa: E402
from engines.volumes.psf import VolumePsf  # noqa: E402
from engines.volumes.surroundings.background import Background  # noqa: E402
from engines.volumes.surroundings.noise import Noise  # noqa: E402
from stream.errors import ConfigurationError  # noqa: E402

QUICK = TrainingSettings(
    minutes=5.0, steps=60, crop_px=32, batch=6, learning_rate=5e-3, average=0.9, score_every_s=1e6
)
BRIGHT = Crowd((4e-3, 8e-3), 0.2, snr=(10.0, 20.0), bright=0.0, mixed=0.0, beyond=0.0)


def bright_material() -> VolumeMaterial:
    psf = VolumePsf.gaussian(0.13, 0.13, 0.325, (0.25, 0.1, 0.1))
    material = material_for(psf, Noise(1.0, 0.0, 0.0), "bright spots", 10.0)
    source = replace(material.scoring, crowd=BRIGHT, surroundings=EVEN, slices=(6, 7), gaps=0.1)
    return replace(material, training=(source,))


@pytest.fixture(scope="module")
def trained():
    return train(bright_material, QUICK, method=replace(method(), half_on_cpu=lambda: False))


@pytest.fixture(scope="module")
def network(trained):
    network = VolumeNet()
    network.load_state_dict(trained.weights)
    return network.eval()


@pytest.fixture(scope="module")
def model_file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "volumes.onnx"
    material = bright_material()
    export(path, trained.weights, make_card(material, QUICK, trained, "00"), material.psf)
    return path


def targets(places, shape=(3, 8, 8)):
    """Targets of particles at `places` (z, y, x) in voxels, in one volume of `shape` cells."""
    at = (np.array(places, float) + 0.5) / [STEP, STRIDE, STRIDE]
    cell = np.clip(np.floor(at).astype(int), 0, np.array(shape) - 1)
    values = np.column_stack([(at - cell - 0.5)[:, ::-1], np.ones(len(at))])
    return VolumeTargets(
        torch.zeros(len(at), dtype=torch.int64), torch.from_numpy(cell), torch.from_numpy(values).float()
    )


def test_the_loss_is_least_where_cells_tell_the_truth():
    wanted = targets([(1.2, 9.3, 14.1), (4.4, 20.0, 3.9)])

    def loss(off=(0.0, 0.0, 0.0), logit=6.0, sigma=0.05):
        maps = torch.zeros(1, 3, 8, 8, CHANNELS)
        maps[..., 5:], maps[..., LOGIT] = sigma, -8.0
        for cell, values in zip(wanted.cell.tolist(), wanted.values, strict=True):
            own = maps[0, *cell]
            own[LOGIT], own[X : X + 4] = logit, values
            own[X] += off[0]
            own[Y] += off[1]
            own[Z] += off[2]
        return float(volume_loss(maps, wanted).total)

    best = loss()
    assert loss(logit=-8.0) > best + 10
    for axis in range(3):
        off = [0.0, 0.0, 0.0]
        off[axis] = 0.2
        assert loss(off) > best + 1
        assert loss(off, sigma=0.1) < loss(off)


def test_a_particle_may_be_told_by_the_next_cell_but_by_one_only():
    wanted = targets([(1.45, 7.45, 7.45)])
    maps = torch.zeros(1, 3, 8, 8, CHANNELS)
    maps[..., 5:], maps[..., LOGIT] = 0.05, -8.0

    def tell(*cell):
        place = (np.array([1.45, 7.45, 7.45]) + 0.5) / [STEP, STRIDE, STRIDE] - np.array(cell) - 0.5
        maps[0, *cell, LOGIT] = 6.0
        maps[0, *cell, X : X + 4] = torch.tensor([*place[::-1], 1.0])
        return float(volume_loss(maps, wanted).detection)

    alone = tell(1, 2, 2)
    assert alone < 0.2
    assert tell(0, 1, 1) > alone + 2


def test_no_particle_and_no_detection_costs_nothing():
    maps = torch.zeros(2, 2, 4, 4, CHANNELS)
    maps[..., 5:], maps[..., LOGIT] = 1.0, -20.0
    none = VolumeTargets(
        torch.zeros(0, dtype=torch.int64), torch.zeros((0, 3), dtype=torch.int64), torch.zeros((0, 4))
    )
    assert float(volume_loss(maps, none).total) == pytest.approx(0, abs=1e-5)


def test_targets_are_what_decoding_reads():
    scene = bright_material().scoring.draw(np.random.default_rng(1), (32, 40), 3)
    found = targets_of(scene)
    cells = (scene.images.shape[1] // STEP, 32 // STRIDE, 40 // STRIDE)
    planes = np.zeros((3, cells[0], CHANNELS, *cells[1:]), np.float32)
    planes[:, :, LOGIT] = -9
    for volume, cell, values in zip(
        found.volume.tolist(), found.cell.tolist(), found.values.numpy(), strict=True
    ):
        planes[volume, cell[0], LOGIT, cell[1], cell[2]] = 5
        planes[volume, cell[0], X : X + 4, cell[1], cell[2]] = values
        planes[volume, cell[0], 5:, cell[1], cell[2]] = -6
    for volume in range(3):
        cells_used = {
            tuple(c) for c, v in zip(found.cell.tolist(), found.volume.tolist(), strict=True) if v == volume
        }
        rows = decode(planes[volume])
        assert len(rows) == len(cells_used)
        true = scene.centres[scene.volume == volume][:, ::-1]
        for row in rows:
            assert np.abs(true - row[:3]).max(axis=1).min() < 1e-4


def test_a_short_training_learns(network):
    scene = bright_material().scoring.draw(np.random.default_rng(99), (32, 32), 12)
    fresh = method().build(QUICK, bright_material()).eval()

    def loss(some):
        with torch.no_grad():
            return float(volume_loss(some(torch.from_numpy(scene.images)), targets_of(scene)).total)

    assert loss(network) < 0.7 * loss(fresh)


def test_a_long_stack_has_no_seams_and_ends_where_it_ends(network):
    """Far from the ends a part of a stack gives what the whole gives; near an end it is known to be one."""
    scene = bright_material().scoring
    long = replace(scene, slices=(40, 40), gaps=0.0).draw(np.random.default_rng(3), (32, 32), 1).images
    with torch.no_grad():
        whole = network.planes(torch.from_numpy(long))
        part = network.planes(torch.from_numpy(np.ascontiguousarray(long[:, 8:32])))
        short = network.planes(torch.from_numpy(np.ascontiguousarray(long[:, :2])))
    assert torch.allclose(part[:, 4:-4], whole[:, 8:12], atol=1e-4)
    assert not torch.allclose(part[:, 0], whole[:, 4], atol=1e-2)
    assert short.shape[1] == 1
    assert torch.isfinite(short).all()


def test_a_missing_slice_is_not_looked_at_and_not_taken_for_darkness(network):
    source = replace(bright_material().scoring, gaps=0.0, slices=(6, 6))
    images = source.draw(np.random.default_rng(4), (32, 32), 1).images
    without, dark = images.copy(), images.copy()
    without[0, 2], dark[0, 2] = ABSENT, 0.0
    with torch.no_grad():
        given, absent, empty = (network.planes(torch.from_numpy(some)) for some in (images, without, dark))
    assert torch.isfinite(absent).all()
    assert float((absent - given).abs().max()) > 0.1
    assert float((absent - empty).abs().max()) > 1e-3


def test_normalisation_is_the_same_in_training_and_in_use():
    norm = SteadyNorm(3)
    batches = [torch.randn(8, 3, 6, 6) * 5 + 2 for _ in range(30)]
    norm.train()
    for batch in batches:
        norm(batch)
    tracked = int(norm.num_batches_tracked)
    assert tracked == 30
    assert float((norm.running_mean - 2).abs().max()) < 0.5
    assert float((norm.running_var - 25).abs().max()) < 5
    norm.num_batches_tracked.fill_(10**6)
    trained = norm(batches[0])
    norm.eval()
    assert torch.equal(trained, norm(batches[0]))


@pytest.mark.parametrize("size", WIDTHS)
def test_networks_start_with_matched_filters(size):
    """The stem of a new network answers to a particle of the PSF with its full strength."""
    material = bright_material()
    templates = material.templates()
    assert (templates**2).sum(axis=(1, 2, 3)) == pytest.approx(1, rel=1e-5)
    network = VolumeNet(size)
    network.start_with(torch.from_numpy(templates))
    sigma_z, sigma_y, sigma_x = material.psf.sigma_voxels
    z, y, x = np.meshgrid(np.arange(8), np.arange(32), np.arange(32), indexing="ij")
    # at the place of the first filter in cell (1, 3, 3)
    away = ((z - 2.0) / sigma_z) ** 2 + ((y - 12.5) / sigma_y) ** 2 + ((x - 12.5) / sigma_x) ** 2
    spot = np.exp(-0.5 * away).astype(np.float32)
    slices = torch.from_numpy(np.ascontiguousarray(spot[None, 1:5]))
    with torch.no_grad():
        answer = network.stem(slices)[0, : len(templates), 3, 3]
    assert int(answer.argmax()) == 0
    assert float(answer[0]) == pytest.approx(math.sqrt(float((spot**2).sum())), rel=0.04)


def test_a_model_file_gives_what_was_trained(model_file, trained):
    model = VolumeOnnxModel(model_file)
    assert model.card.made_from == "bright spots"
    assert model.card.calibration_sha256 == "00"
    assert model.volume_model.noise == Noise(1.0, 0.0, 0.0)
    assert model.volume_model.psf.sigma_um == pytest.approx((0.325, 0.13, 0.13))
    volume = drawn_volume(model)
    for depth, height, width in ((10, 64, 64), (2, 8, 8), (14, 24, 72)):
        given = np.random.default_rng(0).standard_normal((1, depth, height, width)).astype(np.float32)
        assert model(given).shape == (1, depth // 2, CHANNELS, height // 4, width // 4)
    weights = read_volume_weights(model_file, "small")
    assert all(torch.equal(weights[name], value) for name, value in trained.weights.items())
    found = difference(TorchVolumeNetwork(model)(volume), model(volume))
    assert found.probability < SINGLE.probability
    with pytest.raises(TrainingError, match="small network"):
        read_volume_weights(model_file, "large")


def test_a_back_end_that_gives_other_numbers_is_refused(model_file):
    model = VolumeOnnxModel(model_file)

    class Wrong:
        backend, device, precision = "wrong", "cpu", "float32"

        def __call__(self, volumes):
            return 0.7 * model(volumes)

    with pytest.raises(Exception, match="differs from onnxruntime"):
        check_agreement(Wrong(), model)


def test_a_back_end_that_cannot_run_volumes_says_so(model_file):
    with pytest.raises(ConfigurationError, match=r"tensorrt.*single images only"):
        open_running(DetectorSettings(backend="tensorrt"), VolumeOnnxModel(model_file), 1)


def test_onnx_runtime_takes_over_from_a_back_end_that_fails(model_file):
    said = []
    proposer = NetworkProposer(DetectorSettings(backend="onnxruntime"), model_file, say=said.append)

    class Failing:
        backend, device, precision = "failing", "cpu", "float32"

        def __call__(self, volumes):
            raise RuntimeError("out of memory")

    proposer._network = Failing()
    image = np.full((5, 20, 30), 10, np.uint16)
    given = image, np.zeros(5, bool), Background.flat(10.0, 5), Noise(1.0, 0.0, 0.0)
    proposer.propose(*given)
    assert said == ["failing failed: out of memory; onnxruntime continues"]
    assert proposer.back_end[0] == "onnxruntime"


def test_damaged_and_foreign_files_are_refused_in_one_line(model_file, tmp_path):
    def changed(**properties):
        model = onnx.load(str(model_file))
        kept = {entry.key: entry.value for entry in model.metadata_props} | properties
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {k: v for k, v in kept.items() if v is not None})
        path = tmp_path / "changed.onnx"
        onnx.save(model, str(path))
        return path

    card = json.loads(VolumeOnnxModel(model_file).metadata[KEY])
    for properties, words in (
        ({"liveptv_volume_psf": None}, "does not contain its PSF"),
        ({"liveptv_volume_psf": "{}"}, "PSF of a volume model is damaged"),
        ({KEY: None}, "is not a liveptv model"),
        ({KEY: json.dumps(card | {"noise": {"gain": -1}})}, "is damaged"),
        ({KEY: json.dumps(card | {"channels": 7})}, "are not this version's"),
        ({KEY: json.dumps(card | {"schema_version": 99})}, "newer liveptv"),
        ({KEY: json.dumps({k: v for k, v in card.items() if k != "kind"})}, "reads no volumes"),
        ({KEY: "["}, "is damaged"),
    ):
        with pytest.raises(ConfigurationError, match=words) as raised:
            VolumeOnnxModel(changed(**properties))
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="reads no single images"):
        card_of(VolumeOnnxModel(model_file).metadata, "volumes.onnx")


def test_a_training_resumes_where_it_ended(tmp_path):
    short = QUICK.model_copy(update={"steps": 3, "batch": 2, "checkpoint": tmp_path})
    material = partial(bright_material)
    first = train(material, short, method=method())
    longer = train(material, short.model_copy(update={"steps": 5}), method=method())
    assert isinstance(first, Course)
    assert [score["steps"] for score in longer.scores] == [3, 5]


def test_train_makes_a_network_of_a_calibration_for_volumes(tmp_path, capsys):
    import h5py

    from engines.volumes.layout import GROUP, KIND, KIND_ATTRIBUTE, NOISE, PSF
    from liveptv.cli.main import run_command_line

    calibration, output = tmp_path / "beads.h5", tmp_path / "volumes.onnx"
    with h5py.File(calibration, "w") as file:
        file.attrs[KIND_ATTRIBUTE] = KIND
        group = file.create_group(GROUP)
        for name, value in zip(NOISE, (1.0, 100.0, 4.0), strict=True):
            group.attrs[name] = value
        VolumePsf.gaussian(0.12, 0.12, 0.3, (0.2, 0.1, 0.1)).save(group.create_group(PSF))
    arguments = ["train", str(calibration), "-o", str(output), "--minutes", "0.02"]
    arguments += ["--processes", "1", "--batch", "1"]
    assert run_command_line(arguments) == 0
    assert "network for volumes written to" in " ".join(capsys.readouterr().out.split())
    card = VolumeOnnxModel(output).card
    assert card.made_from == "calibration beads.h5"
    assert len(card.calibration_sha256) == 64
    assert card.training["crop_px"] == 64
    assert run_command_line([*arguments, "--overwrite", "--from", str(calibration)]) != 0
