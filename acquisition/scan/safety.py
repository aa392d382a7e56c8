"""What holds while a scan runs and what is left behind, however it ends: light, shutter, focus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from acquisition.microscope import Microscope
from acquisition.settings import ScanSettings
from stream.errors import LivePTVError, SourceError

Property = str | int | float | bool


@contextmanager
def safe_end(microscope: Microscope, target_um: float, timeout_s: float) -> Iterator[None]:
    """Send the focus to its safe end position afterwards, whatever happens."""

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
    """Light for the time of the scan: the light source on and the shutter open, where there are such.

    Where the core would open and close that shutter or that source for every burst, it does not meanwhile.
    Afterwards the source is as it was and the shutter closed.
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
    """Set properties; returns what they were. All are put back where one is refused."""
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
    """Device and property that `Device.Property` names."""
    device, _, key = name.partition(".")
    return device, key
