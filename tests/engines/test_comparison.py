from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from engines.comparison.detector import PaperDetector, Units, save_detector  # noqa: E402
from engines.comparison.inception import EARLY_CHANNELS, LATE_CHANNELS, Encoder  # noqa: E402
from engines.comparison.layout import (  # noqa: E402
    CENTRE_PX,
    CORRECTED,
    FIRST,
    HALF_REGION_PX,
    LOGIT,
    OUTPUTS,
    REGION_PX,
    X,
    Y,
    Z,
)
from engines.comparison.stitching import read, stitch  # noqa: E402
from engines.comparison.tensorbox import CORRECTION_SCALE, Decoder, PaperNet, positions_px, rezoom  # noqa: E402
from engines.network.decode import ROW  # noqa: E402
from stream.errors import ConfigurationError  # noqa: E402

UNITS = Units(0.8, "dark", 10.0, 200.0, 0.02, "nothing")


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return PaperNet().eval()


def silent(rows=3, columns=4):
    answers = np.zeros((rows, columns, OUTPUTS, 2, 4), np.float32)
    answers[..., LOGIT] = -9.0
    return answers


def say(answers, region, output, x_px, y_px, z, confidence):
    row, column = region
    said = answers[row, column, output, CORRECTED]
    said[LOGIT] = np.log(confidence / (1 - confidence))
    said[X] = (x_px - REGION_PX * column - CENTRE_PX) / HALF_REGION_PX
    said[Y] = (y_px - REGION_PX * row - CENTRE_PX) / HALF_REGION_PX
    said[Z] = z


def column(found, name):
    return found[:, ROW.index(name)]


def test_the_features_have_an_eighth_and_a_thirty_second_of_the_resolution():
    with torch.no_grad():
        early, late = Encoder().eval()(torch.zeros(2, 1, 96, 64))
    assert early.shape == (2, EARLY_CHANNELS, 12, 8)
    assert late.shape == (2, LATE_CHANNELS, 3, 2)


def test_features_are_centred_on_the_pixels_that_they_stand_for():
    """The pixels that a cell depends on lie evenly about the centre that is stated for it."""
    torch.manual_seed(0)
    encoder = Encoder().eval()
    image = torch.randn(1, 1, 192, 192, requires_grad=True)
    early, _ = encoder(image)
    (gradient,) = torch.autograd.grad(early[0, :, 12, 10].sum(), image)
    rows, columns = (torch.nonzero(gradient[0, 0].abs().sum(k)).flatten() for k in (1, 0))
    assert float(rows[[0, -1]].float().mean()) == pytest.approx(8 * 12, abs=2)
    assert float(columns[[0, -1]].float().mean()) == pytest.approx(8 * 10, abs=2)


def test_each_region_has_four_outputs_with_two_answers_of_confidence_and_position(network):
    with torch.no_grad():
        answers = network(torch.zeros(2, 1, 64, 96))
    assert answers.shape == (2, 2, 3, OUTPUTS, 2, 4)


def test_the_lstm_is_that_of_torch():
    torch.manual_seed(0)
    ours = Decoder(12, states=6)
    theirs = torch.nn.LSTM(12, 6, batch_first=True)
    order = [0, 1, 3, 2]  # torch has the gate of the output last
    with torch.no_grad():
        weights = (ours.of_input.weight, ours.of_state.weight, ours.of_input.bias)
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
        for weight, name in zip(weights, names, strict=True):
            parts = weight.chunk(4)
            getattr(theirs, name).copy_(torch.cat([parts[k] for k in order]))
        theirs.bias_hh_l0.zero_()
    features = torch.randn(5, 12)
    expected, _ = theirs(features[:, None].expand(-1, OUTPUTS, -1))
    torch.testing.assert_close(ours(features), expected)


@given(
    x=st.floats(9.0, 110.0),
    y=st.floats(9.0, 78.0),
    a=st.floats(-2, 2),
    b=st.floats(-2, 2),
    c=st.floats(-5, 5),
)
@settings(max_examples=50, deadline=None)
def test_interpolation_is_exact_on_features_that_are_linear_in_space(x, y, a, b, c):
    down, across = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    early = (a * 8 * across + b * 8 * down + c)[None, None]
    found = rezoom(early, torch.tensor([[[x, y]]], dtype=torch.float32))[0, 0]
    corners = [(-8.0, -8.0), (8.0, -8.0), (-8.0, 8.0), (8.0, 8.0)]
    expected = [a * (x + dx) + b * (y + dy) + c for dx, dy in corners]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_beyond_the_edge_the_features_are_those_at_the_edge():
    early = torch.arange(16.0).view(1, 1, 1, 16).expand(1, 1, 12, 16)
    found = rezoom(early, torch.tensor([[[-300.0, 40.0], [900.0, 40.0]]]))[0]
    assert found[0].tolist() == [0.0] * 4
    assert found[1].tolist() == [15.0] * 4


