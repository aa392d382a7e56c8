"""The account of frames is closed whatever happens: exposed = in the file + lost, and where."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveptv.session.frame_account import (
    AT_SENDER,
    FINAL,
    IN_BUFFER,
    IN_CAMERA,
    IN_THE_FILE,
    ON_THE_WAY,
    TOO_LATE,
    FileContents,
    FrameAccount,
    account_of,
    close_account,
    loss_in_words,
)
from liveptv.session.run_status import lost_frames
from tracking.trajectories.schema import FRAME

COUNT = st.integers(0, 5000)
STAGES = st.sets(st.sampled_from(["acquire", "detect", "track", "write", "control"]))


def counts_of(acquire=None, detect=0, track=0, spoilt=0):
    return {
        "acquire": acquire or {},
        "detect": {"to_track.dropped": detect},
        "track": {"to_write.dropped": track},
        "write": {"in_spoilt_file": spoilt},
    }


@given(COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, STAGES, st.booleans(), st.booleans())
def test_the_account_closes_for_any_counts_even_stale_ones(
    received, in_camera, left, detect, track, spoilt, frames, behind, lost, as_asked, readable
):
    """Whatever stages that died had reported last, and whatever the file holds."""
    acquire = {"received": received, "lost_in_camera": in_camera, "left_in_buffer": left}
    contents = FileContents(frames, frames - 1 + behind if frames else -1, in_camera // 2, readable)
    account = close_account(
        counts_of(acquire, detect, track, spoilt), contents, lost_stages=lost, as_asked=as_asked
    )
    assert account.exposed == account.in_file + account.total_lost
    assert all(count > 0 for count in account.lost.values())
    assert account.in_file == frames
    assert account.exposed >= max(received, frames)
    assert bool(account.not_known) == ("acquire" in lost)
    assert account_of({"account": account.to_dict()}, np.empty(0, FRAME)) == account


@given(
    st.lists(
        st.sampled_from(["file", "camera", "detector", "tracker", "writer", "way", "buffer"]), max_size=300
    )
)
def test_each_frame_is_found_where_it_was_lost(fates):
    """A camera's frames, each with a fate; what the stages count of it gives the fates back."""
    number = 0
    frames, tally = [], dict.fromkeys(["detector", "tracker", "writer", "way"], 0)
    left = fates.count("buffer")
    for camera, fate in enumerate(f for f in fates if f != "buffer"):
        if fate == "camera":
            continue
        if fate == "file":
            frames.append((number, camera))
        else:
            tally[fate] += 1
        number += 1
    table = np.zeros(len(frames), FRAME)
    if frames:
        table["frame"], table["camera_frame"] = np.array(frames).T
    acquire = {
        "received": number,
        "lost_in_camera": fates.count("camera"),
        "to_detect.dropped": tally["detector"],
        "left_in_buffer": left,
    }
    counts = counts_of(acquire, tally["tracker"], tally["writer"])
    account = close_account(counts, FileContents.of(table), lost_stages=["track"], as_asked=False)
    where = {
        IN_CAMERA: fates.count("camera"),
        IN_BUFFER: left,
        "before the detector": tally["detector"],
        "before the tracker": tally["tracker"],
        "before the writer": tally["writer"],
        "on their way when track ended before time": tally["way"],
    }
    assert account.lost == {name: count for name, count in where.items() if count}
    assert account.exposed == len(fates)


def test_a_hang_leaves_no_frame_unaccounted_for():
    """As it was found in use: 337 received, 272 in the file, acquisition killed; the summary had said none."""
    account = close_account(
        counts_of({"received": 337, "lost_in_camera": 0, "left_in_buffer": 900}),
        FileContents(272, 271),
        lost_stages=["acquire", "track"],
        as_asked=False,
    )
    assert account.exposed == 1237
    assert account.lost == {IN_BUFFER: 900, "on their way when acquire and track ended before time": 65}
    assert account.in_words().startswith(
        "at least 965: 900 in the camera's buffer, never read; 65 on their way"
    )
    assert "how many frames the camera took until then is not known" in account.in_words()


def test_each_place_is_said_for_one_frame_and_for_several():
    assert loss_in_words(TOO_LATE, 1) == "1 frame was dropped: too old when the detector got it"
    assert loss_in_words(TOO_LATE, 2) == "2 frames were dropped: too old when the detector got them"
    assert loss_in_words("before the tracker", 1) == "1 frame was lost before the tracker"
    assert loss_in_words("on their way when track ended before time", 1).startswith(
        "1 frame was lost on its way"
    )
    assert loss_in_words(IN_BUFFER, 3) == "3 frames were lost in the camera's buffer, never read"


def test_places_with_a_comma_in_their_name_stay_apart():
    account = FrameAccount(10, 7, {IN_BUFFER: 1, "before the detector": 2})
    assert account.in_words() == "1 in the camera's buffer, never read; 2 before the detector"


