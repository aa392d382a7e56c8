"""The detector's interface: frames go in, detections come out in the same order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from stream.errors import LivePTVError
from stream.messages import Detections, Frame, Predictions


class DetectionError(LivePTVError, ValueError):
    """An image that a detector cannot read; the text names the frame."""


class BackEndError(LivePTVError, RuntimeError):
    """A back end failed, at the start or during a run; the text names it. Another one may take over."""


class WrongNumbersError(BackEndError):
    """A back end returned numbers that no network can have calculated."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Description of an engine, for the run's file and the report.

    `model` names the model or curve file ("" where there is none) and `hash` is its SHA-256; `depth` says
    whether z is measured. `details` holds what else matters, JSON-able.
    """

    name: str
    backend: str
    device: str
    model: str = ""
    hash: str = ""
    depth: bool = False
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """A detector. All methods belong to one thread."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        ...

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        ...

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Compile and allocate everything for such images, or volumes of `depth` slices.

        The first frame is then as fast as the rest. Raises `DetectionError` if it does not read them.
        """
        ...

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while the engine processes as many as it can hold.

        The frame's image must stay valid until its detections have been returned. `predicted` is what the tracker
        knew of its tracks after an earlier frame, a hint: an engine that cannot use it ignores it.
        Raises `DetectionError` for an image this engine cannot read.
        """
        ...

    def results(self, timeout_s: float) -> list[Detections]:
        """Return the detections that are ready, in the order of submission, waiting for at most `timeout_s`.

        Raises `DetectionError` if a frame could not be processed, `BackEndError` if no further frame can be.
        """
        ...

    def counts(self) -> dict[str, int]:
        """Totals since the start: what was found and what was left out, by reason."""
        ...

    def close(self) -> None:
        """Release threads and memory. Idempotent."""
        ...


@runtime_checkable
class Announcing(Protocol):
    """An engine that can say when it has results."""

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called, from any thread, when there may be results; False if that is not possible."""
        ...


def announces(engine: Engine, call: Callable[[], None]) -> bool:
    """Have `call` called when `engine` may have results; False if it cannot say when, and has to be asked."""
    return isinstance(engine, Announcing) and engine.announce(call)


@runtime_checkable
class Fallible(Protocol):
    """An engine that goes on after a frame in which it failed; the others raise."""

    def failed(self) -> list[int]:
        """The numbers of the frames that failed since the last call."""
        ...


def failed_frames(engine: Engine) -> list[int]:
    """The frames in which `engine` failed since the last call, after `results`; they have no detections."""
    return engine.failed() if isinstance(engine, Fallible) else []


READABLE = (np.dtype(np.uint8), np.dtype(np.uint16))


def images_only(depth: int, reader: str) -> None:
    """Raise `DetectionError` if `reader`, which reads images, is to be used for volumes of `depth` slices."""
    if depth != 1:
        raise DetectionError(
            f"the frames are volumes of {depth} slices, and {reader} reads single images: use a detector for "
            "volumes, or a source of images"
        )


def readable(frame: Frame, shape: tuple[int, ...], reader: str, *, volumes: bool = False) -> Frame:
    """The frame in a form that `reader` can process: itself, or with a converted copy of its image.

    Images (H, W), or with `volumes` volumes (Z, H, W), of whole numbers are read if their values are within 0 to
    65535, whatever their type and byte order, and booleans as 0 and 1; `shape` is that of the images before (empty
    before the first). Raises `DetectionError` for the other of the two, other values, and images of another shape
    than those before.
    """
    image, number = frame.image, frame.info.frame
    if image.ndim != (3 if volumes else 2):
        what = f"an image of shape {image.shape}" if image.ndim == 2 else f"a volume of shape {image.shape}"
        reads, needed = ("volumes", "volumes") if volumes else ("single images", "images")
        raise DetectionError(f"frame {number} is {what}; {reader} reads {reads}: use a source of {needed}")
    if not image.size:
        raise DetectionError(f"frame {number} has no pixels, its shape is {image.shape}; remove it")
    if shape and image.shape != shape:
        raise DetectionError(f"frame {number} is {image.shape} but the images before it were {shape}")
    if image.dtype in READABLE and image.flags.c_contiguous and image.flags.aligned:
        return frame
    return replace(frame, image=_converted(image, number))


def working_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The type in which images of `dtype` are processed: uint8 or uint16, of this computer's byte order."""
    given = np.dtype(dtype)
    return READABLE[0] if given.itemsize == 1 and given.kind in "bu" else READABLE[1]


def _converted(image: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
    """The image as uint8 or uint16 of this computer's byte order, contiguous."""
    kind, size = image.dtype.kind, image.dtype.itemsize
    if kind == "b" or (kind == "u" and size <= READABLE[-1].itemsize):
        return np.require(image, working_dtype(image.dtype), ["C", "A"])
    if kind not in "iu":
        raise DetectionError(
            f"frame {number} has {image.dtype} pixels; the detector reads uint8 and uint16, and other whole "
            "numbers from 0 to 65535: convert the images"
        )
    low, high = int(image.min(initial=0)), int(image.max(initial=0))
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise DetectionError(
            f"frame {number} has {image.dtype} pixels from {low} to {high}; the detector reads 0 to 65535: convert "
            "the images to uint16"
        )
    return np.require(image, READABLE[-1], ["C", "A"])
