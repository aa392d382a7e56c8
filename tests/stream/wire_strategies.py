"""Any message that the program can make, for property tests of the wire."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream.messages import (
    Command,
    CommandKind,
    CommandReply,
    Detections,
    Frame,
    FrameInfo,
    Message,
    Predictions,
    StageState,
    Status,
    StreamEnd,
    StreamStart,
    Tracks,
)
from stream.particle_properties import MOST_PROPERTIES
from stream.particle_tables import RESERVED
from stream.volume_info import VolumeInfo

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBER = st.one_of(st.just(math.nan), FINITE)

INFO = st.builds(
    FrameInfo,
    run_id=TEXT,
    frame=COUNT,
    camera_frame=INT64,
    time_s=NUMBER,
    monotonic_ns=INT64,
    wall_s=NUMBER,
    camera_time_s=NUMBER,
    focus_um=NUMBER,
    focus_commanded_um=NUMBER,
    flow_ul_s=NUMBER,
    exposure_ms=NUMBER,
    pixel_size_um=NUMBER,
)


@st.composite
def volume_infos(draw: st.DrawFn, slices: int | None = None) -> VolumeInfo:
    count = draw(st.integers(1, 5)) if slices is None else slices
    rising = sorted(draw(st.sets(st.floats(1e-3, 1e6), min_size=count - 1, max_size=count - 1)))
    times = draw(st.one_of(st.just(()), st.tuples(*[FINITE] * count)))
    missing = sorted(draw(st.sets(st.integers(0, count - 1))))
    return VolumeInfo((0.0, *rising), times, tuple(missing), draw(st.booleans()))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    image = draw(IMAGES)
    info = draw(INFO)
    if image.ndim == 3:
        info = replace(info, volume=draw(st.one_of(st.none(), volume_infos(image.shape[0]))))
    return Frame(info, image)


IMAGES = hnp.arrays(
    st.sampled_from([np.uint8, np.uint16, np.dtype(">u2")]), hnp.array_shapes(min_dims=2, max_dims=3)
)


PROPERTY_NAMES = st.lists(
    st.from_regex(r"\A[a-z][a-z0-9_]{0,39}\Z").filter(
        lambda name: name not in RESERVED and not name.startswith(("sigma_", "detected_"))
    ),
    max_size=MOST_PROPERTIES,
    unique=True,
)


@st.composite
def tables(
    draw: st.DrawFn, kind: type[Detections] | type[Tracks] | type[Predictions]
) -> Detections | Tracks | Predictions:
    names = draw(PROPERTY_NAMES) if kind.PREFIXES else []
    rows = len(kind.COLUMNS) + 2 * len(names) * len(kind.PREFIXES)
    info = replace(draw(INFO), volume=draw(st.one_of(st.none(), volume_infos())))
    return kind.with_rows(info, draw(hnp.arrays(np.float64, (rows, draw(st.integers(0, 6))))), names)


MESSAGES: st.SearchStrategy[Message] = st.one_of(
    frames(),
    tables(Detections),
    tables(Tracks),
    tables(Predictions),
    st.builds(
        Command,
        st.sampled_from(CommandKind),
        st.one_of(st.none(), FINITE, TEXT),
        device=TEXT,
        property=TEXT,
        decided_on_frame=INT64,
        sender=TEXT,
        command_id=TEXT,
        at_time_s=st.one_of(st.just(math.nan), FINITE),
    ),
    st.builds(CommandReply, TEXT, st.booleans(), INT64, TEXT, INT64, INT64),
    st.builds(
        Status,
        TEXT,
        TEXT,
        st.sampled_from(StageState),
        st.dictionaries(TEXT, INT64, max_size=3),
        st.dictionaries(TEXT, NUMBER, max_size=3),
        TEXT,
        INT64,
    ),
    st.builds(StreamStart, TEXT, TEXT),
    st.builds(StreamEnd, TEXT, TEXT, COUNT, COUNT, TEXT),
)


def same(a: Any, b: Any) -> bool:
    """Whether two messages, or parts of them, are equal, NaN being equal to NaN."""
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype == np.float64)
    if isinstance(a, float):
        return bool(a == b or (math.isnan(a) and math.isnan(b)))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return type(a) is type(b) and bool(a == b)


def a_frame(number: int = 3, shape: tuple[int, ...] = (4, 6)) -> Frame:
    info = FrameInfo("run", number, number, 0.01 * number, number, 0.0)
    return Frame(info, np.arange(math.prod(shape), dtype=np.uint16).reshape(shape))


def some_detections(number: int = 3, count: int = 5) -> Detections:
    info = FrameInfo("run", number, number, 0.01 * number, number, 0.0)
    return Detections.from_columns(info, x_um=np.arange(count), y_um=np.ones(count))