def test_acquisition_that_failed_in_an_orderly_way_has_counted_to_its_end():
    counts = counts_of({"received": 9, "left_in_buffer": 2, FINAL: 1})
    account = close_account(counts, FileContents(8, 7), lost_stages=["acquire"], as_asked=False)
    assert account.not_known == ()
    assert account.lost == {IN_BUFFER: 2, "on their way when acquire ended before time": 1}


def test_drops_before_the_writer_are_losses_while_it_runs_and_in_the_end():
    """As it was found in use: 3,512 frames missing, 3,510 said."""
    counts = counts_of({"received": 4000, "lost_in_camera": 10, "to_detect.dropped": 3000}, 500, 2)
    assert sum(lost_frames(counts).values()) == 3512
    account = close_account(counts, FileContents(498, 3999))
    assert account.lost["before the writer"] == 2
    assert account.total_lost == 3512


def test_a_run_without_losses_says_none_and_what_came_after_its_end_is_not_one():
    account = close_account(counts_of({"received": 100, "left_in_buffer": 3}), FileContents(100, 99))
    assert (account.in_words(), account.after_the_end, account.exposed) == ("none", 3, 100)
    stopped = close_account(
        counts_of({"received": 100, "left_in_buffer": 3}), FileContents(100, 99), as_asked=False
    )
    assert stopped.lost == {IN_BUFFER: 3}


def test_frames_of_a_file_that_is_gone_are_lost_with_it():
    account = close_account(counts_of({"received": 180}), FileContents(readable=False))
    assert account.lost == {IN_THE_FILE: 180}


def test_a_counter_that_fell_back_is_said():
    account = close_account(counts_of({"received": 5, "counter_resets": 1}), FileContents(5, 4))
    assert "fell back 1 times" in account.in_words()
    assert account.to_dict()["exposed_is_at_least"]


def test_what_another_program_lost_is_its_own_place_also_if_the_acquisition_was_killed():
    counts = counts_of({"received": 5, "lost_at_sender": 2, "sender_restarts": 1})
    account = close_account(counts, FileContents(5, 4))
    assert account.lost == {AT_SENDER: 2}
    assert account.exposed == 7
    assert account.not_known == (
        "the sender of the frames began again once: what was lost then is not known",
    )
    killed = close_account(counts, FileContents(5, 4, lost_in_camera=3), lost_stages={"acquire"})
    assert killed.lost == {AT_SENDER: 3}


def test_what_acquisition_could_not_report_is_read_from_the_file():
    table = np.zeros(4, FRAME)
    table["frame"], table["camera_frame"] = [0, 1, 5, 6], [0, 1, 8, 9]
    contents = FileContents.of(table)
    assert (contents.lost_in_camera, contents.last_frame) == (3, 6)
    account = close_account(counts_of({"received": 2}), contents, lost_stages=["acquire"])
    assert account.exposed == 10
    assert account.lost == {IN_CAMERA: 3, "on their way when acquire ended before time": 3}


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, None),
        ({"accounts": {"track": {"received": 5}}}, None),
        ({"accounts": {"write": {"sent": 0}}}, "at least 0; how many frames the camera took is not known"),
        ({"accounts": {"acquire": {"received": 5}}}, f"5 {ON_THE_WAY}"),
    ],
)
def test_an_older_file_is_accounted_for_as_far_as_it_says(attributes, words):
    account = account_of(attributes, np.empty(0, FRAME))
    assert (account and account.in_words()) == words


def test_frames_that_were_too_old_for_the_detector_are_declared():
    counts = counts_of({"received": 100, "to_detect.dropped": 30})
    counts["detect"]["dropped_late"] = 4
    account = close_account(counts, FileContents(66, 99))
    assert account.lost == {"before the detector": 30, TOO_LATE: 4}
    assert account.exposed == 100


def test_a_frame_in_the_file_is_not_lost_because_a_restarted_detector_found_it_too_old():
    """Its detections had reached the tracker, but not the acknowledgement the detector, when that was killed."""
    counts = counts_of({"received": 100, "to_detect.dropped": 30})
    counts["detect"]["dropped_late"] = 6
    account = close_account(counts, FileContents(66, 99))
    assert account.lost == {"before the detector": 30, TOO_LATE: 4}
    assert account.exposed == 100


@pytest.mark.parametrize("name", ["not_in_the_run", "not_recorded"])
def test_numbers_that_the_source_of_a_recorded_run_skips_are_said_and_counted_once(name):
    table = np.zeros(4, FRAME)
    table["frame"] = table["camera_frame"] = [0, 3, 4, 9]
    counts = counts_of({"received": 4, name: 6})
    account = close_account(counts, FileContents.of(table))
    assert sum(account.lost.values()) == 6
    assert len(account.lost) == 1
    assert account.exposed == 10
