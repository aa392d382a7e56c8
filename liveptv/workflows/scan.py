"""A focus scan from the settings to the finished files: check, scan, references, safe end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acquisition.microscope.microscope import Microscope
from acquisition.recording import open_stack
from acquisition.scan.burst import BurstCamera
from acquisition.scan.journal import ScanHeader
from acquisition.scan.paths import ScanPaths, check_room
from acquisition.scan.plan import check_focus_range, end_um, plan_scan, planned_images, planned_positions
from acquisition.scan.plane import PlaneTaker
from acquisition.scan.references import Ask, check_references, take_reference, write_reference
from acquisition.scan.safety import light_on, safe_end
from acquisition.scan.zscan import ScanProgress, ZScan, kept
from acquisition.settings import ScanSettings
from liveptv import __version__
from liveptv.config import Experiment
from liveptv.foreign_code import device_code
from liveptv.workflows.run import stopping_on_interrupt
from stream.errors import ConfigurationError, LivePTVError


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """Result of a scan: its files, the number of planes, of repeated tries, and the references."""

    paths: ScanPaths
    planes: int
    retaken: int
    references: tuple[Path, ...]
    seconds: float


class Stop:
    """A request to stop (Ctrl-C), which the scan checks between images."""

    def __init__(self) -> None:
        self._asked = False

    def request_stop(self, _reason: str) -> None:
        """Stop after the current image."""
        self._asked = True

    def __call__(self) -> bool:
        """Whether a stop was requested."""
        return self._asked


def run_scan(
    experiment: Experiment,
    paths: ScanPaths,
    *,
    references: Sequence[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    ask: Ask | None,
    on_progress: Callable[[ScanProgress], None],
    on_note: Callable[[str], None],
) -> ScanOutcome:
    """Take a scan and its references; `references` in place of those of the settings.

    Whatever happens, the focus ends at its safe end position, light and shutter return to their earlier state, and
    an unfinished scan can be continued (`resume`). `ask` puts a question to the user, who agrees or declines; None
    if nobody is there. It raises `ScanStoppedError` if Ctrl-C ends a question.

    Raises `ConfigurationError` and `OutputError` before anything moves, `SourceError`, `OutputError` and
    `ScanStoppedError` later.
    """
    settings = experiment.scan
    if settings is None or experiment.microscope is None:
        missing = "scan" if settings is None else "microscope"
        raise ConfigurationError(f"the experiment has no [{missing}] section; add one (see docs/scan.md)")
    kinds = tuple(dict.fromkeys(settings.references if references is None else references))
    paths.check(kinds, resume=resume, overwrite=overwrite)
    began_s, stop = time.monotonic(), Stop()
    for line in device_code(experiment):
        on_note(line)
    microscope = Microscope(experiment.microscope)
    try:
        with stopping_on_interrupt(stop):
            run = _Run(experiment, settings, microscope, paths, stop, ask, on_progress, on_note)
            planes, retaken, taken = run.run(kinds, resume, overwrite)
    finally:
        microscope.close()
    return ScanOutcome(paths, planes, retaken, taken, time.monotonic() - began_s)


class _Run:
    """One run, with the microscope open."""

    def __init__(
        self,
        experiment: Experiment,
        settings: ScanSettings,
        microscope: Microscope,
        paths: ScanPaths,
        stop: Stop,
        ask: Ask | None,
        on_progress: Callable[[ScanProgress], None],
        on_note: Callable[[str], None],
    ) -> None:
        if not microscope.focus:
            raise ConfigurationError("this microscope has no focus drive to scan with; set microscope.focus")
        self._experiment, self._settings, self._scope, self._paths = experiment, settings, microscope, paths
        self._stop, self._ask = stop, ask
        self._on_progress, self._on_note = on_progress, on_note
        self._focus_um = microscope.read_focus()
        self._run_id = str(uuid.uuid4())

    def run(self, kinds: Sequence[str], resume: bool, overwrite: bool) -> tuple[int, int, tuple[Path, ...]]:
        """Scan and take the references; returns the numbers of planes and of repeated tries, and the references."""
        scope, settings, paths = self._scope, self._settings, self._paths
        if resume:
            kinds = [kind for kind in kinds if not paths.reference(kind).exists()]
        check_references(scope, settings, kinds, self._ask)
        assert self._experiment.microscope is not None
        camera = BurstCamera(scope, self._experiment.microscope, settings.image_timeout_s)
        try:
            if resume and paths.whole.exists() and not paths.partial.exists():
                paths.discard_unfinished()
                return 0, 0, self._references(kinds, camera, self._middle_of_file(camera))
            scan = self._open(camera, kinds, resume, overwrite)
            try:
                header = scan.header
                self._on_note(scan.summary())
                with self._safely(header.focus_um):
                    self._scan(scan, camera)
                    middle_um = (header.positions_um[0] + header.positions_um[-1]) / 2
                    taken = self._references(kinds, camera, middle_um, prepared=True)
                return header.planes, scan.retaken, taken
            finally:
                scan.close()
        finally:
            camera.close()

    def _open(self, camera: BurstCamera, kinds: Sequence[str], resume: bool, overwrite: bool) -> ZScan:
        def header(focus_um: float) -> ScanHeader:
            return self._header(camera, focus_um)

        if resume:
            scan = ZScan.resume(self._paths, header)
            if scan is not None:
                return scan
            self._on_note("there is nothing to resume; starting a new scan")
        fresh = header(self._focus_um)
        if resume or overwrite:
            self._paths.discard_unfinished()
        scan = ZScan.begin(self._paths, fresh)
        self._paths.put_references_aside(kinds)
        return scan

    def _header(self, camera: BurstCamera, focus_um: float) -> ScanHeader:
        scope, info = self._scope, camera.info
        plan = plan_scan(self._settings, self._experiment.limits, focus_um)
        return ScanHeader(
            positions_um=tuple(planned_positions(plan)),
            images=planned_images(plan),
            step_um=self._settings.step_um,
            height=info.height,
            width=info.width,
            dtype=info.dtype,
            pixel_size_um=scope.known_pixel_size_um(),
            settings={
                "config": scope.settings.config,
                "camera": scope.camera,
                "focus": scope.focus,
                "exposure_ms": scope.read_exposure(),
            },
            focus_um=focus_um,
            began_s=time.time(),
            run_id=self._run_id,
        )

    def _scan(self, scan: ZScan, camera: BurstCamera) -> None:
        self._settle()
        done = scan.header.planes - len(scan.missing)
        self._on_progress(ScanProgress(done, scan.header.planes, self._scope.read_focus(), scan.retaken))
        taker = PlaneTaker(self._scope, camera, self._settings, stopping=self._stop)
        try:
            scan.take(taker, self._settings, self._on_progress)
            scan.finish({"software": f"liveptv {__version__}"})
            self._paths.discard_old_references()
        except LivePTVError as error:
            raise kept(error, scan) from error

    def _middle_of_file(self, camera: BurstCamera) -> float:
        """The middle of a finished scan, um. Raises `ConfigurationError` if the camera's images differ."""
        name = self._paths.whole.name
        stack = open_stack(self._paths.whole)
        try:
            found, now = stack.info, camera.info
            if (found.height, found.width, found.dtype) != (now.height, now.width, now.dtype):
                raise ConfigurationError(
                    f"the images of {name} are {found.height} x {found.width} {found.dtype}, the camera's "
                    f"{now.height} x {now.width} {now.dtype}; set the camera as it was"
                )
            middle_um = (stack.read(0).focus_um + stack.read(found.planes - 1).focus_um) / 2
        finally:
            stack.close()
        check_focus_range(self._experiment.limits, [middle_um], f"the middle of {name}", "the limits")
        return middle_um

    def _references(
        self, kinds: Sequence[str], camera: BurstCamera, middle_um: float, *, prepared: bool = False
    ) -> tuple[Path, ...]:
        """Take the references in the middle of the scan."""
        scope, settings = self._scope, self._settings
        if not kinds:
            return ()
        if not prepared:
            with self._safely(self._focus_um):
                return self._references(kinds, camera, middle_um, prepared=True)
        taken = []
        frame_bytes = camera.info.height * camera.info.width * scope.dtype().itemsize
        try:
            check_room(self._paths.whole, len(kinds) * settings.reference_images * frame_bytes)
            scope.move_focus(middle_um)
            scope.wait_for_focus(settings.move_timeout_s)
            for kind in kinds:
                burst = take_reference(
                    kind,
                    scope,
                    camera,
                    settings,
                    ask=self._ask,
                    stopping=self._stop,
                    settle=self._settle,
                )
                if burst is None:
                    self._on_note(f"no {kind} reference; --resume takes it later")
                    continue
                path = self._paths.reference(kind)
                write_reference(path, burst, scope.known_pixel_size_um())
                taken.append(path)
        except LivePTVError as error:
            raise type(error)(
                f"{error}; {self._paths.whole.name} is complete; --resume takes the rest"
            ) from error
        return tuple(taken)

    @contextmanager
    def _safely(self, focus_um: float) -> Iterator[None]:
        """Light on inside, the safe end afterwards; `focus_um` is where the focus was before."""
        target_um = end_um(self._settings, self._experiment.limits, focus_um)
        timeout_s = self._settings.move_timeout_s
        with safe_end(self._scope, target_um, timeout_s), light_on(self._scope, self._settings):
            yield

    def _settle(self) -> None:
        time.sleep(self._settings.settle_s)
