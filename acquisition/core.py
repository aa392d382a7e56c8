"""The Micro-Manager core with our frame queue, a clean exit, and errors of one line."""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path
from typing import Any, cast

import mm_test_adapters
import pymmcore

from acquisition.configuration import config_path
from acquisition.frame_queue import FrameQueue
from acquisition.pymmcore import UniMMCore, find_micromanager
from stream.errors import ConfigurationError, LivePTVError, SourceError

SIMULATED = ("simulated", "paper")

log = logging.getLogger(__name__)


def open_core(config: str, *, buffer_mb: int = 1024) -> UniMMCore:
    """Load a microscope: `config` is a `.cfg` (see `find_config`).

    Raises `ConfigurationError` if there is no such file, `SourceError` with the core's reason if it cannot be
    loaded.
    """
    path = find_config(config)
    core = UniMMCore(adapter_paths=adapter_paths())
    # a private name: UniMMCore 0.18 has no other way to give it another buffer
    core._seq_buffer = cast("Any", FrameQueue(buffer_mb))
    try:
        _check_lines(path)
        core.loadSystemConfiguration(str(path))
        if not core.getShutterDevice():
            core.setAutoShutter(False)
        _check_python_devices(core)
    except BaseException as error:
        close_core(core)
        if isinstance(error, LivePTVError) or not isinstance(error, Exception):
            raise
        advice = "; save the file as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise SourceError(f"cannot load the microscope {path.name}: {reason(error)}{advice}") from error
    return core


def close_core(core: UniMMCore) -> None:
    """Let go of all devices; without this, Python aborts at its end in most runs."""
    queue = frame_queue(core)
    if queue is not None:
        queue.patient = False
    try:
        if core.isSequenceRunning():
            core.stopSequenceAcquisition()
    except Exception as error:  # noqa: BLE001 - whatever the adapter says, its devices are unloaded next
        log.warning("the camera could not be stopped: %s", reason(error))
    try:
        core.unloadAllDevices()
    finally:
        pymmcore.CMMCore.registerCallback(core, None)


def frame_queue(core: UniMMCore) -> FrameQueue | None:
    """The queue of a Python camera; None where the camera is a C++ device and has the core's buffer."""
    camera = core.getCameraDevice()
    queue: object = core._seq_buffer
    return queue if camera and core.isPyDevice(camera) and isinstance(queue, FrameQueue) else None


def adapter_paths() -> list[str]:
    """Folders of device adapters: the installed Micro-Manager's, if there is one, then the test adapters'."""
    paths = [mm_test_adapters.device_adapter_path()]
    with contextlib.suppress(Exception):
        installed = find_micromanager()
        if installed and installed not in paths:
            paths.insert(0, str(installed))
    return paths


def find_config(config: str) -> Path:
    """The file that `config` means: `simulated` or `paper`, a path, or the name of a file beside the adapters.

    Raises `ConfigurationError` with the places that were looked at.
    """
    if config in SIMULATED:
        return config_path(config)
    path = Path(config).expanduser()
    places = [path, *(Path(folder) / config for folder in adapter_paths())]
    for place in places:
        if place.is_file():
            return place.resolve()
    if path.exists():
        raise ConfigurationError(f"{path} is not a file; microscope.config must name a .cfg")
    looked = ", ".join(str(place.parent) for place in places)
    raise ConfigurationError(
        f"there is no microscope configuration {config!r}; give the path of a .cfg, or one of "
        f"{', '.join(SIMULATED)} (looked in {looked})"
    )


def _check_lines(path: Path) -> None:
    """Say so of a file that is no configuration; the core would load it as an empty microscope."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    devices = [
        line for line in text.splitlines() if line.startswith(("Device,", "#py Device,", "#py pyDevice,"))
    ]
    if not devices:
        raise SourceError(
            f"{path} is not a configuration file of Micro-Manager: it names no device "
            "(lines that begin with 'Device,')"
        )


def _check_python_devices(core: UniMMCore) -> None:
    """The core only logs a Python device that fails to initialise; ours keep the reason."""
    for label in core.getLoadedDevices():
        if core.isPyDevice(label) and core.hasProperty(label, "LastError"):
            problem = str(core.getProperty(label, "LastError"))
            if problem:
                raise SourceError(f"{label} cannot be used: {problem}")


def reason(error: BaseException) -> str:
    """The core's message in one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


class CameraThreadFaults:
    """Keeps the last fault of a Python camera's thread, which otherwise reaches only `threading.excepthook`.

    All other threads' faults are passed on.
    """

    def __init__(self) -> None:
        self._before = threading.excepthook
        self.last = ""
        threading.excepthook = self._hook

    def _hook(self, args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ == "AcquisitionThread":
            self.last = reason(args.exc_value) if args.exc_value is not None else str(args.exc_type)
        else:
            self._before(args)

    def close(self) -> None:
        """Put the former hook back, if nobody has replaced this one."""
        if threading.excepthook == self._hook:
            threading.excepthook = self._before
