"""Compresses a finished trajectory file and adds a view that ParaView can open.

Rows are compressed with HDF5's own shuffle and deflate, which every reader has. This is done after the run, because
small commits compress badly. The packed file is written beside the old one and takes its place once it is complete,
so that a crash or a full disk costs nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import imagecodecs
import numpy as np
from numpy.lib.recfunctions import repack_fields

from stream.errors import LivePTVError, OutputError, SourceError
from tracking.trajectories.annotation import adding_to
from tracking.trajectories.paraview import GROUP, write_vtk_view
from tracking.trajectories.reader import TrajectoryFile
from tracking.trajectories.schema import (
    FRAMES,
    LIBVER,
    MORE_ROWS,
    PROPERTIES,
    PROPERTY_NAMES,
    ROW,
    ROWS,
    SLICES,
    RecordArray,
    decode_attribute,
)

PACKED_CHUNK = 65_536
"""Rows of a compressed chunk, 5 MB, which a reader has to decompress for a single row. After the shuffle each byte
of a column is a run of 64 kB, twice the window of deflate; with shorter ones it finds less to compress."""
PACKED_SLICES = 16_384
"""Slices of a compressed chunk, 280 kB: HDF5 keeps one that is read in pieces (up to 1 MB) decompressed."""
LEVEL = 5
"""Deflate level. For random rows level 9 takes six times as long and saves 2 %, level 1 takes two thirds of the
time and costs 4 %."""
FILTERS: dict[str, Any] = {"shuffle": True, "compression": "gzip", "compression_opts": LEVEL}
THREADS = 4
"""Threads that compress: 90 MB/s on two free cores (docs/files.md). More would compete with what runs beside it."""
AHEAD = 2 * THREADS
"""Chunks that wait to be written, in order: two for each thread, so that none is idle; 5 MB of memory each."""


def pack(path: Path) -> int:
    """Replace a finished file by a compressed one with the view for VTK; returns its size in bytes.

    A file that is packed already is not changed. Raises `SourceError` if it is not finished or cannot be read,
    `OutputError` if there is no room for the packed file or the old one cannot be replaced; it is unchanged then.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        with TrajectoryFile(path) as file:
            if not file.finished:
                raise SourceError(
                    f"{path} is not finished; end the run, or recover the file with `liveptv recover`"
                )
            if not _is_packed(path):
                _write(path, part, file)
        if part.exists():
            part.replace(path)
        return path.stat().st_size
    except LivePTVError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else error
        raise OutputError(f"{path} could not be compressed ({reason}); it is complete, but larger") from error
    finally:
        part.unlink(missing_ok=True)


def _is_packed(path: Path) -> bool:
    with h5py.File(path, "r", locking=False) as file:
        return file[ROWS].compression is not None and GROUP in file


def _as_stored(frames: RecordArray, stored: h5py.Dataset) -> RecordArray:
    """The entries with the columns of the file they come from, which its attributes describe."""
    return repack_fields(frames[list(stored.dtype.names)])


def _write(path: Path, part: Path, file: TrajectoryFile) -> None:
    h5py.File(part, "x", libver=LIBVER).close()
    with h5py.File(path, "r", locking=False) as old, adding_to(part, path.stat().st_size) as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for name in old:
            if name not in {ROWS.split("/")[0], SLICES, FRAMES, GROUP}:
                old.copy(name, new)
        frames = new.create_dataset(
            FRAMES, data=_as_stored(file.frames, old[FRAMES]), maxshape=(None,), **FILTERS
        )
        rows = new.create_dataset(
            ROWS,
            (file.row_count,),
            ROW,
            maxshape=(None,),
            chunks=(PACKED_CHUNK,),
            **FILTERS,
        )
        if PROPERTY_NAMES in old:
            old.copy(PROPERTY_NAMES, new[ROWS.split("/")[0]])
        for name, chunk in ((MORE_ROWS, PACKED_CHUNK), (PROPERTIES, PACKED_CHUNK), (SLICES, PACKED_SLICES)):
            if name in old:
                values = old[name][:]
                packed = new.create_dataset(name, data=values, maxshape=(None,), chunks=(chunk,), **FILTERS)
                packed.attrs.update(old[name].attrs)
        for new_set, old_set in ((rows, old[ROWS]), (frames, old[FRAMES])):
            for name, value in old_set.attrs.items():
                new_set.attrs[name] = value
        with ThreadPoolExecutor(THREADS, "pack") as pool:
            _store(rows, file, pool)
        write_vtk_view(new, file, float(decode_attribute(old.attrs.get("refraction_factor", 1.0))))


def _store(rows: h5py.Dataset, file: TrajectoryFile, pool: ThreadPoolExecutor) -> None:
    """Compress chunks in parallel and write them in order."""
    waiting: deque[Future[bytes]] = deque()
    written = 0
    for chunk in _chunks(file):
        waiting.append(pool.submit(_compressed, chunk))
        if len(waiting) > AHEAD:
            written = _write_next(rows, waiting, written)
    while waiting:
        written = _write_next(rows, waiting, written)


def _write_next(rows: h5py.Dataset, waiting: deque[Future[bytes]], written: int) -> int:
    rows.id.write_direct_chunk((written,), waiting.popleft().result())
    return written + PACKED_CHUNK


def _chunks(file: TrajectoryFile) -> Iterator[RecordArray]:
    for chunk in file.stored_pieces(PACKED_CHUNK):
        if len(chunk) == PACKED_CHUNK:
            yield chunk
        else:
            whole = np.zeros(PACKED_CHUNK, ROW)
            whole[: len(chunk)] = chunk
            yield whole


def _compressed(chunk: RecordArray) -> bytes:
    """A chunk as HDF5's filters shuffle and deflate store it, made by libdeflate: smaller, and twice as fast."""
    planes = chunk.view(np.uint8).reshape(len(chunk), -1).T
    return bytes(imagecodecs.deflate_encode(planes.tobytes(), LEVEL))
