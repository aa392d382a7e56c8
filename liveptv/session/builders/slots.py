"""Sizes of the messages between stages, and the address at which a stage binds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream.messages import ParticleTable

if TYPE_CHECKING:
    pass

LOOPBACK = "tcp://127.0.0.1:0"


def table_bytes(kind: type[ParticleTable], rows: int) -> int:
    """Bytes of a table message with `rows` rows."""
    return len(kind.COLUMNS) * rows * np.dtype(np.float64).itemsize


def track_rows(max_particles: int) -> int:
    """Rows that a message of tracks must hold: one for each detection, and as many predicted rows."""
    return 2 * max_particles
