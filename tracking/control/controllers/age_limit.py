"""Refuses to act on results that are too old, and says so once, and once more when it acts again."""

from __future__ import annotations

from stream.errors import ConfigurationError
from tracking.control.controllers.controller_interface import Happening
from tracking.control.setting_limits import check_max_age

OLDEST_S = 2.0
"""Age beyond which the built-in loops do not act by default, s. They are stable at any age (docs/control.md), but
what they correct has changed meanwhile: hold_flow is three times slower at this age than without, and hold_focus
extrapolates a drift over 40 % of the time in which it was fitted (5 s)."""
OF_WATCHDOG = 0.5
"""Largest part of `limits.watchdog_s` that the default is: a command is refused on results as old as the watchdog's
limit, and a controller should be quiet well before the hardware is made safe."""
FRESH = 0.8
"""Part of the limit below which it acts again. Closer to 1, ages about the limit alternate between two notes."""


def age_limit_s(given_s: float | None, watchdog_s: float, setting: str) -> float:
    """The limit, s: as given, else `OLDEST_S`, at most `OF_WATCHDOG` of the watchdog's limit.

    Raises `ConfigurationError` if it is not below `watchdog_s`; `setting` names it.
    """
    if given_s is None:
        return min(OLDEST_S, OF_WATCHDOG * watchdog_s)
    try:
        check_max_age(given_s, watchdog_s, setting)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return given_s


class AgeLimit:
    """Knows whether a controller may act on a result of a given age; `setting` names the limit in the notes."""

    def __init__(self, controller: str, limit_s: float, setting: str) -> None:
        self._controller, self.limit_s, self._setting = controller, limit_s, setting
        self._notes: list[Happening] = []
        self.is_late = False

    def refuses(self, age_s: float) -> bool:
        """Whether a result of this age, s, is not acted on. An age that is not known counts as 0."""
        was_late = self.is_late
        self.is_late = age_s > (FRESH * self.limit_s if was_late else self.limit_s)
        if self.is_late and not was_late:
            self._note(
                f"{self._controller} does not act: the result is {age_s:.2g} s old, the limit is "
                f"{self.limit_s:g} s ({self._setting}); it acts again once results are fresher",
                age_s,
            )
        if was_late and not self.is_late:
            self._note(f"{self._controller} acts again: the result is {age_s:.2g} s old", age_s)
        return self.is_late

    def _note(self, text: str, age_s: float) -> None:
        self._notes.append(
            Happening("controller", text, {"acts": not self.is_late, "age_s": round(age_s, 4)})
        )

    def happenings(self) -> list[Happening]:
        """The notes since the last call."""
        notes, self._notes = self._notes, []
        return notes
