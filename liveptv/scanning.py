"""A focus scan from the settings to the finished files: check, scan, references, safe end."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acquisition.microscope import Microscope
from acquisition.recording import open_stack
from acquisition.scan.burst import BurstCamera
from acquisition.scan.journal import ScanHeader
from acquisition.scan.output import ScanPaths, check_room, writing
from acquisition.scan.plan import end_um, plan_scan, planned_images, planned_positions
from acquisition.scan.plane import PlaneTaker, ScanStoppedError
from acquisition.scan.references import Ask, check_references, light_on, take_reference, write_reference
from acquisition.scan.zscan import RESUME, ScanProgress, ZScan, kept
from acquisition.settings import ScanSettings
from liveptv import __version__
from liveptv.application import stopping_on_interrupt
from liveptv.config import Experiment
from stream.errors import ConfigurationError, LivePTVError, OutputError, SourceError


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """What a scan has left: its file, planes, tries that were no good, and the references taken."""

    paths: ScanPaths
    planes: int
    retaken: int
    references: tuple[Path, ...]
    seconds: float


class Stop:
    """Asked for by Ctrl-C, looked at between images."""

    def __init__(self) -> None:
        self._asked = False

    def request_stop(self, _reason: str) -> None:
        """End after what is being done."""
        self._asked = True

    def __call__(self) -> bool:
        """Whether it was asked for."""
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

    Whatever happens, the focus ends at its safe end position, light and shutter are as they were before, and what
    was taken can be gone on with (`resume`). `ask` puts a question to the user, who agrees or declines; None
    where there is nobody. Raises `ConfigurationError` and `OutputError` before anything moves, `SourceError`,
    `OutputError` and `ScanStoppedError` later.
    """
    settings = experiment.scan
    if settings is None or experiment.microscope is None:
        missing = "scan" if settings is None else "microscope"
        raise ConfigurationError(f"the experiment has no [{missing}] section; add one, see docs/scan.md")
    kinds = tuple(dict.fromkeys(settings.references if references is None else references))
    _check_outputs(paths, kinds, resume, overwrite)
    began_s, stop = time.monotonic(), Stop()
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
        self._stop, self._ask = stop, None if ask is None else _interruptible(ask)
        self._on_progress, self._on_note = on_progress, on_note
        self._focus_um = microscope.read_focus()
        self._run_id = str(uuid.uuid4())

    def run(self, kinds: Sequence[str], resume: bool, overwrite: bool) -> tuple[int, int, tuple[Path, ...]]:
        """Scan and take the references; returns planes, tries that were no good, and the references."""
        scope, settings, paths = self._scope, self._settings, self._paths
        if resume:
            kinds = [kind for kind in kinds if not paths.reference(kind).exists()]
        check_references(scope, settings, kinds, self._ask)
        assert self._experiment.microscope is not None
        camera = BurstCamera(scope, self._experiment.microscope, settings.image_timeout_s)
        try:
            if resume and paths.whole.exists() and not paths.partial.exists():
                paths.discard_unfinished()
                return 0, 0, self._references(kinds, camera, self._middle_of_file())
            scan = self._open(camera, kinds, resume, overwrite)
            try:
                header = scan.header
                self._on_note(describe(scan))
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

        fresh = header(self._focus_um)
        if resume:
            scan = ZScan.resume(self._paths, header)
            if scan is not None:
                return scan
            self._on_note("there is nothing to resume; the scan begins")
        if resume or overwrite:
            self._paths.discard_unfinished()
        scan = ZScan.begin(self._paths, fresh)
        for kind in kinds:  # those of the scan that is being replaced would be taken for this one's
            with writing(self._paths.reference(kind)):
                self._paths.reference(kind).unlink(missing_ok=True)
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
        except LivePTVError as error:
            raise kept(error, scan) from error

    def _middle_of_file(self) -> float:
        stack = open_stack(self._paths.whole)
        try:
            return (stack.read(0).focus_um + stack.read(stack.info.planes - 1).focus_um) / 2
        finally:
            stack.close()

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
                f"{error}; {self._paths.whole.name} is whole, --resume takes the rest"
            ) from error
        return tuple(taken)

    @contextmanager
    def _safely(self, focus_um: float) -> Iterator[None]:
        """Light while it lasts, the safe end afterwards; `focus_um` is where the focus was before."""
        target_um = end_um(self._settings, self._experiment.limits, focus_um)
        with _safe_end(self._scope, target_um, self._settings), light_on(self._scope, self._settings):
            yield

    def _settle(self) -> None:
        time.sleep(self._settings.settle_s)


def describe(scan: ZScan) -> str:
    """What a scan is going to do, in one line."""
    header, missing = scan.header, len(scan.missing)
    first_um, last_um = header.positions_um[0], header.positions_um[-1]
    size_gb = header.planes * header.plane_bytes / 1e9
    rest = "" if missing == header.planes else f"; {header.planes - missing} of them are there already"
    unknown = (
        "; the pixel size is not known, set microscope.pixel_size_um" if not header.pixel_size_um else ""
    )
    return (
        f"{header.planes} planes from {first_um:g} to {last_um:g} um, {header.images} images each, "
        f"{size_gb:.2f} GB{rest}{unknown}"
    )


def _check_outputs(paths: ScanPaths, kinds: Sequence[str], resume: bool, overwrite: bool) -> None:
    """Raise `OutputError` for what would be replaced, `ConfigurationError` where both ways are asked for."""
    folder = paths.whole.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {paths.whole}: there is no folder {folder}; create it first")
    if resume and overwrite:
        raise ConfigurationError("--resume keeps what is there, --overwrite replaces it; pass one of them")
    if resume or overwrite:
        return
    if paths.partial.exists():
        raise OutputError(
            f"{paths.partial.name} is an unfinished scan; {RESUME}, or pass --overwrite to begin anew"
        )
    for path in (paths.whole, *map(paths.reference, kinds)):
        if path.exists():
            raise OutputError(f"{path} exists; choose another name or pass --overwrite")


@contextmanager
def _safe_end(microscope: Microscope, target_um: float, settings: ScanSettings) -> Iterator[None]:
    """Send the focus to its safe end position afterwards, whatever happens."""

    def go() -> None:
        microscope.move_focus(target_um)
        microscope.wait_for_focus(settings.move_timeout_s)

    try:
        yield
    except BaseException as error:
        try:
            go()
        except LivePTVError as unsafe:
            raise SourceError(f"{error}; and the focus is not at its safe end position: {unsafe}") from error
        raise
    go()


def _interruptible(ask: Ask) -> Ask:
    """Let Ctrl-C end a question at once."""

    def asked(question: str) -> bool:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return ask(question)
        except KeyboardInterrupt:
            raise ScanStoppedError("stopped by the user") from None
        finally:
            signal.signal(signal.SIGINT, before)

    return asked
