"""A trajectory file while it grows, in HDF5's SWMR mode, with disk space allocated before it is needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import h5py

from stream.particle_properties import MOST_PROPERTIES
from tracking.trajectories.commit_mark import write_commit
from tracking.trajectories.disk_space import DiskReserve
from tracking.trajectories.hdf5_superblock import OPEN_FOR_SWMR
from tracking.trajectories.pending import Commit
from tracking.trajectories.schema import (
    AXES,
    EVENT_CHUNK,
    EVENTS,
    FRAME,
    FRAME_CHUNK,
    FRAME_COLUMNS,
    FRAMES,
    LIBVER,
    MORE,
    MORE_COLUMNS,
    MORE_ROWS,
    PROPERTIES,
    PROPERTY,
    PROPERTY_COLUMNS,
    PROPERTY_NAME,
    PROPERTY_NAMES,
    ROW,
    ROW_CHUNK,
    ROW_COLUMNS,
    ROWS,
    SLICE,
    SLICE_CHUNK,
    SLICE_COLUMNS,
    SLICES,
    RecordArray,
    column_attributes,
    encode_attribute,
)
from tracking.trajectories.slices import SlicesOfOneFile

MARGIN_BYTES = 2 << 20
"""Disk space for a commit beyond its values: chunks that are begun (0.4 MB) and HDF5's metadata. Too little, HDF5
may meet a full disk in the middle of a flush; more only ends a run on a full disk that much earlier."""


WRITTEN = (ROWS, MORE_ROWS, PROPERTY_NAMES, PROPERTIES, SLICES, EVENTS, FRAMES)
"""The datasets in the order in which a commit writes them."""


class GrowingFile:
    """One file of this process, open for appending.

    `rows`, `frames` and what `sizes` says are committed. `places` says where the slices of the next volume go.
    """

    def __init__(self, path: Path, attributes: Mapping[str, object] | None) -> None:
        """Create the file with `attributes` at its root; with None continue an existing, closed one.

        Raises OSError if that fails; a file that was created is removed again then.
        """
        self.path = path
        self._sizes = dict.fromkeys(WRITTEN, 0)
        self.places = SlicesOfOneFile()
        self._file: h5py.File | None = h5py.File(path, "x" if attributes is not None else "r+", libver=LIBVER)
        self._reserve: DiskReserve | None = None
        try:
            self._reserve = DiskReserve(path)
            self._reserve.ensure(int(self._file.id.get_filesize()) + 2 * MARGIN_BYTES)
            if attributes is not None:
                _lay_out(self._file, attributes)
            self._sets = tuple(self._file[name] for name in WRITTEN)
            self._file.swmr_mode = True
        except BaseException:
            self._abandon(created=attributes is not None)
            raise

    def _abandon(self, *, created: bool) -> None:
        self.close()
        self.close_reserve()
        if created:
            self.path.unlink(missing_ok=True)

    def continue_from(self, before: GrowingFile) -> None:
        """Take over what is committed in the file of which this one is a copy."""
        self._sizes = before.sizes()
        self.places = SlicesOfOneFile(self._sizes[SLICES])

    @property
    def rows(self) -> int:
        """Rows that are committed."""
        return self._sizes[ROWS]

    @property
    def frames(self) -> int:
        """Frames that are committed."""
        return self._sizes[FRAMES]

    @property
    def properties_named(self) -> int:
        """Properties of particles whose names are in the file."""
        return self._sizes[PROPERTY_NAMES]

    def append(self, commit: Commit) -> None:
        """Write a commit in its order: the entries of the frames, the commit mark, are the last.

        Raises OSError or RuntimeError if there is no room or the disk fails.
        """
        if self._file is None or self._reserve is None:
            raise OSError("the file is closed")
        size = int(self._file.id.get_filesize())
        self._reserve.ensure(size + sum(array.nbytes for array in commit) + MARGIN_BYTES)
        write_commit(self._sets, tuple(self._sizes.values()), commit)
        for name, values in zip(WRITTEN, commit, strict=True):
            self._sizes[name] += len(values)

    def sizes(self) -> dict[str, int]:
        """How much of each dataset is committed."""
        return dict(self._sizes)

    def table_of_frames(self) -> RecordArray:
        """The committed entries of `/frames`."""
        table: RecordArray = self._sets[-1][: self.frames]
        return table

    def damage(self) -> tuple[str, bool]:
        """What another program has done to the file ("" if nothing), and whether its contents are lost.

        The contents of a file that was removed or replaced exist as long as it is open here; those of one that was
        cut short, or written over from its beginning, are lost.
        """
        if self._reserve is None or self._file is None:
            return "", False
        ours = self._reserve.status()
        if ours.st_size < int(self._file.id.get_filesize()):
            return f"was cut short to {ours.st_size} bytes by another program", True
        if not self._reserve.begins_with_flags(OPEN_FOR_SWMR):
            return "was written over by another program", True
        try:
            there = self.path.stat()
        except FileNotFoundError:
            what = "its folder was removed" if not self.path.parent.exists() else "was removed"
            return f"{what} by another program", False
        except OSError as error:
            return f"cannot be reached any more ({os.strerror(error.errno or 0).lower()})", False
        if not os.path.samestat(there, ours):
            return "was replaced by another program", False
        return "", False

    def close(self) -> None:
        """Close the HDF5 file; the disk space beyond it is freed later (`close_reserve`). Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def let_go(self) -> None:
        """Close the HDF5 file without writing to the damaged file: its last writes go to the null device."""
        if self._file is None:
            return
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(nowhere, int(self._file.id.get_vfd_handle()), inheritable=False)
        finally:
            os.close(nowhere)
        with contextlib.suppress(OSError, RuntimeError):  # HDF5 cannot read back what went to the null device
            self.close()
        self._file = None
        self.close_reserve()

    def close_reserve(self) -> None:
        """Close the second handle of the file, which reserves disk space. Idempotent."""
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            reserve.close()

    def take_descriptor(self) -> int:
        """A descriptor that reads the file even after it was removed. The caller closes it."""
        if self._reserve is None:
            raise OSError("the file is closed")
        return self._reserve.duplicate()


