"""The focus scan: writes plane after plane to the output and the journal, and can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from acquisition.scan.image_file import create_output, reopen_output
from acquisition.scan.journal import Journal, PlaneRecord, ScanHeader
from acquisition.scan.output import ScanOutput, checksum
from acquisition.scan.paths import RESUME, ScanPaths
from acquisition.scan.plan import approach_um
from acquisition.scan.plane import PlaneImages, PlaneTaker
from acquisition.settings import ScanSettings
from stream.errors import ConfigurationError, LivePTVError, OutputError


@dataclass(frozen=True, slots=True)
class ScanProgress:
    """Progress of a scan: planes done, all planes, focus position, and failed attempts."""

    planes: int
    of: int
    focus_um: float
    retaken: int


class ZScan:
    """One scan, new or resumed; planes that are already in its file are not taken again.

    The `header` of a resumed scan is that of its first run.
    """

    def __init__(self, paths: ScanPaths, journal: Journal, output: ScanOutput) -> None:
        self._paths, self._journal, self._output = paths, journal, output
        self.header = journal.header

    @classmethod
    def begin(cls, paths: ScanPaths, header: ScanHeader) -> ZScan:
        """Create file and journal. Raises `OutputError`, also for too little disk space; leaves nothing then."""
        output: ScanOutput | None = None
        try:
            output = create_output(paths, header)
            return cls(paths, Journal.create(paths.journal, header), output)
        except BaseException:
            if output is not None:
                output.close()
            paths.discard_unfinished()
            raise

    @classmethod
    def resume(cls, paths: ScanPaths, make_header: Callable[[float], ScanHeader]) -> ZScan | None:
        """Resume an unfinished scan; None if there is none.

        `make_header` returns the header that the scan would have now, for a focus position before the scan. Raises
        `ConfigurationError` with the differences if it is another scan, and `OutputError`.
        """
        journal = Journal.load(paths.journal) if paths.journal.is_file() else None
        if journal is None or not paths.partial.exists():
            if journal is not None:
                journal.close()
            return None
        try:
            different = journal.header.differences(make_header(journal.header.focus_um))
            if different:
                raise ConfigurationError(
                    f"{paths.partial.name} is another scan (then, now: {'; '.join(different)}); restore these "
                    "settings, or pass --overwrite to start again"
                )
            output = reopen_output(paths, journal.header)
        except BaseException:
            journal.close()
            raise
        scan = cls(paths, journal, output)
        scan._forget_damaged()
        return scan

    def _forget_damaged(self) -> None:
        records = self._journal.records
        for plane in sorted(records):
            if plane >= self.header.planes or checksum(self._output.read(plane)) != records[plane].crc32:
                del records[plane]

    @property
    def missing(self) -> list[int]:
        """The planes that are still to be taken."""
        return [plane for plane in range(self.header.planes) if plane not in self._journal.records]

    @property
    def retaken(self) -> int:
        """Number of failed attempts so far."""
        return sum(len(record.retaken) for record in self._journal.records.values())

    def summary(self) -> str:
        """What the scan will do, in one line."""
        header, missing = self.header, len(self.missing)
        first_um, last_um = header.positions_um[0], header.positions_um[-1]
        size_gb = header.planes * header.plane_bytes / 1e9
        rest = "" if missing == header.planes else f"; {header.planes - missing} of them are already done"
        unknown = "" if header.pixel_size_um else "; the pixel size is unknown, set microscope.pixel_size_um"
        return (
            f"{header.planes} planes from {first_um:g} to {last_um:g} um, {header.images} images each, "
            f"{size_gb:.2f} GB{rest}{unknown}"
        )

    def take(
        self, taker: PlaneTaker, settings: ScanSettings, on_progress: Callable[[ScanProgress], None]
    ) -> None:
        """Take the missing planes.

        Raises `SourceError` with the plane that cannot be taken, `ScanStoppedError` and `OutputError`; planes
        already taken are kept.
        """
        header = self.header
        last = None
        for plane in self.missing:
            from_um = approach_um(settings, header.positions_um, plane) if settings.backlash_um else None
            anew = last is None or plane != last + 1
            taken = taker.take(
                plane, header.positions_um[plane], header.images, approach_um=from_um, anew=anew
            )
            self._keep(plane, taken)
            last = plane
            done = len(self._journal.records)
            on_progress(ScanProgress(done, header.planes, taken.focus_um, self.retaken))

    def _keep(self, plane: int, taken: PlaneImages) -> None:
        self._output.write(plane, taken.images)
        offset_s = time.time() - self.header.began_s - 1e-9 * time.perf_counter_ns()
        self._journal.add(
            PlaneRecord(
                plane,
                taken.focus_um,
                taken.exposure_ms,
                tuple(round(offset_s + 1e-9 * arrived_ns, 6) for arrived_ns in taken.arrived_ns),
                checksum(taken.images),
                taken.retaken,
            )
        )

    def finish(self, facts: dict[str, Any]) -> None:
        """Write positions and times into the file and give it its final name. Raises `OutputError`."""
        if self.missing:
            raise OutputError(f"{len(self.missing)} planes of {self._paths.whole.name} are missing; {RESUME}")
        header, records = self.header, self._journal.records
        retaken = {plane: record.retaken for plane, record in sorted(records.items()) if record.retaken}
        known = {
            "name": self._paths.stem,
            "began": datetime.fromtimestamp(header.began_s, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "run_id": header.run_id,
            "positions_um": json.dumps(header.positions_um),
            "retaken": json.dumps(retaken),
            **header.settings,
        }
        self._output.finish([records[plane] for plane in range(header.planes)], known | facts)
        self.close()
        self._paths.publish()

    def close(self) -> None:
        """Close file and journal, without finishing them. Idempotent."""
        self._output.close()
        self._journal.close()


def kept(error: LivePTVError, scan: ZScan) -> LivePTVError:
    """The same error, with the number of planes that are kept."""
    done = scan.header.planes - len(scan.missing)
    return type(error)(f"{error}; {done} of {scan.header.planes} planes are kept: {RESUME}")
