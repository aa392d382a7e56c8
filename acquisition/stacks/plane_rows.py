"""Rows of an index (channel, slice, frame, position, byte) as entries of a table of planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from acquisition.stacks.plane_table import Coordinates, Place, PlaneTable
from stream.errors import SourceError


def add_rows(table: PlaneTable, member: Path, rows: npt.NDArray[np.int64]) -> None:
    """Enter the images of one file; raises `SourceError` where another file holds one of them too."""
    for channel, z, t, position, offset in rows.tolist():
        where = Coordinates(position, channel, t, z)
        before = table.places.get(where)
        if before is not None and before.file != member:
            raise SourceError(
                f"{before.file} and {member.name} hold the same images (frame {t}); one is a copy: move it away"
            )
        table.places[where] = Place(member, offset=offset)


def order_of(rows: npt.NDArray[np.int64]) -> str:
    """The order of the planes in a file: "ZTC" where time changes faster than height, else "TZC".

    It does where the second plane in the file is the first height at another time.
    """
    first = rows[(rows[:, 0] == rows[0, 0]) & (rows[:, 3] == rows[0, 3])]
    if len(first) < 2:
        return "TZC"
    return "ZTC" if first[1, 1] == first[0, 1] and len(np.unique(first[:, 1])) > 1 else "TZC"
