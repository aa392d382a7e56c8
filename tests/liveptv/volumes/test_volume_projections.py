import imagecodecs
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from page_runs import card_of, info_of

from liveptv.monitor.packets import image_packet, unpack
from liveptv.monitor.run_view import RunView
from liveptv.volumes.projections import projections, rows_of, slice_edges_um
from stream.messages import Detections, Frame, FrameInfo, Tracks
from stream.volume_info import VolumeInfo


def volume_of(image, z_um=None, missing=()):
    z_um = tuple(float(k) for k in range(len(image))) if z_um is None else tuple(z_um)
    info = FrameInfo("r", 0, 0, 0.0, 0, 0.0, pixel_size_um=0.5, volume=VolumeInfo(z_um, missing=missing))
    return Frame(info, image)


def test_a_voxel_is_seen_at_its_place_in_all_three_projections():
    image = np.zeros((5, 20, 30), np.uint16)
    image[3, 7, 11] = 900
    seen = projections(volume_of(image))
    assert np.argwhere(seen.xy).tolist() == [[7, 11]]
    assert np.argwhere(seen.xz).tolist() == [[3, 11]]
    assert np.argwhere(seen.yz).tolist() == [[7, 3]]
    assert (seen.low_um, seen.high_um, seen.slices) == (-0.5, 4.5, 5)


def test_a_slice_without_an_image_is_left_out_and_its_span_is_told():
    image = np.full((4, 6, 6), 50, np.uint8)
    image[2] = 0
    seen = projections(volume_of(image, [0.0, 2.0, 4.0, 6.0], (2,)))
    assert seen.xy.min() == 50
    assert (seen.xz[2] == 0).all()
    assert seen.missing_um == ((3.0, 5.0),)


def test_slices_at_uneven_distances_take_as_much_room_as_they_are_apart():
    image = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    seen = projections(volume_of(image, [0.0, 1.0, 2.0, 6.0]))
    rows_um = (seen.high_um - seen.low_um) / len(seen.xz)
    spans = [rows_um * np.count_nonzero(seen.xz[:, 0] == k) for k in range(4)]
    np.testing.assert_allclose(spans, np.diff([-0.5, 0.5, 1.5, 4.0, 8.0]), atol=rows_um)


@given(st.lists(st.floats(0.05, 5.0), min_size=1, max_size=20))
def test_every_slice_has_rows_of_its_own_unless_it_is_much_thinner_than_the_others(steps):
    z_um = np.concatenate([[0.0], np.cumsum(steps)])
    edges_um = slice_edges_um(z_um)
    assert (np.diff(edges_um) > 0).all()
    rows = rows_of(z_um, edges_um)
    assert (np.diff(rows) >= 0).all()
    thick = np.diff(edges_um) > 1.01 * (edges_um[-1] - edges_um[0]) / rows.size
    assert set(np.flatnonzero(thick)) <= set(rows.tolist())


def test_the_page_gets_three_projections_and_the_heights_of_the_stack():
    image = np.full((6, 40, 60), 10, np.uint16)
    image[4, 10, 20] = 4000
    info = info_of(0)
    volume = VolumeInfo(tuple(1.5 * k for k in range(6)), missing=(1,))
    info = FrameInfo(**{name: getattr(info, name) for name in info.__slots__} | {"volume": volume})
    view = RunView()
    view.introduce(card_of())
    place = {"x_um": np.array([16.0]), "y_um": np.array([8.0]), "z_um": np.array([6.0])}
    view.take(Frame(info, image))
    view.take(Detections.from_columns(info, **place))
    view.take(Tracks.from_columns(info, track=np.zeros(1), **place))
    header, blobs = unpack(image_packet(view, view.shown))
    assert header["volume"] == {"slices": 6, "z_um": [-0.75, 8.25], "missing_um": [[0.75, 2.25]]}
    assert header["depth_um"] == [-0.75, 8.25]
    xy, xz, yz = (imagecodecs.jpeg8_decode(blobs[k]) for k in (0, 3, 4))
    assert (xy.shape, xz.shape, yz.shape) == ((40, 60), (6, 60), (40, 6))
    brightest = [np.unravel_index(each.argmax(), each.shape) for each in (xy, xz, yz)]
    assert brightest == [(10, 20), (1, 20), (10, 4)]  # heights upwards in xz, to the right in yz


def test_a_large_volume_is_sent_small():
    seen = projections(volume_of(np.zeros((3, 1000, 1500), np.uint8)))
    assert seen.xy.shape == (1000, 1500)
    from liveptv.monitor.images import small_image

    small = small_image(volume_of(np.zeros((3, 1000, 1500), np.uint8)))
    assert small.sides is not None
    xz, yz = imagecodecs.jpeg8_decode(small.sides.xz), imagecodecs.jpeg8_decode(small.sides.yz)
    assert (small.height_px, small.width_px) == (500, 750)
    assert (xz.shape, yz.shape) == ((3, 750), (500, 3))
