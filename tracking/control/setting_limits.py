"""What the settings of controllers and protocols share: bounds beyond which a value is a slip."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, field_validator

from stream.settings import Section

# The largest of each quantity that means anything, by the end of its name: 10 m, 1 km/s, 1 L/s, 100 days.
LARGEST = {"_um": 1e7, "_um_s": 1e9, "_ul_s": 1e6, "_s": 1e7, "_percent": 100.0, "": 1e9}
SMALLEST = 1e-15  # less than that is 0 or a slip; divided by, it would overflow
MOST_POSITIONS = 10_000
LONGEST_TEXT = 1000
"""Most entries of a list and characters of a text. More is a slip or an attack, not an experiment: 10,000 slices
of a second are three hours."""
MAX_AGE = (
    "oldest result that is acted on, as time since its exposure; left out: 2 s, at most half of "
    "`limits.watchdog_s`"
)


def check_max_age(max_age_s: float | None, watchdog_s: float, setting: str) -> None:
    """Raise `ValueError` if a limit that is given, s, is not below `watchdog_s`; `setting` names it."""
    if max_age_s is not None and max_age_s >= watchdog_s:
        raise ValueError(
            f"{setting} ({max_age_s:g} s) must be less than limits.watchdog_s ({watchdog_s:g} s), from which on "
            "commands are refused"
        )


class LimitedSection(Section):
    """Settings whose numbers, lists and texts are of the size of an experiment."""

    @field_validator("*")
    @classmethod
    def _sane(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a number, a list or a text beyond anything that a microscope has."""
        name = info.field_name or ""
        largest = next(limit for end, limit in LARGEST.items() if name.endswith(end))
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise ValueError(f"the text is longer than {LONGEST_TEXT} characters")
        if isinstance(value, list) and len(value) > MOST_POSITIONS:
            raise ValueError(f"there are {len(value)} of them, at most {MOST_POSITIONS} are taken")
        inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        for number in inner:
            if isinstance(number, int | float) and not isinstance(number, bool) and number:
                if abs(number) > largest:
                    raise ValueError(f"it is larger than {largest:g}, which no microscope reaches")
                if abs(number) < SMALLEST:
                    raise ValueError(f"it is smaller than {SMALLEST:g}; give 0 or a larger number")
        return value
