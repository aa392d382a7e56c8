"""The Micro-Manager core with our frame queue, a clean exit, and errors in one line."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, cast

import mm_test_adapters
import pymmcore

from acquisition.configuration import SIMULATED, config_path
from acquisition.microscope.frame_queue import FrameQueue
from acquisition.microscope.pymmcore import UniMMCore, find_micromanager
from stream.errors import ConfigurationError, LivePTVError, SourceError

log = logging.getLogger(__name__)


def open_core(config: str, *, buffer_mb: int = 1024) -> UniMMCore:
    """Load a microscope; `config` is a `.cfg` (see `find_config`).

    Raises `ConfigurationError` if there is no such file, `SourceError` with the core's reason if it cannot be
    loaded.
    """
    path = find_config(config)
    core = UniMMCore(adapter_paths=adapter_paths())
    # a private attribute: UniMMCore 0.18 has no public way to replace its buffer
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
    """Unload all devices; without this, Python usually aborts at exit."""
    queue = frame_queue(core)
    if queue is not None:
        queue.patient = False
    try:
        if core.isSequenceRunning():
            core.stopSequenceAcquisition()
    except Exception as error:  # noqa: BLE001 - whatever the adapter raises, its devices are unloaded next
        log.warning("the camera could not be stopped: %s", reason(error))
    try:
        core.unloadAllDevices()
    finally:
        pymmcore.CMMCore.registerCallback(core, None)


def frame_queue(core: UniMMCore) -> FrameQueue | None:
    """The queue of a Python camera; None for a C++ camera, which uses the buffer of the core."""
    camera = core.getCameraDevice()
    queue: object = core._seq_buffer
    return queue if camera and core.isPyDevice(camera) and isinstance(queue, FrameQueue) else None


def adapter_paths() -> list[str]:
    """Folders of device adapters, in the order in which they are searched.

    First the Micro-Manager that was chosen (`MICROMANAGER_PATH`, `mmcore use`, `mmcore install`), then the test
    adapters, which fit this device interface for certain, then any other Micro-Manager on this computer.
    """
    found: list[str] = []
    try:
        found = [str(find_micromanager() or ""), *map(str, find_micromanager(return_first=False) or [])]
    except Exception as error:  # noqa: BLE001 - looking through folders of others must not keep a run from starting
        log.warning("no installed Micro-Manager was searched for adapters: %s", error)
    paths = [*found[:1], str(mm_test_adapters.device_adapter_path()), *found[1:]]
    return [path for path in dict.fromkeys(paths) if path]


def find_config(config: str) -> Path:
    """The file that `config` means: a simulated microscope, a path, or the name of a file beside the adapters.

    Raises `ConfigurationError` with the folders that were searched.
    """
    if config in SIMULATED:
        return config_path(config)
    path = Path(config).expanduser()
    places = [path, *(Path(folder) / config for folder in adapter_paths())]
    for place in places:
        if place.is_file():
            return place.resolve()
    if path.exists():
        raise ConfigurationError(f"{path} is not a file; microscope.config must be the path of a .cfg")
    looked = ", ".join(str(place.parent) for place in places)
    raise ConfigurationError(
        f"there is no microscope configuration {config!r}; give the path of a .cfg, or one of "
        f"{', '.join(SIMULATED)} (searched: {looked})"
    )


def _check_lines(path: Path) -> None:
    """Raise `SourceError` for a file without devices; the core would load it as an empty microscope."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    devices = [
        line for line in text.splitlines() if line.startswith(("Device,", "#py Device,", "#py pyDevice,"))
    ]
    if not devices:
        raise SourceError(
            f"{path} is not a configuration file of Micro-Manager: it has no line that begins with 'Device,'; "
            "give the .cfg that Micro-Manager's Hardware Configuration Wizard writes"
        )


def _check_python_devices(core: UniMMCore) -> None:
    """Raise the error of a Python device that failed to initialise; the core only logs it."""
    for label in core.getLoadedDevices():
        if core.isPyDevice(label) and core.hasProperty(label, "LastError"):
            problem = str(core.getProperty(label, "LastError"))
            if problem:
                raise SourceError(f"{label} cannot be used: {problem}")


def reason(error: BaseException) -> str:
    """The message of an exception in one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


class CameraThreadFaults:
    """Keeps the last exception in the thread of a Python camera, which otherwise only `threading.excepthook` sees.

    Exceptions in other threads are passed on.
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
        """Restore the previous hook, unless this one has been replaced."""
        if threading.excepthook == self._hook:
            threading.excepthook = self._before
