"""Schema of a trajectory file: its columns with their units, and how attributes and events are stored.

    /tracks/rows   one row for each track and frame                     (compound, ROW)
    /tracks/more   what more is known of some of the rows               (compound, MORE)
    /tracks/properties       properties of particles beside place, brightness and class   (compound, PROPERTY)
    /tracks/property_names   their names                                                  (text)
    /slices        slices of volumes: height, time, whether missing     (compound, SLICE)
    /frames        one row for each frame, written after its rows       (compound, FRAME)
    /events        what happened, one JSON object a line                (UTF-8 bytes)

The root's attributes say where the data come from. `commit_mark` says which frames are committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.safe_text import storable
from tracking.trajectories.attribute_types import (
    Read,
    configuration,
    either,
    mapping,
    number,
    positive,
    sequence,
    text,
    whole,
)

SCHEMA = "liveptv-trajectories"
SCHEMA_VERSION = 2
"""2 since there are volumes (`/slices`); a program that knows only 1 then says that it is to be updated."""
LIBVER = ("v110", "v110")

ROWS = "tracks/rows"
MORE_ROWS = "tracks/more"
PROPERTIES = "tracks/properties"
PROPERTY_NAMES = "tracks/property_names"
SLICES = "slices"
FRAMES = "frames"
EVENTS = "events"

PIXEL_SIZE = "pixel_size"
"""The kind of the events that say that the size of a pixel has changed (another objective)."""

ROW_CHUNK = 4096
FRAME_CHUNK = 1024
SLICE_CHUNK = 1024
EVENT_CHUNK = 8192
"""Rows, frames, slices and bytes in a chunk while the file is written: 330, 130, 17 and 8 kB. A dataset takes whole
chunks of the disk, and HDF5 writes the last one again with each commit; much smaller ones make the index of chunks
large. Compression chooses its own (`compression.PACKED_CHUNK`)."""

AXES = (
    "x, y from the centre of the image's first pixel along columns and rows; z = height - focus position "
    "along the focus drive's axis, 0 midway between the focal lines; absolute height = refraction_factor * "
    "(focus_um + z_um), focus_um in /frames"
)

Attribute = str | int | float | bool | npt.NDArray[Any]
RecordArray = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """A column as it is stored: name, dtype, unit and meaning."""

    name: str
    dtype: str
    unit: str
    meaning: str


ROW_COLUMNS = (
    ColumnSpec("track", "<u4", "1", "number of the trajectory, from 0 in order of birth"),
    ColumnSpec("frame", "<u4", "1", "sequence number of the frame, from 0"),
    ColumnSpec("x_um", "<f8", "um", "position as measured (predicted rows: where it should be)"),
    ColumnSpec("y_um", "<f8", "um", "position as measured"),
    ColumnSpec("z_um", "<f8", "um", "height minus focus position; NaN in 2D"),
    ColumnSpec("sigma_x_um", "<f4", "um", "standard error of x_um"),
    ColumnSpec("sigma_y_um", "<f4", "um", "standard error of y_um"),
    ColumnSpec("sigma_z_um", "<f4", "um", "standard error of z_um"),
    ColumnSpec("vx_um_s", "<f4", "um/s", "velocity from the filter"),
    ColumnSpec("vy_um_s", "<f4", "um/s", "velocity from the filter"),
    ColumnSpec("vz_um_s", "<f4", "um/s", "velocity from the filter"),
    ColumnSpec("sigma_vx_um_s", "<f4", "um/s", "standard error of vx_um_s"),
    ColumnSpec("sigma_vy_um_s", "<f4", "um/s", "standard error of vy_um_s"),
    ColumnSpec("sigma_vz_um_s", "<f4", "um/s", "standard error of vz_um_s"),
    ColumnSpec("brightness", "<f4", "grey values", "contrast of the particle, positive for either polarity"),
    ColumnSpec("confidence", "<f4", "1", "0 to 1"),
    ColumnSpec("detection", "<i4", "1", "row among the frame's detections, -1 for predicted rows"),
    ColumnSpec(
        "flags",
        "|u1",
        "1",
        "sum of 1 predicted, 2 second detection, 4 tentative (not yet confirmed), 8 reduced (no time to fit it)",
    ),
)

MORE_COLUMNS = (
    ColumnSpec("row", "<u8", "1", "the row in /tracks/rows, in ascending order"),
    ColumnSpec("z_other_um", "<f8", "um", "depth on the other side of focus, height minus focus position"),
    ColumnSpec(
        "p_side", "<f4", "1", "probability that z_um is on the right side; NaN where there is no question"
    ),
    ColumnSpec(
        "revised",
        "<u2",
        "1",
        "frames before this one in whose rows of this track z_um and z_other_um are to be exchanged",
    ),
    ColumnSpec(
        "kind", "<i2", "1", "class of the particle, from 0, by all of its detections so far; -1: not known"
    ),
    ColumnSpec("p_kind", "<f4", "1", "probability of this class"),
    ColumnSpec(
        "z_detected_um", "<f8", "um", "depth that the detector had put first, of two; NaN where it had one"
    ),
    ColumnSpec("sigma_z_detected_um", "<f4", "um", "its standard error"),
    ColumnSpec("z_other_detected_um", "<f8", "um", "depth that the detector had put second"),
    ColumnSpec("p_other", "<f4", "1", "probability, by the detection alone, that the second one is true"),
    ColumnSpec("kind_detected", "<i2", "1", "class of the particle by this detection alone; -1: not known"),
    ColumnSpec("p_kind_detected", "<f4", "1", "probability of this class, by this detection alone"),
    ColumnSpec(
        "time_offset_s",
        "<f4",
        "s",
        "in a volume, time of the slices in which the particle is, minus time_s of its frame",
    ),
    ColumnSpec(
        "track_before",
        "<i8",
        "1",
        "number under which this track's row of the frame before is stored, where it is another; -1: the same",
    ),
)
NO_KIND = -1
NO_TRACK = -1

FRAME_COLUMNS = (
    ColumnSpec("frame", "<u4", "1", "sequence number of the frame, from 0"),
    ColumnSpec("camera_frame", "<i8", "1", "the camera's own image number"),
    ColumnSpec("time_s", "<f8", "s", "exposure time since the run began"),
    ColumnSpec("wall_s", "<f8", "s", "exposure time since 1970-01-01 UTC"),
    ColumnSpec("focus_um", "<f8", "um", "focus position read back; NaN without a focus drive"),
    ColumnSpec("flow_ul_s", "<f8", "uL/s", "set-point of the pump; NaN without a pump"),
    ColumnSpec("exposure_ms", "<f8", "ms", "exposure time"),
    ColumnSpec("first_row", "<u8", "1", "where the frame's rows begin in /tracks/rows"),
    ColumnSpec("rows", "<u4", "1", "how many rows the frame has"),
    ColumnSpec("commit", "<u4", "1", "number of the commit that wrote it, from 1; 0: never written"),
    ColumnSpec("age_ms", "<f8", "ms", "age of the result when it was tracked; NaN in a replay"),
    ColumnSpec("opened", "<u4", "1", "changes whenever the detector was opened anew during the run"),
    ColumnSpec("replaced", "|u1", "1", "1 where ONNX Runtime had replaced a back end that failed"),
    ColumnSpec("predicted_from", "<i8", "1", "frame whose predictions the detector began from; -1 none"),
    ColumnSpec(
        "fit",
        "|u1",
        "1",
        "0 without a limit, 1 as far as there was time, 2 no time, 3 still being compiled, 255 not known",
    ),
    ColumnSpec("fit_credit", "<f8", "1", "cost, in lone particles, up to which was fitted; inf: everything"),
    ColumnSpec("turns_from", "<i8", "1", "frame that says how long particles have waited; -1 none"),
    ColumnSpec("learnt_from", "<i8", "1", "last frame whose fits were known to this one; -1 none"),
    ColumnSpec("slices", "<u2", "1", "slices of the volume that have an image; 0: the frame is one image"),
    ColumnSpec("upwards", "|u1", "1", "1 where the focus rose while the volume was taken"),
    ColumnSpec("first_slice", "<u8", "1", "where the slices of the volume begin in /slices"),
    ColumnSpec("slice_rows", "<u2", "1", "how many rows it has there, missing slices included; 0: none"),
)
SLICE_COLUMNS = (
    ColumnSpec("z_um", "<f8", "um", "height above the first slice of the volume"),
    ColumnSpec("time_s", "<f8", "s", "time of the slice, minus time_s of the frame; NaN where not known"),
    ColumnSpec("missing", "|u1", "1", "1 where the slice has no image"),
)
PROPERTY_COLUMNS = (
    ColumnSpec("row", "<u8", "1", "the row in /tracks/rows, in ascending order"),
    ColumnSpec(
        "property", "|u1", "1", "which property: the place of its name in /tracks/property_names, from 0"
    ),
    ColumnSpec(
        "value",
        "<f4",
        "in the name",
        "mean over the track's detections so far; of an angle, this detection's",
    ),
    ColumnSpec(
        "sigma", "<f4", "in the name", "standard error of the mean, with what is alike in all detections"
    ),
    ColumnSpec("detected", "<f4", "in the name", "by this row's own detection; NaN in predicted rows"),
    ColumnSpec("sigma_detected", "<f4", "in the name", "its standard error, as the detector states it"),
)
NO_DECISIONS = 255
"""In the column `fit`: what the detector decided about the frame is not known."""


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """How to read an attribute of the root.

    Without a `needed` one the rows cannot be understood; an `always` one is in every file of liveptv.
    """

    read: Read
    needed: bool = False
    always: bool = False


ATTRIBUTES = {
    "schema": AttributeSpec(text, needed=True, always=True),
    "schema_version": AttributeSpec(whole, needed=True, always=True),
    "run_id": AttributeSpec(text, needed=True, always=True),
    "pixel_size_um": AttributeSpec(positive, needed=True),
    "refraction_factor": AttributeSpec(positive, needed=True),
    "image_shape": AttributeSpec(sequence(whole, 2), needed=True),
    **dict.fromkeys(
        (
            "axes",
            "computer",
            "created",
            "end_reason",
            "image_dtype",
            "link_policy",
            "notes",
            "refraction",
            "session_end_reason",
            "source",
            "user",
        ),
        AttributeSpec(text),
    ),
    "frame_rate_hz": AttributeSpec(number),
    "result_age": AttributeSpec(mapping(number)),
    "self_check": AttributeSpec(mapping(number)),
    "age_limit_ms": AttributeSpec(number),
    "configuration": AttributeSpec(configuration),
    "statistics": AttributeSpec(mapping(number)),
    "accounts": AttributeSpec(mapping(mapping(either(number, mapping(number))))),
    "account": AttributeSpec(
        mapping(exposed=whole, in_file=whole, lost=mapping(whole), not_known=sequence(text))
    ),
    "failures": AttributeSpec(sequence(text)),
    "joined": AttributeSpec(sequence(mapping())),
    **dict.fromkeys(
        (
            "begun_in",
            "code",
            "engine",
            "imported",
            "inputs",
            "learnt",
            "model",
            "recalibration",
            "recording",
            "recovered",
            "replay_of",
            "retracked",
            "versions",
            "volume",
            "writer",
        ),
        AttributeSpec(mapping()),
    ),
}
"""The attributes that this program writes and reads. Others are the user's and are not checked."""


