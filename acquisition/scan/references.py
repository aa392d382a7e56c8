"""Takes bright and dark references (without particles, without light) after a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import tifffile

from acquisition.microscope.microscope import Microscope
from acquisition.scan.burst import Burst
from acquisition.scan.paths import writing
from acquisition.scan.plane import Camera, ScanStoppedError
from acquisition.scan.safety import Property, property_of, set_properties
from acquisition.settings import ScanSettings
from stream.errors import ConfigurationError, SourceError

QUESTIONS = {
    "bright": "Bright reference: remove the particles from the image; leave light and focus as in the scan.",
    "dark": "Dark reference: switch the light off.",
}

Ask = Callable[[str], bool]


def check_references(
    microscope: Microscope, settings: ScanSettings, kinds: Sequence[str], ask: Ask | None
) -> None:
    """Check before the scan that the references can be taken after it. Raises `ConfigurationError`."""
    for name in [*([settings.light] if settings.light else []), *settings.bright_properties]:
        microscope.check_property(*property_of(name))
    for kind in kinds:
        if ask is None and needs_person(microscope, settings, kind):
            how = "scan.bright_properties" if kind == "bright" else "scan.light"
            raise ConfigurationError(
                f"the {kind} reference needs a person, but there is no terminal to ask at; set {how} or pass "
                "--no-references"
            )


def needs_person(microscope: Microscope, settings: ScanSettings, kind: str) -> bool:
    """Whether a reference needs a person, because the microscope cannot prepare it."""
    if kind == "dark":
        return not settings.light and not microscope.shutter
    return not settings.bright_properties


def take_reference(
    kind: str,
    microscope: Microscope,
    camera: Camera,
    settings: ScanSettings,
    *,
    ask: Ask | None,
    stopping: Callable[[], bool],
    settle: Callable[[], None],
) -> Burst | None:
    """Take the images of a reference; None if the person who is asked declines.

    The microscope is restored afterwards. Raises `SourceError` if images are missing in all attempts.
    """
    if needs_person(microscope, settings, kind) and (ask is None or not ask(QUESTIONS[kind])):
        return None
    with _prepared(kind, microscope, settings):
        settle()
        problem = ""
        for _ in range(settings.tries):
            burst = camera.take(settings.reference_images, stopping)
            if stopping():
                raise ScanStoppedError("stopped by the user")
            if not burst.lost and len(burst.images) == settings.reference_images:
                return burst
            problem = burst.problem or f"{burst.lost} images lost"
    raise SourceError(f"the {kind} reference cannot be taken in {settings.tries} attempts: {problem}")


@contextmanager
def _prepared(kind: str, microscope: Microscope, settings: ScanSettings) -> Iterator[None]:
    """Set the microscope for a reference, and restore it afterwards."""
    if kind == "bright":
        wanted: dict[str, Property] = dict(settings.bright_properties)
    else:
        wanted = {settings.light: settings.light_off} if settings.light else {}
    with ExitStack() as undo:
        before = set_properties(microscope, wanted)
        undo.callback(set_properties, microscope, before)
        if kind == "dark":
            # otherwise the core would open its shutter for the dark images
            undo.callback(microscope.set_auto_shutter, microscope.set_auto_shutter(False))
            if microscope.shutter:
                undo.callback(microscope.set_shutter, True)
                microscope.set_shutter(False)
        yield


def write_reference(path: Path, burst: Burst, pixel_size_um: float | None) -> None:
    """Write the images (N, H, W) as a TIFF stack of ImageJ. Raises `OutputError`."""
    partial = path.with_name(f"{path.name}.part")
    scale = None if pixel_size_um is None else (1 / pixel_size_um, 1 / pixel_size_um)
    metadata = {"axes": "TYX"} | ({} if pixel_size_um is None else {"unit": "um"})
    with writing(path):
        tifffile.imwrite(partial, np.stack(burst.images), imagej=True, resolution=scale, metadata=metadata)
        partial.replace(path)
