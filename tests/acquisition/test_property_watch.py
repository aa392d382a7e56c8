"""A property that becomes another number than 0 is told once, and looking never takes more than its share."""

from __future__ import annotations

import pytest

from acquisition.microscope.property_watch import SHARE, PropertyWatch, as_number
from stream.errors import SourceError


class Line:
    """A device on a line that takes a while for each answer."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.now_s, self.takes_s, self.looks = 0.0, takes_s, 0
        self.value: str | float | None = 0
        self.told: list[tuple[int, float]] = []
        self.reported: list[str] = []
        self.watch = PropertyWatch(
            "DIn.Pin1",
            self.read,
            lambda frame, value: self.told.append((frame, value)),
            self.reported.append,
            lambda: self.now_s,
        )

    def read(self) -> str | float:
        self.looks += 1
        self.now_s += self.takes_s
        if self.value is None:
            raise SourceError("DIn.Pin1 does not answer")
        return self.value

    def frames(self, first: int, last: int, every_s: float = 0.05) -> None:
        for frame in range(first, last + 1):
            self.now_s += every_s
            self.watch.look(frame)


def test_each_change_from_zero_is_told_with_its_frame():
    line = Line()
    line.frames(0, 9)
    line.value = "3"
    line.frames(10, 19)
    line.value = 0
    line.frames(20, 29)
    line.value = "On"
    line.frames(30, 39)
    assert line.told == [(10, 3.0), (30, 1.0)]


def test_a_property_that_is_not_zero_from_the_start_is_no_event():
    line = Line()
    line.value = 1
    line.frames(0, 20)
    assert line.told == []


def test_a_slow_device_takes_only_its_share_of_the_time():
    line = Line(takes_s=0.2)
    line.frames(0, 1000)
    assert line.looks * line.takes_s <= SHARE * line.now_s + line.takes_s


def test_a_property_that_fails_is_reported_once_and_tells_again_when_it_answers():
    line = Line()
    line.frames(0, 5)
    line.value = None
    line.frames(6, 100)
    assert len(line.reported) == 1
    line.value = 0
    line.frames(101, 140)
    line.value = 1
    line.frames(141, 180)
    assert len(line.told) == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("0", 0),
        ("0.000", 0),
        ("1", 1),
        (2.5, 2.5),
        ("Off", 0),
        ("On", 1),
        ("open", 1),
        ("idle", 0),
        ("nan", 0),
    ],
)
def test_properties_are_numbers_or_words_for_on_and_off(value, number):
    assert as_number(value) == number
