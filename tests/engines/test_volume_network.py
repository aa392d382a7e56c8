"""The network for volumes that comes with the program, as engines use it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from engines.network.model_card import card_of
from engines.settings import DetectorSettings
from engines.volumes.network.layout import ABSENT
from engines.volumes.network.model import VolumeOnnxModel
from engines.volumes.network.preparation import VolumePreparation
from engines.volumes.network.proposer import NetworkProposer
from engines.volumes.proposal import Proposer
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise
from liveptv.models import SHIPPED_VOLUME_MODEL
from stream.errors import ConfigurationError

NOISE = Noise(1.0, 0.0, 0.0)
SIGMA = 1.3


@pytest.fixture(scope="module")
def proposer():
    return NetworkProposer(DetectorSettings(backend="onnxruntime"), SHIPPED_VOLUME_MODEL)


def scene(places, peaks, shape=(10, 64, 72), background=10.0, seed=0):
    grids = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij", sparse=True)
    mean = np.broadcast_to(np.asarray(background, float), shape).copy()
    for place, peak in zip(places, np.broadcast_to(peaks, len(places)), strict=True):
        away = sum(((grid - at) / SIGMA) ** 2 for grid, at in zip(grids, place, strict=True))
        mean += peak * np.exp(-0.5 * away)
    return np.random.default_rng(seed).poisson(mean).astype(np.uint16)


def spread(count, shape, seed=1, least=7.0):
    """Places in a volume at least some voxels apart."""
    rng, places = np.random.default_rng(seed), []
    while len(places) < count:
        place = rng.uniform(0, np.array(shape) - 1)
        if not places or cdist([place], places).min() > least:
            places.append(place)
    return np.array(places)


def given(image, background=10.0, missing=()):
    which = np.zeros(len(image), bool)
    which[list(missing)] = True
    return image, which, Background.flat(background, len(image)), NOISE


def zyx(found):
    return np.column_stack([found.z, found.y, found.x])


def likely(found):
    return found.take(found.probability > 0.5)


def test_it_is_a_proposer_with_its_psf(proposer):
    assert isinstance(proposer, Proposer)
    assert proposer.volume_model.psf.sigma_voxels == pytest.approx((SIGMA, SIGMA, SIGMA))
    assert proposer.volume_model.noise == NOISE
    assert proposer.back_end == ("onnxruntime", "cpu", "float32")


@pytest.mark.parametrize("shape", [(10, 64, 72), (7, 50, 61), (24, 40, 64)], ids=str)
def test_clear_particles_are_found_where_they_are(proposer, shape):
    """Also where the volume is no multiple of the network's cells, and deeper than those of the training."""
    places = spread(14, shape)
    found = likely(proposer.propose(*given(scene(places, 40.0, shape))))
    apart = cdist(places, zyx(found))
    # a second cell may tell of the same particle; the fit behind makes one of both
    assert len(places) <= len(found) <= len(places) + 2
    assert apart.min(axis=0).max() < 1.0
    assert apart.min(axis=1).max() < 1.0
    assert np.sqrt((apart.min(axis=1) ** 2).mean()) < 0.5
    assert np.abs(np.log(found.amplitude / 40.0)).max() < 0.5
    # the strength of a matched filter, sqrt(sum g^2) = 3.5 inside the volume, less at its ends
    inside = (found.z > 3) & (found.z < shape[0] - 4)
    expected = found.amplitude / np.sqrt(10.0) * (np.pi**1.5 * SIGMA**3) ** 0.5
    assert found.strength[inside] == pytest.approx(expected[inside], rel=0.05)
    assert (found.strength <= 1.05 * expected).all()


def fitted_behind(proposer, image):
    """Places (N, 3) along z, y, x, voxels, of the detector with the joint fit behind the network."""
    from engines.volumes.detector import COLUMNS, VolumeDetector, Voxel

    detector = VolumeDetector(
        proposer.volume_model.psf, Voxel(0.25, 0.1), DetectorSettings(), NOISE, proposer
    )
    table, _ = detector.detect(image, np.zeros(10, bool), 0.25 * np.arange(10), np.zeros(10))
    return np.column_stack(
        [table[COLUMNS[f"{a}_um"]] / s for a, s in zip("zyx", (0.25, 0.1, 0.1), strict=True)]
    )


def test_the_fit_behind_it_finds_each_once(proposer):
    places = spread(14, (10, 64, 72))
    found = fitted_behind(proposer, scene(places, 40.0))
    assert len(found) == len(places)
    assert cdist(places, found).min(axis=1).max() < 0.6


def test_noise_alone_holds_hardly_a_particle(proposer):
    found = likely(proposer.propose(*given(scene([], 0.0, (10, 160, 160)))))
    assert len(found) <= 1


