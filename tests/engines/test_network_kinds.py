"""The class of a particle, from the network's output to the detections."""

import numpy as np
import pytest
from maps import as_planes, empty_maps, put

from engines.network.decode import decode, particles_of, slots_of
from engines.network.layout import CHANNELS
from engines.network.model_card import ModelCard
from engines.network.postprocessing import to_table
from stream.messages import Detections

CARD = ModelCard(
    schema_version=3,
    pixel_size_um=0.5,
    polarity="dark",
    middle_um=0.0,
    half_range_um=50.0,
    noise_contrast=0.01,
    peak_contrast=0.1,
    size="small",
    made_from="a test",
    kinds=2,
)
ROWS = {name: row for row, name in enumerate(Detections.COLUMNS)}


def seen(maps):
    """Detections of maps and of the same maps as planes, which must agree."""
    one, other = decode(maps), decode(as_planes(maps))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    return one


@pytest.mark.parametrize("classes", [2, 3])
def test_each_particle_has_the_probabilities_of_its_slot(classes):
    maps = empty_maps(classes=classes)
    logits = np.linspace(-1, 2, classes)
    put(maps, 20, 20, 0.1, slot=0)
    put(maps, 70, 40, -0.3, slot=1)
    maps[20 // 4, 20 // 4, 0, CHANNELS:] = logits
    maps[40 // 4, 70 // 4, 1, CHANNELS:] = -logits
    found = seen(maps)
    found = found[np.argsort(found[:, 0])]
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found[0, 8:], expected, atol=1e-5)
    np.testing.assert_allclose(found[1, 8:], expected[::-1], atol=1e-5)


def test_slots_that_are_one_particle_have_one_opinion_by_their_shares():
    maps = empty_maps(classes=2)
    for slot, p, logit in ((0, 0.6, 3.0), (1, 0.4, -1.0)):
        put(maps, 30, 30, 0.2, p=p, slot=slot)
        maps[30 // 4, 30 // 4, slot, CHANNELS] = logit
    (found,) = seen(maps)
    first = 0.6 / (1 + np.exp(-3.0)) + 0.4 / (1 + np.exp(1.0))
    np.testing.assert_allclose(found[8:], [first, 1 - first], atol=1e-3)


def test_a_detection_has_the_likeliest_class_and_its_probability():
    maps = empty_maps(classes=2)
    put(maps, 20, 20, 0.1)
    maps[20 // 4, 20 // 4, 0, CHANNELS:] = 0.0, 1.5
    table = to_table(decode(maps), CARD, 200.0)
    assert table[ROWS["kind"], 0] == 1
    assert table[ROWS["p_kind"], 0] == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-5)
    assert np.isnan(table[ROWS["chi_square"], 0])
    assert to_table(particles_of(slots_of(empty_maps(classes=2))), CARD, 200.0).shape == (len(ROWS), 0)


def test_a_network_for_one_kind_tells_no_class():
    maps = empty_maps()
    put(maps, 20, 20, 0.1)
    table = to_table(decode(maps), CARD, 200.0)
    assert np.isnan(table[[ROWS["kind"], ROWS["p_kind"]]]).all()


def test_classes_that_are_no_numbers_are_refused():
    maps = empty_maps(classes=2)
    put(maps, 20, 20, 0.1)
    maps[20 // 4, 20 // 4, 0, CHANNELS] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        decode(as_planes(maps))
