"""The network knows where in the field of view it looks, whatever part of it the image shows."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engines.network.architecture import ParticleNet  # noqa: E402
from engines.network.field_ramps import FieldRamps  # noqa: E402
from engines.refine.field import FieldModel  # noqa: E402

SHAPE = (200, 330)
PADDED = (208, 336)


def knowing(**options):
    torch.manual_seed(1)
    network = ParticleNet(field_shape=SHAPE, **options).eval()
    for ramps in (network.ramps_1, network.ramps_2):
        torch.nn.init.normal_(ramps.coefficients)
    return network


def place_of(ramps, shape, origin=None, term=0):
    """The value of one term in all cells of an image."""
    with torch.no_grad():
        ramps.coefficients.zero_()
        ramps.coefficients[term] = 1.0
        cells = [size // ramps.stride for size in shape]
        return ramps(torch.zeros(1, 1, *cells), origin)[0, 0].numpy()


@pytest.mark.parametrize("stride", [8, 16])
def test_a_cell_is_where_the_field_model_has_the_middle_of_its_pixels(stride):
    field = FieldModel(SHAPE, np.zeros(6), np.zeros((2, 2)), np.zeros((0, 4, 3, 3)), np.zeros((0, 1)), 0)
    ramps = FieldRamps(1, stride, SHAPE)
    rows, columns = (np.arange(size // stride) * stride + (stride - 1) / 2 for size in PADDED)
    u, v = field.place(*np.meshgrid(columns, rows))
    for term, expected in enumerate((u, v, u**2, u * v, v**2)):
        np.testing.assert_allclose(place_of(ramps, PADDED, term=term), expected, atol=1e-6)


def test_a_crop_with_its_origin_is_the_same_part_of_the_whole_field():
    ramps = FieldRamps(1, 8, SHAPE)
    for term in range(5):
        whole = place_of(ramps, PADDED, term=term)
        part = place_of(ramps, (64, 96), torch.tensor([[40, 24]]), term)
        np.testing.assert_allclose(part, whole[3:11, 5:17], atol=1e-6)


def test_an_image_of_another_shape_has_the_same_middle():
    ramps = FieldRamps(1, 8, SHAPE)
    for term in (0, 1):
        place = place_of(ramps, (96, 96), term=term)
        assert place.mean() == pytest.approx(0, abs=1e-6)
        assert np.ptp(place) == pytest.approx((96 - 8) / (330 / 2))


def test_each_image_of_a_batch_has_its_own_place():
    network = knowing()
    images = torch.randn(2, 1, 64, 64)
    origin = torch.tensor([[0.0, 0.0], [200.0, 100.0]])
    with torch.no_grad():
        both = network(images, origin)
        for n in range(2):
            alone = network(images[n : n + 1], origin[n : n + 1])
            np.testing.assert_allclose(both[n], alone[0], atol=1e-5)
        here, there = network(images[:1].expand(2, -1, -1, -1), origin)
        assert float((here - there).abs().max()) > 1e-3


def test_before_training_the_place_makes_no_difference():
    torch.manual_seed(2)
    without = ParticleNet().eval()
    torch.manual_seed(2)
    fresh = ParticleNet(field_shape=SHAPE).eval()
    image = torch.randn(1, 1, *PADDED)
    with torch.no_grad():
        np.testing.assert_array_equal(fresh(image), without(image))
