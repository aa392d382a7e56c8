"""A part of a batch's recordings, for one of several jobs of a cluster that share them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from stream.errors import ConfigurationError

Item = TypeVar("Item")
MOST_JOBS = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """Every `of`-th recording, beginning with the `number`-th (from 1)."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Self:
        """From N/M. Raises `ConfigurationError` unless 1 <= N <= M."""
        match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text.strip())
        number, of = (int(group) for group in match.groups()) if match else (0, 0)
        if not 1 <= number <= of <= MOST_JOBS:
            raise ConfigurationError(f"--only {text!r} must be N/M, as 3/40 for the third of 40 jobs")
        return cls(number, of)

    def taken(self, items: Sequence[Item]) -> list[Item]:
        """Those of the items that are this part's."""
        return list(items[self.number - 1 :: self.of])

    def named(self, name: str) -> str:
        """A file name for this part alone: batch.csv becomes batch.3-of-40.csv."""
        stem, dot, ending = name.rpartition(".")
        return f"{stem}.{self.number}-of-{self.of}{dot}{ending}"
