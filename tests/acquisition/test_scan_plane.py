import numpy as np
import pytest
from scan_fakes import FakeCamera, FakeDrive, FakeTime, gap, loses, picture

from acquisition.scan.plane import PlaneTaker, ScanStoppedError
from acquisition.settings import ScanSettings
from stream.errors import SourceError


def set_up(misfortunes=None, stopping=lambda: False, drive=None, **settings):
    time = FakeTime()
    focus = FakeDrive(time, **(drive or {}))
    camera = FakeCamera(time, focus, misfortunes)
    taker = PlaneTaker(
        focus,
        camera,
        ScanSettings(**{"range_um": 30, **settings}),
        stopping=stopping,
        clock=time.clock,
        sleep=time.sleep,
    )
    return taker, focus, camera, time


def test_a_plane_has_the_images_asked_for_and_the_position_that_was_read_back():
    taker, _, _, _ = set_up(drive={"off_um": 0.25})
    taken = taker.take(0, 6.0, 4)
    assert taken.focus_um == 6.25
    assert (taken.exposure_ms, taken.retaken) == (2.0, ())
    np.testing.assert_array_equal(taken.images, [picture(6.25, image) for image in range(4)])
    assert len(taken.arrived_ns) == 4


def test_images_are_taken_only_after_the_drive_has_settled():
    taker, focus, _, _ = set_up(settle_s=0.5, drive={"speed_um_s": 10.0})
    taken = taker.take(0, 30.0, 2)
    assert taken.arrived_ns[0] * 1e-9 >= 3.0 + 0.5
    assert focus.read_focus() == 30.0


@pytest.mark.parametrize("misfortune", [loses(1), loses(4), gap(1)])
def test_a_plane_with_lost_or_late_images_is_retaken(misfortune):
    taker, _, camera, _ = set_up({0: misfortune})
    taken = taker.take(3, 9.0, 4)
    assert camera.bursts == 2
    assert len(taken.retaken) == 1
    assert "images lost" in taken.retaken[0]
    assert taken.images.shape[0] == 4


def test_a_stage_that_lies_about_having_arrived_is_waited_for():
    taker, _, camera, _ = set_up(drive={"says_done": True, "speed_um_s": 40.0})
    taken = taker.take(0, 30.0, 4)
    assert abs(taken.focus_um - 30.0) <= 0.5
    assert camera.bursts - 1 == len(taken.retaken)
    for image in range(4):
        np.testing.assert_array_equal(taken.images[image], picture(30.0, image))


def test_a_stage_that_sets_out_late_is_waited_for():
    taker, _, _, _ = set_up(drive={"delay_s": 0.3})
    taken = taker.take(0, 6.0, 4)
    assert (taken.focus_um, taken.retaken) == (6.0, ())


def test_a_plane_during_which_the_stage_moved_is_retaken():
    drives = []

    def jolt(_burst):
        drives[0].to_um += 2.0

    taker, focus, camera, _ = set_up({0: jolt})
    drives.append(focus)
    taken = taker.take(0, 6.0, 4)
    assert camera.bursts == 2
    assert "8 um, 2 um off" in taken.retaken[0]
    assert taken.focus_um == 6.0


def test_a_stage_that_creeps_within_the_tolerance_of_the_plane_but_not_of_itself_is_found_out():
    drives = []

    def creep(_burst):
        drives[0].from_um = drives[0].to_um = 6.4

    taker, focus, _, _ = set_up({0: creep}, drive={"off_um": -0.4})
    drives.append(focus)
    taken = taker.take(0, 6.0, 4)
    assert "moved from 5.6 to 6.4 um" in taken.retaken[0]
    assert taken.focus_um == pytest.approx(5.6)


def test_a_plane_that_cannot_be_taken_is_named_with_the_reason():
    taker, _, camera, _ = set_up(dict.fromkeys(range(9), loses(2)), tries=4)
    with pytest.raises(SourceError, match=r"plane 7 at 21 um .* in 4 tries: 2 of 4 images lost \(none came"):
        taker.take(7, 21.0, 4)
    assert camera.bursts == 4


def test_a_stage_that_does_not_reach_the_plane_is_named_with_where_it_stands():
    taker, _, camera, _ = set_up(drive={"off_um": 1.5})
    with pytest.raises(SourceError, match=r"plane 2 at 6 um.*is at 7\.5 um, 1\.5 um off"):
        taker.take(2, 6.0, 4)
    assert camera.bursts == 0


def test_a_stage_that_is_blocked_is_not_waited_for_for_ever():
    taker, _, _, time = set_up(drive={"speed_um_s": 1e-9}, move_timeout_s=2.0, tries=1)
    with pytest.raises(SourceError, match=r"plane 0 at 6 um cannot be taken: .* still moves after 2 s"):
        taker.take(0, 6.0, 4)
    assert time.now_s < 3


def test_a_camera_that_fails_now_and_then_is_tried_again():
    def fails(_burst):
        raise SourceError("the camera does not start: USB")

    taker, _, _, _ = set_up({0: fails})
    assert taker.take(0, 6.0, 4).retaken == ("the camera does not start: USB",)


def test_retaken_planes_come_from_the_side_of_the_others():
    taker, focus, _, _ = set_up({0: loses(1)}, backlash_um=5)
    taker.take(0, 6.0, 4, approach_um=1.0, anew=True)
    assert focus.targets_um == [1.0, 6.0, 1.0, 6.0]
    taker.take(1, 9.0, 4, approach_um=4.0)
    assert focus.targets_um[4:] == [9.0]


@pytest.mark.parametrize("moves", [0, 1, 5])
def test_a_scan_can_be_stopped_while_it_waits(moves):
    asked = iter([False] * moves + [True] * 99)
    taker, _, camera, _ = set_up(stopping=lambda: next(asked), settle_s=1.0)
    with pytest.raises(ScanStoppedError):
        taker.take(0, 6.0, 4)
    assert camera.bursts == 0