def _dtype(columns: tuple[ColumnSpec, ...]) -> np.dtype[np.void]:
    return np.dtype([(column.name, column.dtype) for column in columns])


ROW = _dtype(ROW_COLUMNS)
MORE = _dtype(MORE_COLUMNS)
MORE_BEFORE_DETECTED = _dtype(MORE_COLUMNS[:6])
"""Of files that were written before they kept what single detections said."""
MORE_BEFORE_VOLUMES = _dtype(MORE_COLUMNS[:12])
"""Of files that were written before there were volumes."""
MORE_BEFORE_RELINKING = _dtype(MORE_COLUMNS[:13])
"""Of files that were written before links were decided anew."""
MORE_TYPES = (MORE, MORE_BEFORE_RELINKING, MORE_BEFORE_VOLUMES, MORE_BEFORE_DETECTED)
SLICE = _dtype(SLICE_COLUMNS)
PROPERTY = _dtype(PROPERTY_COLUMNS)
PROPERTY_NAME = np.dtype("S40")
FRAME = _dtype(FRAME_COLUMNS)
FRAME_BEFORE_SLICES = _dtype(FRAME_COLUMNS[:20])
"""Of files that were written before they kept the slices of volumes."""
FRAME_BEFORE_VOLUMES = _dtype(FRAME_COLUMNS[:18])
"""Of files that were written before there were volumes."""
FRAME_BEFORE_DECISIONS = _dtype(FRAME_COLUMNS[:11])
"""Of files that were written before the detector's decisions were kept."""
FRAME_BEFORE_AGES = _dtype(FRAME_COLUMNS[:10])
"""Of files that were written before results had an age."""
FRAME_TYPES = (
    FRAME, FRAME_BEFORE_SLICES, FRAME_BEFORE_VOLUMES, FRAME_BEFORE_DECISIONS, FRAME_BEFORE_AGES,
)  # fmt: skip


