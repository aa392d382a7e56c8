"""Makes the hardware safe after the acquisition was killed, by opening the relevant devices again.

Only a part of the configuration file is loaded: pump, shutter and focus drive, with the hubs and ports that they
need and the properties that must be set before initialisation. What the file sets after that (the flow at which a
run begins, presets) is left out, so that nothing starts again.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path

from acquisition.safety.hardware_state import DeviceSafety
from acquisition.settings import LimitsSettings, MicroscopeSettings
from stream.errors import LivePTVError

TRIES_S = 8.0  # s: the operating system needs a moment to release the ports of a killed process
AGAIN_S = 0.5  # s between two attempts
PYTHON = "#py "
DEVICE_KINDS = {"Device", "pyDevice"}


def only(lines: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Lines of a configuration that load the `wanted` devices and those they depend on, without starting anything.

    Kept are, for each device: its own line, its parent, its properties before `Initialize`, and any device
    that one of these names (a serial port).
    """
    parsed = [(line, _fields(line)) for line in lines]
    loaded = {fields[1] for _, fields in parsed if fields[0] in DEVICE_KINDS and len(fields) > 2}
    initialise = next((n for n, (_, fields) in enumerate(parsed) if _initialises(fields)), len(parsed))
    before = parsed[:initialise]
    kept: set[str] = set()
    waiting = [label for label in wanted if label in loaded]
    while waiting:
        label = waiting.pop()
        if label in kept:
            continue
        kept.add(label)
        named = [fields[-1] for _, fields in before if fields[0] == "Property" and fields[1:2] == [label]]
        named += [fields[2] for _, fields in parsed if fields[0] == "Parent" and fields[1:2] == [label]]
        waiting += [name for name in named if name in loaded]
    chosen = [
        line
        for n, (line, fields) in enumerate(parsed)
        if fields[1:2]
        and fields[1] in kept
        and (fields[0] in DEVICE_KINDS | {"Parent"} or (fields[0] == "Property" and n < initialise))
    ]
    return [*chosen, "Property,Core,Initialize,1"]


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.removeprefix(PYTHON).strip().split(",")]


def _initialises(fields: list[str]) -> bool:
    return fields == ["Property", "Core", "Initialize", "1"]


def make_safe_anew(
    settings: MicroscopeSettings,
    limits: LimitsSettings,
    kinds: frozenset[str] = frozenset(),
    tell: Callable[[tuple[DeviceSafety, ...]], None] = lambda _found: None,
) -> tuple[DeviceSafety, ...]:
    """Open the devices that have a safe state and bring them there; returns the result of each.

    `tell` is called if one is not safe, before the devices are unloaded, which may hang. With `kinds` (pump,
    shutter, focus) only these are opened; the others are safe already. Raises `SourceError` or `ConfigurationError`
    if the devices cannot be opened.
    """
    from acquisition.microscope.core import find_config

    path = find_config(settings.config)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    settings = settings.model_copy(update={"focus": settings.focus or core_device(lines, "Focus") or None})
    settings, limits = _of(settings, limits, kinds)
    with tempfile.TemporaryDirectory(prefix="liveptv-") as folder:
        few = Path(folder) / path.name
        few.write_text("\n".join(only(lines, _wanted(lines, settings, limits))) + "\n", encoding="utf-8")
        until_s = time.monotonic() + TRIES_S
        while True:
            try:
                return _secure(settings.model_copy(update={"config": str(few)}), limits, tell)
            except LivePTVError:
                if time.monotonic() > until_s:
                    break
                time.sleep(AGAIN_S)
    return _secure(settings, limits, tell)


def core_device(lines: Iterable[str], role: str) -> str:
    """The label of the device with a role in the core ("Focus", "Camera") in a configuration; "" if none."""
    fields = [_fields(line) for line in lines]
    return next((f[3] for f in fields if f[:3] == ["Property", "Core", role] and len(f) > 3), "")


def _of(
    settings: MicroscopeSettings, limits: LimitsSettings, kinds: frozenset[str]
) -> tuple[MicroscopeSettings, LimitsSettings]:
    """Settings and limits with only the devices of these kinds; without kinds, all."""
    others = {"pump", "shutter", "focus"} - kinds if kinds else set()
    safe = {"pump": "safe_flow_ul_s", "focus": "safe_focus_um"}
    return (
        settings.model_copy(update=dict.fromkeys(others)),
        limits.model_copy(update={safe[kind]: None for kind in others & set(safe)}),
    )


def _wanted(lines: Iterable[str], settings: MicroscopeSettings, limits: LimitsSettings) -> list[str]:
    """The named devices; if a pump is needed and not named, all devices except the camera."""
    lines = list(lines)
    named = [label for label in (settings.pump, settings.shutter, settings.focus) if label]
    if settings.pump is not None or limits.safe_flow_ul_s is None:
        return named
    camera = settings.camera or core_device(lines, "Camera")
    fields = [_fields(line) for line in lines]
    return [f[1] for f in fields if f[0] in DEVICE_KINDS and len(f) > 2 and f[1] != camera]


def _secure(
    settings: MicroscopeSettings, limits: LimitsSettings, tell: Callable[[tuple[DeviceSafety, ...]], None]
) -> tuple[DeviceSafety, ...]:
    from acquisition.microscope.microscope import Actuators
    from acquisition.safety.safe_state import SafeState

    actuators = Actuators(settings)
    try:
        found = SafeState(actuators, limits).enter_and_confirm()
        if not all(device.safe for device in found):
            tell(found)
        return found
    finally:
        actuators.close()


def rescue(settings: MicroscopeSettings, limits: LimitsSettings, answer: Connection) -> None:
    """Body of a process: waits for the kinds of devices, makes them safe, sends the result of each or the error.

    If the acquisition recovers, it gets no request: it ends with the pipe, or is killed.
    """
    import acquisition.safety.safe_state  # noqa: F401 - loads everything beforehand

    found: tuple[DeviceSafety, ...] | str
    try:
        kinds = answer.recv()
    except (EOFError, OSError):
        return
    try:
        found = make_safe_anew(settings, limits, kinds, answer.send)
    except LivePTVError as error:
        found = str(error)
    except Exception as error:  # noqa: BLE001 - top of a process: the error must be reported
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"
    with contextlib.suppress(OSError):
        answer.send(found)
