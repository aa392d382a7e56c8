"""The header of a frame from any program: PSI `htypes array-1.0` with at least `htype`, `type` and `shape`.

https://github.com/paulscherrerinstitute/htypes. Nothing else is required (`docs/streaming.md`). For any bytes,
`read_header` returns what they say or raises `WireError` with the reason for the sender's user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from acquisition.listened.volume import NOTHING, SaidSlices, check_slices, slices_said
from stream.errors import WireError
from stream.header import MAX_HEADER_BYTES, Int64
from stream.messages import NAN, ImageArray
from stream.safe_text import one_line

HTYPE = "array-1.0"
TYPES = {"uint8": "u1", "uint16": "u2"}
ORDERS = {"little": "<", "big": ">"}
MOST_BYTES = 2**28
"""Largest image, bytes: a camera of 150 million pixels with 12 bits has 0.3 * 10^9; microscopes have a tenth."""
MOST_AXES = 32
LARGEST_NUMBER = 2**62
NAME_LENGTH = 120  # characters of a name that is shown


class _Fields(msgspec.Struct):
    """The fields that are looked at; all others are ignored."""

    htype: str | list[str]
    type: str = ""
    shape: list[Int64] = []
    frame: Int64 | None = None
    source: str = ""
    kind: str | None = None
    encoding: str | None = None
    compression: Any = None
    info: dict[str, Any] | None = None
    link: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What the sender says about a frame; NaN where it does not."""

    time_s: float = NAN
    focus_um: float = NAN
    focus_commanded_um: float = NAN
    flow_ul_s: float = NAN
    exposure_ms: float = NAN
    pixel_size_um: float = NAN


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """A valid header of an image (H, W) or volume (Z, H, W).

    `number` is None if the sender does not number its frames. `slices` is what is said of those of a volume.
    """

    number: int | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    source: str
    sender: str
    said: Said
    ignored: tuple[str, ...] = ()
    """Fields of `info` that cannot be used."""
    slices: SaidSlices = NOTHING

    @property
    def depth(self) -> int:
        """Slices of a volume; 1 for an image."""
        return self.shape[0] if len(self.shape) == 3 else 1

    @property
    def in_words(self) -> str:
        """Size and type of the pixels."""
        return f"{' x '.join(map(str, self.shape))} {self.dtype.name}"

    @property
    def nbytes(self) -> int:
        """Length of the buffer that belongs to it, bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class EndHeader:
    """The marker that no frame follows; `number` is that of the last frame, None if it is not said."""

    number: int | None
    source: str


@dataclass(frozen=True, slots=True)
class OtherHeader:
    """A valid message of another kind, such as detections or `start`."""

    kind: str


_decoder = msgspec.json.Decoder(_Fields)


def read_header(data: bytes | memoryview) -> ImageHeader | EndHeader | OtherHeader:
    """Parse and check the first part of a message. Raises `WireError`."""
    if len(data) > MAX_HEADER_BYTES:
        raise WireError(f"a header of {len(data)} bytes, the limit is {MAX_HEADER_BYTES}")
    try:
        fields = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"not a header of array-1.0: {one_line(str(error), NAME_LENGTH)}") from error
    names = [fields.htype] if isinstance(fields.htype, str) else fields.htype
    if HTYPE not in names:
        raise WireError(f"htype {one_line(str(names), NAME_LENGTH)}, but frames are {HTYPE}")
    kind = fields.kind if fields.kind is not None else "end" if fields.shape == [0] else "frame"
    source = one_line(fields.source, NAME_LENGTH)
    if kind == "end":
        return EndHeader(_number(fields), source)
    if kind != "frame":
        return OtherHeader(one_line(kind, NAME_LENGTH))
    said, ignored = _said(fields.info)
    shape = _shape(fields.shape)
    slices = slices_said(fields.info) if len(shape) == 3 else NOTHING
    return ImageHeader(
        _number(fields), shape, _dtype(fields), source, _sender(fields.link), said, ignored, slices
    )


def image_of(header: ImageHeader, payload: memoryview) -> ImageArray:
    """The image (H, W), or volume (Z, H, W), in native byte order, a read-only view where that needs no copy.

    Raises `WireError` if the length of the buffer does not fit.
    """
    if payload.nbytes != header.nbytes:
        raise WireError(f"a buffer of {payload.nbytes} bytes, but {header.in_words} needs {header.nbytes}")
    image: npt.NDArray[Any] = np.frombuffer(payload, header.dtype).reshape(header.shape)
    if not header.dtype.isnative:
        image = image.astype(header.dtype.newbyteorder("="))
    elif not image.flags.aligned:
        image = image.copy()
    image.flags.writeable = False
    return image


def _dtype(fields: _Fields) -> np.dtype[Any]:
    if fields.type not in TYPES:
        raise WireError(f"pixels of type {one_line(fields.type, NAME_LENGTH)!r}; send uint8 or uint16")
    if fields.encoding not in {None, *ORDERS}:
        raise WireError(f"encoding {one_line(str(fields.encoding), NAME_LENGTH)!r}; send little or big")
    if fields.compression not in (None, "", "none", False):
        raise WireError(f"compression {one_line(str(fields.compression), NAME_LENGTH)!r}; send raw pixels")
    return np.dtype(ORDERS[fields.encoding or "little"] + TYPES[fields.type])


def _shape(shape: list[int]) -> tuple[int, ...]:
    if len(shape) not in {2, 3}:
        shown = shape if len(shape) <= MOST_AXES else f"of {len(shape)} axes"
        raise WireError(
            f"shape {shown}; send images of the shape [height, width] or volumes of [slices, height, width]"
        )
    if len(shape) == 3:
        check_slices(shape)
    if min(shape) < 1 or math.prod(shape) > MOST_BYTES:
        raise WireError(f"shape {shape}; images and volumes have 1 to {MOST_BYTES} pixels")
    return tuple(shape)


def _number(fields: _Fields) -> int | None:
    number = fields.frame
    if number is None and fields.info is not None:
        camera = fields.info.get("camera_frame")
        number = camera if isinstance(camera, int) and not isinstance(camera, bool) and camera >= 0 else None
    if number is not None and not 0 <= number <= LARGEST_NUMBER:
        raise WireError(f"frame number {number}; frames count up from 0")
    return number


def _sender(link: dict[str, Any] | None) -> str:
    sender = link.get("sender") if link is not None else None
    return one_line(sender, NAME_LENGTH) if isinstance(sender, str) else ""


def _said(info: dict[str, Any] | None) -> tuple[Said, tuple[str, ...]]:
    values: dict[str, float] = {}
    ignored = []
    for name in Said.__dataclass_fields__:
        value = None if info is None else info.get(name)
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) < LARGEST_NUMBER or (name == "pixel_size_um" and not value > 0):
            ignored.append(name)
        else:
            values[name] = float(value)
    return Said(**values), tuple(ignored)