def with_all_columns(frames: RecordArray) -> RecordArray:
    """Entries of `/frames` as FRAME; what an older file does not have is NaN or not known."""
    if frames.dtype not in FRAME_TYPES[1:]:
        return frames
    whole = np.zeros(len(frames), FRAME)
    whole["age_ms"], whole["fit"] = np.nan, NO_DECISIONS
    whole["fit_credit"] = np.nan
    for name in ("predicted_from", "turns_from", "learnt_from"):
        whole[name] = -1
    for name in frames.dtype.names or ():
        whole[name] = frames[name]
    return whole


def with_what_was_detected(more: RecordArray) -> RecordArray:
    """Entries of `/tracks/more` as MORE; what an older file does not have is not known."""
    if more.dtype not in MORE_TYPES[1:]:
        return more
    whole = np.zeros(len(more), MORE)
    for name in MORE.names or ():
        absent = {"kind_detected": NO_KIND, "track_before": NO_TRACK}.get(name, np.nan)
        whole[name] = more[name] if name in (more.dtype.names or ()) else absent
    return whole


def column_attributes(columns: tuple[ColumnSpec, ...]) -> dict[str, list[str]]:
    """Attributes that describe a compound dataset in the file itself: three lists of equal length."""
    return {
        "columns": [column.name for column in columns],
        "units": [column.unit for column in columns],
        "descriptions": [column.meaning for column in columns],
    }


