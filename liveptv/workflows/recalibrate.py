"""Recalibration from a trajectory file and its images: a new version of the model, with what changed and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acquisition.recording import Recording, open_recording
from calibration.recalibration.estimate import Known, Recalibrated, RecalibrationError, recalibrate
from calibration.recalibration.model_file import ModelFile
from calibration.recalibration.sightings import Recorded
from engines.flatfield import load_flat_field
from liveptv.files import refuse_to_replace, writable
from liveptv.recalibration.contrast import Contrasts
from liveptv.recalibration.words import lines_of
from stream.errors import ConfigurationError, SourceError
from tracking.trajectories.columns import Trajectories, collect
from tracking.trajectories.file import TrajectoryFile

log = logging.getLogger(__name__)

Float32Array = npt.NDArray[np.float32]

SAME_PIXELS = 0.02
"""Relative difference in pixel size up to which a model is used, as by the fit."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a recalibration reads; None: as in the configuration that the trajectory file contains."""

    tracks: Path
    images: Path | None = None
    model: Path | None = None
    bright: Path | None = None
    dark: Path | None = None


def recalibrate_model(
    given: Inputs,
    output: Path,
    *,
    wall_distance_um: float | None = None,
    wall_focus_um: float | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = log.info,
) -> Recalibrated:
    """Update the named terms of a model and write its new version to `output`.

    `say` gets lines for the user: what is used, and each term, before and after. Raises `RecalibrationError`, and
    writes nothing, where no term changes; `SourceError` and `ConfigurationError` for files that cannot be used.
    """
    with TrajectoryFile(given.tracks) as file:
        rows = collect(file.trajectories(include_predicted=True, include_flagged=True))
    settings = rows.attributes.get("configuration") or {}
    images = _path(
        given.images, (settings.get("recording") or {}).get("path"), "--images", "the recorded images"
    )
    detector = settings.get("detector") or {}
    model_path = _path(given.model, detector.get("model"), "--model", "the model")
    bright = given.bright
    if bright is None and detector.get("bright"):
        bright = _path(None, detector["bright"], "--bright", "the bright reference of the run")
    dark = given.dark
    if dark is None and given.bright is None and detector.get("dark"):
        dark = _path(None, detector["dark"], "--dark", "the dark reference of the run")
    refuse_to_replace(output, given.tracks, images, model_path, bright, dark)
    writable(output, overwrite)
    if output.suffix.lower() != ".onnx":
        raise ConfigurationError(f"the network is written as an .onnx file; {output} must end in .onnx")
    model = ModelFile(model_path)
    used = (rows.attributes.get("model") or {}).get("sha256")
    if used and used != model.sha256:
        say(
            f"the trajectories were made with another model than {model_path.name}; they only tell where to look"
        )
    factor = float(rows.attributes.get("refraction_factor", 1.0))
    flat = None if bright is None else load_flat_field(bright, dark)
    recording = settings.get("recording") or {}
    pixel_um = float(rows.attributes.get("pixel_size_um", np.nan))
    opened = open_recording(
        images,
        run_id="recalibrate",
        axes=recording.get("axes") if given.images is None else None,
        pixel_size_um=pixel_um if np.isfinite(pixel_um) else None,
        model_pixel_size_um=lambda: model.psf.pixel_size_um,
    )
    with closing(opened):
        pixel_um = _checked_pixels(opened, pixel_um, model, images)
        shape = opened.info.height, opened.info.width
        if flat is not None:
            flat.check(shape)
        recorded = _recorded(rows, pixel_um, opened)
        source = _Images(images, opened, Contrasts(model, flat))
        known = Known(wall_distance_um, wall_focus_um, factor)
        found = recalibrate(model.psf, recorded, shape, source, known, say=say)
    for line in lines_of(found):
        say(line)
    if not found.changed:
        missing = "; ".join(f"{term.name}: {term.why}" for term in found.terms)
        raise RecalibrationError(f"nothing to update in {model_path.name}, and nothing written: {missing}")
    entry = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "from": model_path.name,
        "tracks": given.tracks.name,
        "images": images.name,
        "wall_distance_um": wall_distance_um,
        "wall_focus_um": wall_focus_um,
    }
    model.write(output, found, entry, overwrite=overwrite)
    return found


def _path(given: Path | None, configured: object, option: str, what: str) -> Path:
    """The given path, else the configured one if it is still there. Raises `ConfigurationError`."""
    if given is not None:
        return given
    if configured:
        path = Path(str(configured))
        if Path(str(path).partition("::")[0]).exists():
            return path
        raise ConfigurationError(f"{what}, {path}, is not there any more; pass {option}")
    raise ConfigurationError(f"the trajectory file does not name {what}; pass {option}")


def _checked_pixels(opened: Recording, pixel_um: float, model: ModelFile, images: Path) -> float:
    found = pixel_um if np.isfinite(pixel_um) else opened.info.pixel_size_um
    if opened.info.depth > 1:
        raise ConfigurationError(f"{images} has volumes of {opened.info.depth} planes; give single images")
    if abs(model.psf.pixel_size_um / found - 1) > SAME_PIXELS:
        raise ConfigurationError(
            f"the model is for pixels of {model.psf.pixel_size_um:g} um and these have {found:g} um; give the "
            "model of this microscope"
        )
    return found


def _recorded(rows: Trajectories, pixel_um: float, opened: Recording) -> Recorded:
    """The rows of a trajectory file with the numbers of their images."""
    camera = rows.frames["camera_frame"].astype(np.int64)
    in_file = camera[np.searchsorted(rows.frames["frame"], rows.frame)]
    depth = np.asarray(rows.z_um, np.float64)
    if not np.isfinite(depth).any():
        raise SourceError("the trajectories have no depth (2D); detect with a model that gives it")
    sigma_xy = np.hypot(rows.sigma_x_um, rows.sigma_y_um) / np.sqrt(2) / pixel_um
    return Recorded(
        rows.track,
        in_file,
        np.asarray(rows.x_um / pixel_um),
        np.asarray(rows.y_um / pixel_um),
        depth,
        sigma_xy.astype(np.float64),
        rows.sigma_z_um.astype(np.float64),
        np.asarray(rows.of_frame("focus_um"), np.float64),
        (rows.flags == 0)
        & np.isfinite(depth),  # predicted, second, tentative or reduced ones are neighbours only
    )


class _Images:
    """The images of a recording as the fit sees them."""

    def __init__(self, path: Path, opened: Recording, contrasts: Contrasts) -> None:
        self._path, self._opened, self._contrasts = path, opened, contrasts

    def __call__(self, numbers: list[int]) -> Iterator[tuple[int, Float32Array, float, float]]:
        """Contrast and noise of these frames, by the camera's number, or their number in the recording."""
        wanted, seen = set(numbers), 0
        for frame in self._opened.frames():
            number = frame.info.camera_frame
            if number not in wanted:
                continue
            seen += 1
            contrast = self._contrasts(frame.image)
            if contrast is not None:
                yield number, *contrast
            if seen == len(wanted):
                break
        if seen < len(wanted):
            log.warning(
                "%d of %d images of the trajectories are not in %s",
                len(wanted) - seen,
                len(wanted),
                self._path,
            )