def test_a_pair_that_a_filter_sees_as_one_is_two(proposer):
    """3.2 voxels, 2.5 standard deviations, apart, at which the sum of two Gaussians hardly has two peaks."""
    middle = np.array([4.6, 31.0, 35.0])
    pairs = []
    for turn in np.linspace(0, np.pi, 6, endpoint=False):
        half = 1.6 * np.array([0.0, np.sin(turn), np.cos(turn)])
        places = np.array([middle - half, middle + half])
        image = scene(places, 100.0, seed=int(10 * turn))
        found = likely(proposer.propose(*given(image)))
        # a second cell may tell of the same particle; the fit behind makes one of both
        assert 2 <= len(found) <= 3
        assert cdist(places, zyx(found)).min(axis=1).max() < 1.2
        found = fitted_behind(proposer, image)
        pairs.append(len(found) == 2 and cdist(places, found).min(axis=1).max() < 0.3)
    assert sum(pairs) >= 5


def test_a_background_that_varies_is_not_taken_for_particles(proposer):
    """Its estimate knows a constant only and is wrong by up to a sixth of the noise: the network sees it itself."""
    y, x = np.mgrid[:96, :96]
    wave = 10 * (1 + 0.05 * np.sin(x / 15) * np.cos(y / 18))
    places = spread(10, (10, 96, 96))
    found = likely(proposer.propose(*given(scene(places, 40.0, (10, 96, 96), background=wave))))
    apart = cdist(places, zyx(found))
    assert apart.min(axis=1).max() < 1.2
    assert len(found) <= len(places) + 2


def test_what_a_missing_slice_would_have_shown_makes_no_difference(proposer):
    places = np.array([[2.2, 20.0, 20.0], [7.4, 40.0, 50.0]])
    image = scene(places, 60.0)
    image[5] = 0
    noisy = image.copy()
    noisy[5] = 60_000
    found, same = (likely(proposer.propose(*given(some, missing=[5]))) for some in (image, noisy))
    assert zyx(found) == pytest.approx(zyx(same))
    assert cdist(places, zyx(found)).min(axis=1).max() < 1.0
    assert len(found) == 2


def test_a_volume_without_a_slice_has_no_particle(proposer):
    assert len(proposer.propose(*given(np.zeros((4, 16, 16), np.uint16), missing=range(4)))) == 0


def test_the_input_is_in_units_of_the_noise_whatever_is_around():
    image = scene(spread(3, (5, 19, 30)), 30.0, (5, 19, 30), background=20.0)
    grid = np.linspace(15, 25, 5 * 2 * 3).astype(np.float32).reshape(5, 2, 3)
    background, noise = Background(grid, 12), Noise(2.0, 5.0, 4.0)
    missing = np.array([False, True, False, False, False])
    preparation = VolumePreparation(image.shape)
    for _ in range(2):
        preparation.fill(image, missing, background, noise)
        assert preparation.input.shape == (1, 6, 24, 32)
        below = background.field(19, 30).astype(np.float64)
        spread_at_cells = noise.variance(grid) ** -0.5
        factor = Background(spread_at_cells.astype(np.float32), 12).field(19, 30)
        expected = (image - below) * factor
        own = preparation.input[0, :5, :19, :30]
        assert own[~missing] == pytest.approx(expected[~missing], abs=2e-3)
        assert (preparation.input[0, [1, 5]] == ABSENT).all()
        assert (preparation.input[0, 0, 19:] == 0).all()
        assert (preparation.input[0, 0, :, 30:] == 0).all()
        preparation.input[0, :5, 3:9] = 7.0


@pytest.mark.parametrize(("backend", "library"), [("torch", "torch"), ("openvino", "openvino")])
def test_back_ends_give_the_same_proposals(proposer, backend, library):
    pytest.importorskip(library)
    image = scene(spread(14, (10, 64, 72)), 25.0)
    other = NetworkProposer(DetectorSettings(backend=backend, precision="full"), SHIPPED_VOLUME_MODEL)
    assert other.back_end == (backend, "cpu", "float32")
    found, expected = other.propose(*given(image)), proposer.propose(*given(image))
    assert len(found) == len(expected) >= 14
    assert zyx(found) == pytest.approx(zyx(expected), abs=0.02)
    assert found.probability == pytest.approx(expected.probability, abs=0.01)


def test_each_reader_refuses_the_others_networks(tmp_path):
    from liveptv.models import SHIPPED_MODEL

    with pytest.raises(ConfigurationError, match="network for images, which reads no volumes"):
        VolumeOnnxModel(SHIPPED_MODEL)
    with pytest.raises(ConfigurationError, match="network for volumes, which reads no single images"):
        card_of(VolumeOnnxModel(SHIPPED_VOLUME_MODEL).metadata, "volumes.onnx")
    with pytest.raises(ConfigurationError, match="no model file"):
        VolumeOnnxModel(tmp_path / "none.onnx")