def encode_attribute(value: object) -> Attribute:
    """Turn a value into an HDF5 attribute: text, numbers and numeric arrays as they are, the rest by `to_json`."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, bool | int | float | np.generic):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value
    return to_json(value)


def to_json(value: object) -> str:
    """JSON text; arrays become lists, NumPy's numbers Python's, and other types (paths, dates) their text."""
    return storable(json.dumps(value, default=_plain, ensure_ascii=False))


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def decode_attribute(value: object) -> Any:
    """Undo `encode_attribute`: JSON objects and lists become Python's."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value.item() if isinstance(value, np.generic) else value


_EVENT = mapping(wall_s=number, kind=text, text=text)


def encode_event(wall_s: float, kind: str, text: str, fields: Mapping[str, object]) -> bytes:
    """One line of `/events`."""
    event = {"wall_s": wall_s, "kind": kind, "text": text, **fields}
    return to_json(event).encode() + b"\n"


def complete_event_bytes(data: bytes) -> int:
    """How many bytes of `/events` are complete lines; an incomplete one may follow after a crash."""
    written, _, _ = data.partition(b"\0")
    return written.rfind(b"\n") + 1


def decode_events(data: bytes) -> list[dict[str, Any]]:
    """The complete lines of `/events`, in order. Raises ValueError or TypeError if one is not an event."""
    events = [json.loads(line) for line in data[: complete_event_bytes(data)].splitlines()]
    for event in events:
        _EVENT(event)
    return events


def file_statistics(frames: RecordArray) -> dict[str, float]:
    """Totals over committed frames: their number, the numbers missing in between, and the duration."""
    if len(frames) == 0:
        return {"frames": 0, "frames_missing": 0, "duration_s": 0.0}
    spanned = int(frames["frame"][-1]) - int(frames["frame"][0]) + 1
    return {
        "frames": len(frames),
        "frames_missing": spanned - len(frames),
        "duration_s": float(frames["time_s"][-1] - frames["time_s"][0]),
    }
