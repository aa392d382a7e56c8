"""Compares what was read, frame by frame or row by row, with what the video holds."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from command_run import UnacceptableError, no_more_memory
from known_video import PIXEL_UM, RATE_HZ, SPEED_UM_S, STEP_PX, X_PX, Y_PX, Truth
from mutation import Mutation

from acquisition.recording import open_recording
from stream.errors import LivePTVError
from tracking.trajectories.file import TrajectoryFile


@dataclass
class Seen:
    """What was read: for each frame the image it is (-1: none), its time, its focus; and the size of a pixel."""

    images: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    focus_um: list[float] = field(default_factory=list)
    pixel_um: float = np.nan
    error: str = ""


def read_frames(case: Mutation, path: Path) -> Seen:
    """Read all frames and recognise each by its content."""
    options = {"frame_rate_hz": RATE_HZ, "pixel_size_um": PIXEL_UM} if case.given else {}
    seen = Seen()
    known = [image.astype(float) for image in case.truth.stack]
    try:
        with no_more_memory():
            recording = open_recording(path, run_id="judge", **options)
        try:
            recording.start()
            seen.pixel_um = recording.info.pixel_size_um
            while not recording.ended:
                frame = recording.read(1.0)
                if frame is None:
                    continue
                seen.images.append(_recognised(frame.image, known, len(seen.images), case.truth.alike))
                seen.times_s.append(frame.info.time_s)
                seen.focus_um.append(frame.info.focus_um)
                if len(seen.images) > 10 * len(known):
                    raise UnacceptableError(f"{len(seen.images)} frames and more of a video of {len(known)}")
        finally:
            recording.close()
    except LivePTVError as error:
        seen.error = str(error)
    except UnacceptableError:
        raise
    except Exception as error:
        raise UnacceptableError(
            f"reading: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
    return seen


def _recognised(image, known, guess, alike):
    """Which image of the video this is, up to a factor and an offset as of a change of type; -1 if none."""
    pixels = np.asarray(image, float)
    same = [k for k in range(len(known)) if known[k].shape == pixels.shape]
    equal = [k for k in sorted(same, key=lambda k: k != guess) if np.array_equal(known[k], pixels)]
    if equal or not same or not pixels.std() > 0:
        return equal[0] if equal else -1
    likeness = [np.corrcoef(known[k].ravel(), pixels.ravel())[0, 1] for k in same]
    best = int(np.argmax(likeness))
    return same[best] if likeness[best] > alike else -1


def differences(truth: Truth, seen: Seen) -> dict[str, str]:
    """What was read otherwise than it is: `frames`, `pixel`, `times`, `focus`, each with the values."""
    found = {}
    if tuple(seen.images) != tuple(truth.order):
        found["frames"] = f"images {seen.images} instead of {list(truth.order)}"
    if not abs(seen.pixel_um / truth.pixel_um - 1) < 0.005:
        found["pixel"] = f"{seen.pixel_um:g} um a pixel instead of {truth.pixel_um:g}"
    known = [(image, time) for image, time in zip(seen.images, seen.times_s, strict=True) if image >= 0]
    if len(known) > 1:
        true_s = np.diff([truth.times_s[image] for image, _ in known])
        read_s = np.diff([time for _, time in known])
        step_s = np.median(np.abs(true_s)) or 1 / RATE_HZ
        if not (np.abs(read_s - true_s) <= 0.25 * step_s).all():
            speed = STEP_PX * np.diff([image for image, _ in known]) * seen.pixel_um
            with np.errstate(divide="ignore", invalid="ignore"):
                shown = np.round(speed / read_s, 2).tolist()
            found["times"] = f"steps of {np.round(read_s, 4).tolist()} s, velocities {shown} um/s"
    moved = np.asarray(seen.focus_um) - (seen.focus_um[0] if seen.focus_um else 0)
    if truth.focus_um is None:
        if np.isfinite(moved).any() and np.nanmax(np.abs(moved)) > 0.05:
            found["focus"] = f"a focus that moves by {np.nanmax(np.abs(moved)):g} um"
    elif known and len(moved) == len(seen.images):
        places = truth.focus_um[[max(image, 0) for image in seen.images]]
        if not np.allclose(moved, places - places[0], atol=0.05):
            found["focus"] = f"a focus at {np.round(seen.focus_um, 2).tolist()}"
    return found


def row_differences(output: Path) -> dict[str, str]:
    """How the rows of a trajectory file differ from the particles of the video."""
    with TrajectoryFile(output) as file:
        found = list(file.trajectories(include_flagged=True))
    frame = np.concatenate([part.frame for part in found])
    x_um = np.concatenate([part.x_um for part in found])
    y_um = np.concatenate([part.y_um for part in found])
    track = np.concatenate([part.track for part in found])
    time_s = np.concatenate([part.time_s for part in found])
    frames = len(np.unique(frame))
    first = frame.min() if frame.size else 0
    true_frame = np.repeat(np.arange(12), X_PX.size)
    true_x = PIXEL_UM * (np.tile(X_PX, 12) + STEP_PX * true_frame)
    true_y = PIXEL_UM * np.tile(Y_PX, 12)
    if frame.size != true_frame.size:
        return {"rows": f"{frame.size} rows in {frames} frames instead of {true_frame.size} in 12"}
    order, true_order = np.lexsort((y_um, frame)), np.lexsort((true_y, true_frame))
    off = max(
        np.abs(frame[order] - first - true_frame[true_order]).max(),
        np.abs(x_um[order] - true_x[true_order]).max(),
        np.abs(y_um[order] - true_y[true_order]).max(),
    )
    if not off < 2e-3:
        return {"rows": f"positions or frames are off by up to {off:g}"}
    speeds = []
    for one in np.unique(track):
        mine = track == one
        if mine.sum() > 3:
            speeds.append(np.polyfit(time_s[mine], x_um[mine], 1)[0])
    if not (speeds and np.allclose(speeds, SPEED_UM_S, rtol=0.01)):
        return {"rows": f"velocities {np.round(speeds, 2).tolist()} um/s"}
    return {}
