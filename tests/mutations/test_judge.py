"""The judge finds fault where there is one: with what it is shown here, each kind of it."""

import logging
import sys
import warnings

import command_run
import mutated_ome
import mutated_tables
import numpy as np
import pytest
from command_run import UnacceptableError, check_memory, check_screen, command
from comparison import Seen, differences
from judge import judge
from known_video import FRAMES, RATE_HZ, Truth
from mutation import ONLY_REFUSED, ONLY_RIGHT, ONLY_SAID, RIGHT_OR_SAID, Mutation

TIMES = list(np.arange(FRAMES) / RATE_HZ)


def seen(**changes):
    """A right reading, but for the changes."""
    right = {"images": list(range(FRAMES)), "times_s": TIMES, "focus_um": [np.nan] * FRAMES, "pixel_um": 0.5}
    return Seen(**right | changes)


def test_a_right_reading_differs_in_nothing():
    assert differences(Truth(), seen()) == {}
    assert differences(Truth(), seen(focus_um=[7.0] * FRAMES, times_s=[time + 3 for time in TIMES])) == {}


@pytest.mark.parametrize(
    ("aspect", "changes"),
    [
        ("frames", {"images": [*range(11), -1]}),
        ("frames", {"images": [1, 0, *range(2, FRAMES)]}),
        ("pixel", {"pixel_um": 0.51}),
        ("pixel", {"pixel_um": np.nan}),
        ("times", {"times_s": [*TIMES[:-1], 30.0]}),
        ("times", {"times_s": list(range(FRAMES))}),
        ("focus", {"focus_um": list(range(FRAMES))}),
    ],
)
def test_each_value_that_is_not_the_truth_is_found(aspect, changes):
    assert aspect in differences(Truth(), seen(**changes))


def test_a_missing_frame_is_found_though_its_neighbours_are_right():
    kept = [k for k in range(FRAMES) if k != 5]
    some = {"images": kept, "times_s": [TIMES[k] for k in kept], "focus_um": [np.nan] * 11}
    assert set(differences(Truth(), seen(**some))) == {"frames"}


def case(make, may, **more):
    return Mutation("a case", make, may, **more)


def test_wrong_without_a_word_is_a_fault_whatever_is_allowed(tmp_path):
    twice_as_fast = Truth(times_s=np.arange(FRAMES) / (2 * RATE_HZ))
    with pytest.raises(UnacceptableError, match="WRONG WITHOUT A WORD"):
        judge(case(mutated_ome.ome(), RIGHT_OR_SAID, truth=twice_as_fast), tmp_path)


def test_a_good_file_that_should_have_been_refused_or_spoken_of_is_a_fault(tmp_path):
    for number, may in enumerate((ONLY_REFUSED, ONLY_SAID)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(UnacceptableError, match="right is not enough"):
            judge(case(mutated_ome.ome(), may), folder)


def test_a_good_table_is_right_and_one_of_other_particles_is_not(tmp_path):
    assert judge(case(mutated_tables.table(), ONLY_RIGHT, tracked=True), tmp_path) == "right"
    moved = mutated_tables.columns()
    moved["x_um"] = moved["x_um"] + 0.01
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UnacceptableError, match="off by up to"):
        judge(case(mutated_tables.table(mutated_tables.lines(moved)), RIGHT_OR_SAID, tracked=True), other)


def showing(monkeypatch, act):
    """A command line that does only this."""
    monkeypatch.setattr(command_run.command_line, "run_command_line", lambda arguments: act())
    return command("info", "video.tif", measure=True)


def test_an_exception_a_flood_of_warnings_and_memory_are_faults(monkeypatch, tmp_path):
    with pytest.raises(UnacceptableError, match="traceback, KeyError"):
        showing(monkeypatch, lambda: {}["x"])

    def flood():
        for number in range(4):
            warnings.warn(f"number {number}", stacklevel=1)
        return 0

    def log():
        for number in range(4):
            logging.getLogger("library").warning("number %d", number)
        return 0

    for act in (flood, log):
        with pytest.raises(UnacceptableError, match="4 warnings"):
            check_screen(showing(monkeypatch, act), tmp_path / "video.tif")
    with pytest.raises(UnacceptableError, match="MB of memory"):
        check_memory(showing(monkeypatch, lambda: len(bytes(100 << 20)) * 0))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("error: cannot read it\n", "does not name"),
        ("error: video.tif: 'NoneType' object is not iterable\n", "programmer"),
        ("", "0 lines of error"),
        ("error: video.tif is cut\nerror: video.tif is bad\n", "2 lines of error"),
    ],
)
def test_a_refusal_is_one_line_for_a_user_that_names_the_file(monkeypatch, tmp_path, line, why):
    def fail():
        sys.stderr.write(line)
        return 1

    with pytest.raises(UnacceptableError, match=why):
        check_screen(showing(monkeypatch, fail), tmp_path / "video.tif")