def test_the_correction_moves_the_first_position_and_replaces_the_confidence(network):
    with torch.no_grad():
        for head in network.correction:
            head.weight.zero_()
            head.bias.copy_(torch.tensor([3.0, 0.1, -0.2, 0.3]))
        answers = network(torch.randn(1, 1, 64, 64))
    step = answers[..., CORRECTED, X:] - answers[..., FIRST, X:]
    expected = CORRECTION_SCALE * torch.tensor([0.1, -0.2, 0.3]).expand_as(step)
    torch.testing.assert_close(step, expected, atol=1e-6, rtol=1e-5)
    assert (answers[..., CORRECTED, LOGIT] == 3.0).all()


def test_positions_are_counted_from_the_first_pixels_centre():
    values = torch.zeros(1, 2, 3, 1, 4)
    values[0, 1, 2, 0, X], values[0, 1, 2, 0, Y] = 0.5, -0.25
    x, y = positions_px(values)[0, 1, 2, 0].tolist()
    assert (x, y) == (64 + 15.5 + 8, 32 + 15.5 - 4)


def test_answers_become_a_table_of_particles_the_most_confident_first():
    answers = silent()
    say(answers, (1, 2), 0, 80.25, 40.5, 0.3, 0.7)
    say(answers, (0, 0), 1, 3.5, 20.0, -0.9, 0.95)
    say(answers, (2, 3), 3, 120.0, 90.0, 0.0, 0.3)
    found = read(answers)
    assert found.shape == (2, len(ROW))
    np.testing.assert_allclose(column(found, "x_px"), [3.5, 80.25], atol=1e-4)
    np.testing.assert_allclose(column(found, "y_px"), [20.0, 40.5], atol=1e-4)
    np.testing.assert_allclose(column(found, "z"), [-0.9, 0.3], atol=1e-6)
    np.testing.assert_allclose(column(found, "confidence"), [0.95, 0.7], atol=1e-5)
    assert np.isnan(column(found, "sigma_z")).all()
    assert read(silent()).shape == (0, len(ROW))


def test_a_particle_that_two_regions_have_seen_counts_once():
    answers = silent()
    say(answers, (1, 1), 0, 62.0, 40.0, 0.3, 0.75)
    say(answers, (1, 2), 0, 64.0, 41.0, 0.35, 0.9)
    found = read(answers)
    assert column(found, "x_px") == pytest.approx([64.0])


def test_two_particles_with_one_centre_remain_two_also_where_both_regions_have_seen_both():
    answers = silent()
    say(answers, (1, 1), 0, 62.0, 40.0, 0.3, 0.95)
    say(answers, (1, 1), 1, 62.5, 40.0, -0.4, 0.65)
    assert len(read(answers)) == 2
    say(answers, (1, 2), 0, 63.0, 40.0, -0.4, 0.9)
    say(answers, (1, 2), 1, 62.0, 40.0, 0.3, 0.72)
    found = read(answers)
    assert sorted(column(found, "z")) == pytest.approx([-0.4, 0.3])


def test_neighbours_out_of_reach_of_one_another_are_both_kept():
    answers = silent()
    say(answers, (1, 1), 0, 60.0, 40.0, 0.3, 0.95)
    say(answers, (1, 2), 0, 69.0, 40.0, 0.3, 0.95)
    assert len(read(answers)) == 2


@given(seed=st.integers(0, 10_000), count=st.integers(1, OUTPUTS))
@settings(max_examples=50, deadline=None)
def test_what_one_region_says_is_kept_and_what_a_second_one_repeats_is_not(seed, count):
    rng = np.random.default_rng(seed)
    places = rng.uniform([0, 0, -16], [32, 32, 16], (count, 3))
    confidence = rng.uniform(0.5, 1.0, count)
    regions = np.zeros((count, 2), np.intp)
    assert sorted(stitch(places, confidence, regions)) == list(range(count))

    again = rng.permutation(places) + rng.normal(0, 0.05, places.shape)
    both = np.concatenate([places, again]), np.concatenate([confidence, rng.uniform(0.5, 1.0, count)])
    kept = stitch(*both, np.concatenate([regions, regions + np.array([0, 1])]))
    assert len(kept) == count
    assert (np.diff(both[1][kept]) <= 0).all()


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="not finite numbers"):
        read(np.full((1, 1, OUTPUTS, 2, 4), np.nan, np.float32))


def test_a_file_gives_the_same_detector_again(network, tmp_path):
    with torch.no_grad():
        for head in network.correction:
            head.bias[LOGIT] = 2.0
    path = tmp_path / "paper.pt"
    save_detector(path, network.state_dict(), UNITS)
    assert [p.name for p in tmp_path.iterdir()] == ["paper.pt"]
    detector = PaperDetector(path)
    assert detector.units == UNITS
    image = np.random.default_rng(0).integers(90, 110, (70, 100), np.uint8)
    found = detector.detect(image)
    count = found["x_um"].size
    assert count > 0
    assert all(values.shape == (count,) for values in found.values())
    assert (found["x_um"] < 0.8 * 99.5).all()
    assert (found["y_um"] < 0.8 * 69.5).all()
    assert detector.detect(np.zeros((70, 100), np.uint8))["x_um"].size == 0


def test_a_file_that_is_no_detector_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no detector file"):
        PaperDetector(tmp_path / "nothing.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ConfigurationError, match="not a file of the paper's detector"):
        PaperDetector(tmp_path / "broken.pt")
