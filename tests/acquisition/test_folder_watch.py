"""A watched folder, in simulated time: files are taken whole, in order, once; what is missing is declared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watched_files import Folder

from acquisition.watched_folder.watch import Rules


def test_files_are_taken_in_the_order_of_their_numbers() -> None:
    folder = Folder()
    folder.put("a_10.tif", "a_9.tif", "a_8.tif")
    folder.passes(1)
    assert folder.contents == [(8, 0), (9, 0), (10, 0)]
    assert folder.numbers == [8, 9, 10]


def test_a_file_is_taken_once_it_is_unchanged_for_as_long_as_asked() -> None:
    folder = Folder(Rules(settled_s=2))
    folder.put("a_0.tif")
    folder.passes(1.5)
    folder.put("a_0.tif")
    folder.passes(1.5)
    assert not folder.taken
    folder.passes(1)
    assert folder.contents == [(0, 0)]


def test_a_file_that_is_not_whole_is_waited_for() -> None:
    folder = Folder()
    folder.put("a_0.tif")
    folder.put("a_1.tif", planes=0, is_whole=False)
    folder.put("a_2.tif")
    folder.passes(3)
    assert folder.contents == [(0, 0)]
    folder.put("a_1.tif")
    folder.passes(2)
    assert folder.contents == [(0, 0), (1, 0), (2, 0)]
    assert folder.watch.lost == 0


def test_a_file_that_stays_broken_is_lost_and_the_run_goes_on() -> None:
    folder = Folder()
    folder.put("a_0.tif", "a_2.tif")
    folder.put("a_1.tif", planes=0, is_whole=False)
    folder.passes(10)
    assert folder.numbers == [0, 2]
    assert folder.watch.lost == 1
    assert "not whole" in folder.said[-1]


def test_a_missing_number_is_declared_after_its_wait() -> None:
    folder = Folder(Rules(missing_s=5))
    folder.put("a_0.tif")
    folder.passes(1)
    folder.put("a_3.tif")
    folder.passes(4)
    assert folder.numbers == [0]
    folder.passes(2)
    assert folder.numbers == [0, 3]
    assert folder.watch.lost == 2
    assert "numbers 1 to 2 are missing" in folder.said[-1]


def test_a_file_that_comes_out_of_order_within_the_wait_is_no_loss() -> None:
    folder = Folder(Rules(missing_s=5))
    folder.put("a_0.tif", "a_2.tif")
    folder.passes(3)
    folder.put("a_1.tif")
    folder.passes(2)
    assert folder.contents == [(0, 0), (1, 0), (2, 0)]
    assert folder.watch.lost == 0


def test_a_file_that_comes_too_late_stays_lost_and_is_named() -> None:
    folder = Folder(Rules(missing_s=1))
    folder.put("a_0.tif", "a_2.tif")
    folder.passes(3)
    folder.put("a_1.tif")
    folder.passes(2)
    assert folder.numbers == [0, 2]
    assert folder.counts["late"] == 1


def test_a_file_that_is_written_again_is_not_taken_again() -> None:
    folder = Folder()
    folder.put("a_0.tif", "a_1.tif")
    folder.passes(2)
    folder.put("a_0.tif")
    folder.passes(2)
    assert folder.numbers == [0, 1]
    assert folder.counts == {"rewritten": 1}


def test_of_two_files_with_the_same_number_one_is_taken() -> None:
    folder = Folder()
    folder.put("a_0.tif", "a_1.tif")
    folder.passes(2)
    folder.put("a_01.tif")
    folder.passes(2)
    assert folder.numbers == [0, 1]
    assert folder.counts == {"repeated": 1}


def test_other_files_are_named_and_skipped() -> None:
    folder = Folder(foreign=("notes.txt",))
    folder.put("a_0.tif", "a_1.tif", "overview.tif")
    folder.passes(2)
    assert folder.numbers == [0, 1]
    assert folder.counts == {"foreign": 1, "other_series": 1}


def test_the_larger_series_is_taken_unless_a_pattern_chooses() -> None:
    folder = Folder()
    folder.put(*(f"a_{n}.tif" for n in range(2)), *(f"b_{n}.tif" for n in range(3)))
    folder.passes(2)
    assert {image.path.name[0] for image in folder.taken} == {"b"}
    chosen = Folder(Rules(pattern="a_*"))
    chosen.put(*(f"a_{n}.tif" for n in range(2)), *(f"b_{n}.tif" for n in range(3)))
    chosen.passes(2)
    assert {image.path.name[0] for image in chosen.taken} == {"a"}


def test_a_number_that_stays_the_same_does_not_count() -> None:
    folder = Folder()
    folder.put("run7_0.tif")
    folder.passes(2)
    folder.put("run7_1.tif", "run7_2.tif")
    folder.passes(2)
    assert folder.numbers == [0, 1, 2]
    leading = Folder()
    leading.put("0_gain4.tif")
    leading.passes(2)
    leading.put("1_gain4.tif", "2_gain4.tif")
    leading.passes(2)
    assert len(leading.taken) == 3
    assert leading.watch.lost == 0


def test_files_that_are_there_at_the_start_can_be_skipped() -> None:
    folder = Folder(Rules(takes_existing=False))
    folder.put("a_0.tif", "a_1.tif")
    folder.passes(2)
    folder.put("a_2.tif")
    folder.passes(2)
    assert folder.numbers == [2]
    assert folder.counts == {"existing": 2}
    assert folder.watch.lost == 0


def test_images_of_a_growing_file_are_taken_as_they_are_written() -> None:
    folder = Folder()
    for planes in range(1, 6):
        folder.put("film.tif", planes=planes, grows=True)
        folder.passes(0.2)
    assert folder.contents == [(0, n) for n in range(4)]
    folder.passes(1)
    assert folder.contents == [(0, n) for n in range(5)]


def test_several_growing_files_follow_one_another() -> None:
    folder = Folder()
    folder.put("film_0.tif", planes=3, grows=True)
    folder.passes(1)
    folder.put("film_0.tif", planes=4, grows=True)
    folder.put("film_1.tif", planes=2, grows=True)
    folder.passes(3)
    assert folder.contents == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert folder.numbers == list(range(6))


def test_a_file_that_vanishes_is_a_loss() -> None:
    folder = Folder()
    folder.put("a_0.tif", "a_2.tif")
    folder.put("a_1.tif", planes=0, is_whole=False)
    folder.passes(2)
    del folder.files["a_1.tif"]
    folder.passes(1)
    assert folder.numbers == [0, 2]
    assert folder.watch.lost == 1


@pytest.mark.parametrize("step", [2, 10])
def test_numbers_that_increase_by_more_than_one_show_no_gaps(step: int) -> None:
    folder = Folder()
    folder.put(*(f"a_{n * step}.tif" for n in range(5)))
    folder.passes(7)
    assert folder.numbers == [0, 1, 2, 3, 4]
    assert folder.watch.lost == 0
    assert folder.counts == {"step": 1}


def test_a_step_that_shows_only_later_takes_back_what_was_called_missing() -> None:
    folder = Folder(Rules(missing_s=1))
    for number in range(6):
        folder.put(f"a_{10 * number}.tif")
        folder.passes(4)
    assert len(folder.taken) == 6
    assert folder.watch.lost == 0
    assert "were none" in folder.said[-1]


@settings(deadline=None)
@given(st.data())
def test_whatever_the_order_of_writing_images_are_whole_in_order_and_accounted_for(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(2, 12))
    absent = data.draw(st.sets(st.integers(1, max(1, count - 2)), max_size=3)) - {count - 1}
    present = [n for n in range(count) if n not in absent]
    order = data.draw(st.permutations(present[1:]))
    folder = Folder(Rules(missing_s=4, settled_s=0.5))
    folder.put("a_0.tif")
    folder.passes(data.draw(st.sampled_from([0.0, 1.0])))
    for number in order:
        name = f"a_{number}.tif"
        for _ in range(data.draw(st.integers(0, 2))):
            folder.put(name, planes=0, is_whole=False)
            folder.passes(0.3)
        folder.put(name)
        folder.passes(data.draw(st.sampled_from([0.0, 0.1, 1.5])))
    folder.passes(60)
    late = folder.counts.get("late", 0)
    numbers = folder.numbers
    assert numbers == sorted(set(numbers))
    files = [content[0] for content in folder.contents]
    assert files == sorted(set(files))
    assert set(files) <= set(present)
    assert len(numbers) + late == len(present)
    if "step" not in folder.counts:
        assert files == numbers
        assert folder.watch.lost == count - len(numbers)
