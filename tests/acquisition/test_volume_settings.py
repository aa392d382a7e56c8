"""Settings and plans of volumes that cannot be are refused in a line that says what to change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from small_volumes import LIMITS, small_volume

from acquisition.microscope.frame_stamps import CameraNumbers
from acquisition.settings import MicroscopeSettings
from acquisition.volumes.plan import VolumePlan, plan_volumes
from acquisition.volumes.settings import VolumeSettings
from liveptv.config import Experiment
from stream.errors import ConfigurationError


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"centre_um": 9.0}, "not both"),
        ({"least_slices": 6}, "least_slices"),
        ({"mode": "stepped", "settle_images": 2}, "settle_s"),
        ({"slices": 1}, "greater than or equal to 2"),
        ({"z_step_um": 0.0}, "greater than 0"),
        ({"direction": "triangle"}, "'both', 'up' or 'down'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        small_volume(**wrong)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"limits": LIMITS}, "add a .microscope."),
        ({"microscope": MicroscopeSettings(config="fluorescence")}, "limits.min_focus_um"),
    ],
)
def test_volumes_need_a_microscope_and_limits(sections, words):
    with pytest.raises(ValidationError, match=words):
        Experiment(volume=small_volume(), **sections)


@given(
    st.integers(1, 12),
    st.sampled_from(["both", "up", "down"]),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 99),
)
def test_every_image_has_one_place_and_is_taken_at_its_height(slices, direction, settling, down, volume):
    plan = VolumePlan(5.0, 0.25, slices, direction, settling, begins_down=down)
    places = [plan.place(volume * plan.images + k) for k in range(plan.images)]
    assert {place.volume for place in places} == {volume}
    assert sorted(place.slice for place in places) == [-1] * settling + list(range(slices))
    cycle = plan.positions_um(plan.volumes_per_cycle)
    for k in range(slices):
        image = plan.image_of(volume, k)
        assert plan.place(image).slice == k
        assert cycle[image % len(cycle)] == pytest.approx(5.0 + 0.25 * k)
    assert plan.one_volume(volume).upwards(0) == plan.upwards(volume)
    assert [plan.turned().upwards(k) for k in range(4)] == [
        plan.upwards(k + (direction == "both")) for k in range(4)
    ]


@given(st.floats(2, 30), st.integers(2, 50), st.floats(0.05, 1.0), st.booleans())
def test_a_plan_is_accepted_where_it_lies_within_the_limits(at_um, slices, step_um, centred):
    where = {"centre_um": at_um} if centred else {"start_um": at_um}
    settings = VolumeSettings(slices=slices, z_step_um=step_um, **where)
    low_um = at_um - settings.depth_um / 2 * centred
    if low_um >= 2 and low_um + settings.depth_um <= 30:
        positions = plan_volumes(settings, LIMITS, 10.0).positions_um(2)
        assert 2 - 1e-6 <= min(positions) <= max(positions) <= 30 + 1e-6
    elif low_um < 2 - 1e-6 or low_um + settings.depth_um > 30 + 1e-6:
        with pytest.raises(ConfigurationError, match="outside the limits 2 to 30 um"):
            plan_volumes(settings, LIMITS, 10.0)


def test_the_first_image_of_a_start_may_be_lost_where_the_camera_says_its_number():
    numbers = CameraNumbers("own", first=1)
    assert [numbers.take({"own": n}) for n in (2, 3, 5)] == [1, 2, 4]
    numbers.restart()
    assert numbers.next_after_restart == 5
    assert [numbers.take({"own": n}) for n in (3, 4)] == [7, 8]
    unknown = CameraNumbers("own")
    assert unknown.take({"own": 3}) == 0
