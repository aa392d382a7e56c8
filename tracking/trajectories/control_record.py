"""Stores the control record of a run in its finished trajectory file, and reads it.

/control/record   UTF-8 bytes, one JSON object a line: `wall_s`, `kind`, `text`, and the facts of the entry
                  (see `tracking.control.record`)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stream.errors import OutputError
from stream.hdf5_reading import open_hdf5, values
from tracking.trajectories.annotation import adding_to
from tracking.trajectories.schema import decode_events, to_json

GROUP = "control"
RECORD = f"{GROUP}/record"


def store_control(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Store the record in a finished file, in place of an earlier one.

    Raises `OutputError` if there is no room or the file cannot be opened for writing; it is unchanged then.
    """
    lines = "".join(to_json(entry) + "\n" for entry in entries).encode()
    try:
        with adding_to(path, len(lines)) as file:
            file.pop(GROUP, None)
            dataset = file.create_dataset(RECORD, data=np.frombuffer(lines, np.uint8))
            dataset.attrs["format"] = "UTF-8, one JSON object a line"
    except (OSError, RuntimeError, ValueError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else error
        raise OutputError(f"cannot store the control record in {path}: {reason}") from error


def read_control(path: Path) -> list[dict[str, Any]]:
    """The record in a finished file, empty if it has none. Raises `SourceError` if it cannot be read."""
    with open_hdf5(path, "its control record is damaged") as file:
        return control_in(file)


def control_in(file: h5py.File) -> list[dict[str, Any]]:
    """The record in an open file, empty if it has none. If it is damaged, HDF5's own errors are raised."""
    if GROUP not in file:
        return []
    return decode_events(bytes(values(file, RECORD, kinds="u", ndim=1)))