def _lay_out(file: h5py.File, attributes: Mapping[str, object]) -> None:
    for name, value in attributes.items():
        file.attrs[name] = encode_attribute(value)
    row_set = file.create_dataset(ROWS, (0,), ROW, maxshape=(None,), chunks=(ROW_CHUNK,))
    frame_set = file.create_dataset(FRAMES, (0,), FRAME, maxshape=(None,), chunks=(FRAME_CHUNK,))
    event_set = file.create_dataset(EVENTS, (0,), "u1", maxshape=(None,), chunks=(EVENT_CHUNK,))
    more_set = file.create_dataset(MORE_ROWS, (0,), MORE, maxshape=(None,), chunks=(ROW_CHUNK,))
    slice_set = file.create_dataset(SLICES, (0,), SLICE, maxshape=(None,), chunks=(SLICE_CHUNK,))
    property_set = file.create_dataset(PROPERTIES, (0,), PROPERTY, maxshape=(None,), chunks=(ROW_CHUNK,))
    file.create_dataset(PROPERTY_NAMES, (0,), PROPERTY_NAME, maxshape=(None,), chunks=(MOST_PROPERTIES,))
    for dataset, columns in (
        (row_set, ROW_COLUMNS),
        (more_set, MORE_COLUMNS),
        (slice_set, SLICE_COLUMNS),
        (property_set, PROPERTY_COLUMNS),
        (frame_set, FRAME_COLUMNS),
    ):
        for name, texts in column_attributes(columns).items():
            dataset.attrs[name] = texts
    row_set.attrs["axes"] = AXES
    event_set.attrs["format"] = "UTF-8, one JSON object a line"
