"""Light, shutter and focus during a scan, and their safe state at its end, whatever ended it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from acquisition.microscope.microscope import Microscope
from acquisition.settings import ScanSettings
from stream.errors import LivePTVError, SourceError

Property = str | int | float | bool


@contextmanager
def safe_end(microscope: Microscope, target_um: float, timeout_s: float) -> Iterator[None]:
    """Move the focus to its safe end position afterwards, whatever happens."""

    def go() -> None:
        microscope.move_focus(target_um)
        microscope.wait_for_focus(timeout_s)

    try:
        yield
    except BaseException as error:
        try:
            go()
        except LivePTVError as unsafe:
            raise SourceError(f"{error}; and the focus is not at its safe end position: {unsafe}") from error
        raise
    go()


@contextmanager
def light_on(microscope: Microscope, settings: ScanSettings) -> Iterator[None]:
    """Light during the scan: the light source on and the shutter open, if there are any.

    The core's automatic shutter is off meanwhile if it would switch one of them for every burst. Afterwards the
    source is restored and the shutter closed.
    """
    source = property_of(settings.light)[0] if settings.light else ""
    automatic = str(microscope.core.getShutterDevice())
    with ExitStack() as undo:
        if microscope.shutter:
            undo.callback(microscope.set_shutter, False)
        if automatic and automatic in {microscope.shutter, source}:
            undo.callback(microscope.set_auto_shutter, microscope.set_auto_shutter(False))
        if microscope.shutter:
            microscope.set_shutter(True)
        if settings.light:
            before = set_properties(microscope, {settings.light: settings.light_on})
            undo.callback(set_properties, microscope, before)
        yield


def set_properties(microscope: Microscope, wanted: dict[str, Property]) -> dict[str, Property]:
    """Set properties; returns the previous values. All are restored if one is refused."""
    before: dict[str, Property] = {}
    try:
        for name, value in wanted.items():
            device, key = property_of(name)
            was = microscope.read_property(device, key)
            microscope.set_property(device, key, value)
            before[name] = was
    except SourceError:
        for name, value in before.items():
            microscope.set_property(*property_of(name), value)
        raise
    return before


def property_of(name: str) -> tuple[str, str]:
    """Device and property in `Device.Property`."""
    device, _, key = name.partition(".")
    return device, key
