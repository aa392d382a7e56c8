"""Slices are put into volumes by their numbers, whatever is lost, and everything is accounted for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.volumes.assembler import Assembler
from acquisition.volumes.plan import VolumePlan

SHAPE = (2, 3)


@st.composite
def losses(draw):
    """A plan and the numbers of the images that came."""
    plan = VolumePlan(
        10.0,
        0.5,
        draw(st.integers(1, 7)),
        draw(st.sampled_from(["both", "up", "down"])),
        draw(st.integers(0, 2)),
        begins_down=draw(st.booleans()),
    )
    images = draw(st.integers(1, 60))
    return plan, draw(st.lists(st.integers(0, images - 1), unique=True).map(sorted))


def image(number):
    return np.full(SHAPE, number + 1, np.uint16)


def expected(plan, came):
    """Volumes by what is in them: the number of the image of each slice, None where it is missing."""
    volumes = {}
    for number in came:
        place = plan.place(number)
        if place.slice >= 0:
            volumes.setdefault(place.volume, [None] * plan.slices)[place.slice] = number
    return volumes


def assembled(plan, came, needed, volumes=None):
    assembler = Assembler(SHAPE, "uint16", needed)
    assembler.begin(0, plan, volumes)
    done = []
    for number in came:
        done += assembler.take(number, image(number), number)
    return assembler, done


@given(losses(), st.data())
def test_whatever_is_lost_every_other_slice_is_in_its_place(lost, data):
    plan, came = lost
    needed = data.draw(st.integers(1, plan.slices))
    assembler, done = assembled(plan, came, needed)
    done += assembler.finish()
    inside = expected(plan, came)
    for volume in done:
        assert volume.number == volume.place
        assert list(volume.stamps) == inside[volume.place]
        for k, number in enumerate(volume.stamps):
            assert (volume.image[k] == (0 if number is None else number + 1)).all()
        assert volume.missing == tuple(k for k, n in enumerate(volume.stamps) if n is None)
        assert len(volume.stamps) - len(volume.missing) >= needed
        assert volume.upwards == plan.upwards(volume.place)


@given(losses(), st.data())
def test_the_totals_add_up(lost, data):
    plan, came = lost
    needed = data.draw(st.integers(1, plan.slices))
    assembler, done = assembled(plan, came, needed)
    done += assembler.finish()
    a = assembler.account
    assert a.images == len(came)
    assert a.whole + a.partial == len(done)
    assert a.whole == sum(not volume.missing for volume in done)
    assert a.slices == sum(len(v.stamps) - len(v.missing) for v in done)
    known = came[-1] + 1 if came else 0
    assert a.images + a.slices_lost + a.settling_lost == known
    assert a.whole + a.partial + a.lost == known // plan.images
    assert a.unfinished == (known % plan.images > 0)


@given(losses(), st.data())
def test_a_start_of_known_length_ends_with_all_its_volumes_accounted_for(lost, data):
    plan, came = lost
    volumes = data.draw(st.integers(1, 8))
    needed = data.draw(st.integers(1, plan.slices))
    assembler, done = assembled(plan, came, needed, volumes)
    done += assembler.finish()
    a = assembler.account
    assert a.whole + a.partial + a.lost == volumes
    assert a.unfinished == 0
    assert a.images == len(came)
    assert a.surplus == sum(number >= volumes * plan.images for number in came)
    came_for_it = len(came) - a.surplus
    assert came_for_it + a.slices_lost + a.settling_lost == volumes * plan.images
    assert [v.number for v in done] == sorted(v.number for v in done)


@given(losses(), losses())
def test_images_left_from_an_earlier_start_go_to_its_volumes(first, second):
    plan, came = first
    other, after = second
    begins = (came[-1] if came else -1) + 3
    assembler = Assembler(SHAPE, "uint16", 1)
    assembler.begin(0, plan)
    assembler.begin(begins, other)
    done = []
    for number in came:
        done += assembler.take(number, image(number), number)
    for number in after:
        done += assembler.take(begins + number, image(begins + number), begins + number)
    done += assembler.finish_all()
    early, late = expected(plan, came), expected(other, after)
    for volume in done:
        if volume.plan is plan:
            assert list(volume.stamps) == early[volume.place]
        else:
            assert list(volume.stamps) == [None if n is None else n + begins for n in late[volume.place]]
    assert assembler.account.images == len(came) + len(after)
    numbers = [volume.number for volume in done]
    assert numbers == sorted(set(numbers))


def test_a_volume_is_handed_over_with_its_last_slice():
    plan = VolumePlan(0.0, 1.0, 3, "up", 0)
    assembler, done = assembled(plan, [0, 1], 1)
    assert done == []
    assert [v.number for v in assembler.take(2, image(2), 2)] == [0]
    assert assembler.between


def test_a_volume_without_its_last_slice_is_handed_over_with_the_next_image():
    plan = VolumePlan(0.0, 1.0, 3, "up", 0)
    assembler, _ = assembled(plan, [0, 1], 1)
    (volume,) = assembler.take(3, image(3), 3)
    assert volume.missing == (2,)


def test_slices_of_a_downward_volume_are_in_order_of_rising_focus():
    plan = VolumePlan(0.0, 1.0, 3, "both", 0)
    _, done = assembled(plan, range(6), 1)
    assert [list(v.stamps) for v in done] == [[0, 1, 2], [5, 4, 3]]
    assert [v.upwards for v in done] == [True, False]


def test_an_image_that_comes_twice_or_too_late_is_refused():
    assembler, _ = assembled(VolumePlan(0.0, 1.0, 3, "up", 0), [0, 4], 1)
    with pytest.raises(ValueError, match="image 2 came after image 4"):
        assembler.take(2, image(2), 2)


def test_images_from_before_a_start_are_counted_and_left_out():
    assembler = Assembler(SHAPE, "uint16", 1)
    assert assembler.take(6, image(6), 6) == []
    assembler.begin(10, VolumePlan(0.0, 1.0, 2, "up", 0))
    assert assembler.take(7, image(7), 7) == []
    assert assembler.account.surplus == 2
    assembler.take(10, image(10), 10)
    assert [v.number for v in assembler.take(11, image(11), 11)] == [0]
