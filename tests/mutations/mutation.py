"""One way in which a file differs from a good one, and what a reader may make of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from known_video import Truth

RIGHT, SAID, REFUSED = "right", "said", "refused"
"""Read as it is; a value that is not the truth, and a line that says so; one line of error."""

ONLY_RIGHT = frozenset({RIGHT})
RIGHT_OR_SAID = frozenset({RIGHT, SAID})
ONLY_SAID = frozenset({SAID})
SAID_OR_REFUSED = frozenset({SAID, REFUSED})
ONLY_REFUSED = frozenset({REFUSED})
RIGHT_OR_REFUSED = frozenset({RIGHT, REFUSED})
NEVER_WRONG = frozenset({RIGHT, SAID, REFUSED})
"""For damage that may or may not be seen through: each is honest. Wrong without a word is not among them."""


@dataclass(frozen=True, eq=False)
class Mutation:
    """`make(folder)` writes the file and returns what a user would name.

    With `given` the user states 20 frames/s and 0.5 um a pixel, as one does for files that cannot say so. `words`:
    what the line or the refusal must speak of, as a regular expression. `mostly`: one bad value may cost no more
    than the two steps beside it. `claims`: the file claims sizes that must not be allocated. A table is `tracked`.
    """

    name: str
    make: Callable[[Path], Path]
    may: frozenset[str]
    truth: Truth = field(default_factory=Truth)
    given: bool = False
    words: str = ""
    mostly: bool = False
    claims: bool = False
    tracked: bool = False


class Cases:
    """The mutations of one format, in the order in which they were added."""

    def __init__(self, form: str) -> None:
        self._form = form
        self.all: list[Mutation] = []

    def add(self, name: str, make: Callable[[Path], Path], may: frozenset[str], **more: Any) -> None:
        """Add one; its name begins with the format."""
        self.all.append(Mutation(f"{self._form}: {name}", make, may, **more))
