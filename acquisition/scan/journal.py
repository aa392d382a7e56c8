"""The journal of a scan: what it has done so far, as JSON lines, so that it can be resumed after any interruption.

The first line is the header, each further line a plane whose images are in the output. A truncated line is ignored;
images that do not match the checksum in their line count as not taken.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stream.errors import OutputError

VERSION = 1


@dataclass(frozen=True, slots=True)
class ScanHeader:
    """What identifies a scan, so that it can be resumed, and when it began.

    `settings` are those of the camera and the microscope; `focus_um` is the focus position before the scan;
    `pixel_size_um` is None if unknown.
    """

    positions_um: tuple[float, ...]
    images: int
    step_um: float
    height: int
    width: int
    dtype: str
    pixel_size_um: float | None
    settings: dict[str, Any]
    focus_um: float
    began_s: float
    run_id: str
    version: int = VERSION

    @property
    def planes(self) -> int:
        """Number of focus positions."""
        return len(self.positions_um)

    @property
    def plane_bytes(self) -> int:
        """Size of the images of one plane, bytes."""
        return self.images * self.height * self.width * (1 if self.dtype == "uint8" else 2)

    def differences(self, other: ScanHeader) -> list[str]:
        """The differences to another scan, as `name: this, other`."""
        mine, theirs = self._plan(), other._plan()
        return [
            f"{name}: {mine.get(name)}, {theirs.get(name)}"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]

    def _plan(self) -> dict[str, Any]:
        first, last = self.positions_um[0], self.positions_um[-1]
        plan = {name: value for name, value in asdict(self).items() if name not in _OF_ONE_RUN}
        return plan | self.settings | {"first_um": first, "last_um": last, "planes": self.planes}


_OF_ONE_RUN = {"positions_um", "settings", "focus_um", "began_s", "run_id"}


@dataclass(frozen=True, slots=True)
class PlaneRecord:
    """A plane whose images are in the output; times (N,) are in s since the start of the scan."""

    plane: int
    focus_um: float
    exposure_ms: float
    time_s: tuple[float, ...]
    crc32: int
    retaken: tuple[str, ...] = ()


class Journal:
    """The journal of one scan, open for appending."""

    def __init__(self, path: Path, header: ScanHeader, records: dict[int, PlaneRecord]) -> None:
        self.header, self.records = header, records
        self._path = path
        self._file = path.open("a", encoding="utf-8", newline="\n")

    @classmethod
    def create(cls, path: Path, header: ScanHeader) -> Journal:
        """Start a journal. Raises `OutputError` if it cannot be written."""
        try:
            path.write_text(_line(asdict(header)), encoding="utf-8", newline="\n")
            return cls(path, header, {})
        except OSError as error:
            raise _unwritable(path, error) from error

    @classmethod
    def load(cls, path: Path) -> Journal | None:
        """Open a journal to resume a scan; None if not even its header is complete. Raises `OutputError`."""
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
            found, whole = [], 0
            for line in lines:
                try:
                    found.append(json.loads(line))
                except ValueError:
                    break
                whole += len(line) + 1
            if not found or found[0].get("version") != VERSION:
                return None
            with path.open("r+b") as file:
                file.truncate(whole)
            header = ScanHeader(**{**found[0], "positions_um": tuple(found[0]["positions_um"])})
            records = [_record(item) for item in found[1:]]
            return cls(path, header, {record.plane: record for record in records})
        except (TypeError, KeyError, AttributeError) as error:
            raise OutputError(f"{path} is not the journal of a scan; delete it to start again") from error
        except OSError as error:
            raise _unwritable(path, error) from error

    def add(self, record: PlaneRecord) -> None:
        """Add a plane whose images have been written. Raises `OutputError`."""
        try:
            self._file.write(_line(asdict(record)))
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self.records[record.plane] = record

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


def _record(item: dict[str, Any]) -> PlaneRecord:
    return PlaneRecord(**{**item, "time_s": tuple(item["time_s"]), "retaken": tuple(item["retaken"])})


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}")
