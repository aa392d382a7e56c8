"""Particles as messages: detections, tracks and predictions of one frame, each a structure of arrays.

One C-contiguous float64 array of shape (columns, N), whose rows are named by `COLUMNS` and reachable as properties,
is sent without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from stream.frames import NAN, FrameInfo
from stream.particle_properties import (
    NO_PROPERTIES,
    OF_DETECTION,
    Properties,
    check_names,
    property_columns,
)

FloatArray = npt.NDArray[np.float64]
FLAGS = "flags"
"""The column of whole numbers that say what is special about a row; always the last."""


class Column:
    """A named row of a particle table, read as an attribute: an array of shape (N,), float64."""

    index: int

    def __get__(self, table: ParticleTable, owner: type[ParticleTable]) -> FloatArray:
        row: FloatArray = table.table[self.index]
        return row


class ParticleTable:
    """What `Detections` and `Tracks` share: named rows of one array."""

    __slots__ = ()
    COLUMNS: ClassVar[tuple[str, ...]] = ()
    MORE: ClassVar[tuple[str, ...]] = ()
    """The columns that are NaN where nothing is known, and that tables and files have only where something is."""
    PREFIXES: ClassVar[tuple[str, ...]] = ()
    """What the columns of each of its tables of properties begin with."""
    info: FrameInfo
    table: FloatArray

    def __init_subclass__(cls) -> None:
        columns = {name: value for name, value in vars(cls).items() if isinstance(value, Column)}
        cls.COLUMNS = tuple(columns)
        for index, column in enumerate(columns.values()):
            column.index = index

    def __post_init__(self) -> None:
        if self.table.ndim != 2 or self.table.shape[0] != len(self.COLUMNS):
            raise ValueError(
                f"{type(self).__name__} needs a table of shape ({len(self.COLUMNS)}, N), "
                f"not {self.table.shape}"
            )
        tables = self.measured()
        for properties in tables:
            check_names(properties.names, RESERVED)
            if properties.names != tables[0].names:
                raise ValueError(f"{type(self).__name__} with properties of two sets of names")
            if properties.names and properties.values.shape[1] != len(self):
                raise ValueError(
                    f"properties of {properties.values.shape[1]} particles in {type(self).__name__} of {len(self)}"
                )

    def measured(self) -> tuple[Properties, ...]:
        """What is known beside the columns; for each of `PREFIXES` a table, all with the same names."""
        return ()

    def property_columns(self) -> dict[str, FloatArray]:
        """The further columns of the particles' properties, in order, each of shape (N,)."""
        found: dict[str, FloatArray] = {}
        for prefix, properties in zip(self.PREFIXES, self.measured(), strict=True):
            found |= properties.columns(prefix)
        return found

    def of(self, particles: Any) -> Self:
        """Some of the particles: those of an index array, a mask or a slice, with all that is known of them."""
        some = (properties.of(particles) for properties in self.measured())
        return type(self)(self.info, np.ascontiguousarray(self.table[:, particles]), *some)  # type: ignore[call-arg]

    @classmethod
    def with_rows(cls, info: FrameInfo, rows: FloatArray, names: Sequence[str]) -> Self:
        """Build a table from `COLUMNS` and the property columns of these names, one below the other.

        `rows` has the shape (columns, N) and is not copied. Raises `ValueError` if it does not fit.
        """
        fixed, each = len(cls.COLUMNS), len(names)
        if rows.ndim != 2 or rows.shape[0] != fixed + len(property_columns(names, cls.PREFIXES)):
            raise ValueError(f"{cls.__name__} with {each} properties cannot have the shape {rows.shape}")
        starts = range(fixed, len(rows), 2 * each) if each else ()
        tables = (
            Properties(tuple(names), rows[at : at + each], rows[at + each : at + 2 * each]) for at in starts
        )
        return cls(info, rows[:fixed], *tables)  # type: ignore[call-arg]

    def __len__(self) -> int:
        return int(self.table.shape[1])

    @classmethod
    def from_columns(cls, info: FrameInfo, **columns: npt.ArrayLike) -> Self:
        """Build a table from named columns of length N or single numbers; those left out are NaN, `flags` 0."""
        unknown = set(columns) - set(cls.COLUMNS)
        if unknown:
            raise ValueError(f"{cls.__name__} has no column {sorted(unknown)}")
        sizes = [np.size(np.asarray(c)) for c in columns.values() if np.ndim(c) > 0]
        count = sizes[0] if sizes else min(1, len(columns))
        table = np.full((len(cls.COLUMNS), count), NAN)
        for index, name in enumerate(cls.COLUMNS):
            if name in columns:
                table[index] = columns[name]
            elif name == FLAGS:
                table[index] = 0.0
        return cls(info, table)  # type: ignore[call-arg]

    @classmethod
    def empty(cls, info: FrameInfo) -> Self:
        """Build a table without rows."""
        return cls(info, np.empty((len(cls.COLUMNS), 0)))  # type: ignore[call-arg]


class DetectionFlag(IntFlag):
    """What is special about a row of `Detections`."""

    NONE = 0
    REDUCED = 1
    AT_END = 2


@dataclass(frozen=True, slots=True, eq=False)
class Detections(ParticleTable):
    """The particles found in one frame.

    x, y in um from the centre of the first pixel; z in um is the particle's height minus the focus position
    (NaN in 2D), in a volume the height above its first slice; `sigma_*_um` standard errors; `brightness` in grey
    values, positive for either polarity; `confidence` 0 to 1. `flags` are those of `DetectionFlag`: a row whose fit
    was left out for want of time is `REDUCED` and has the network's values and standard errors; a particle so near
    to the first or last slice of a volume that part of its image is missing is `AT_END`.

    What is not known is NaN: `z_other_um`, a second depth that explains the image nearly as well, and `p_other`,
    the probability that it is the true one; `chi_square` of the fit, reduced, in what noise alone gives; `kind`,
    the class of the particle (0, 1, ...), and `p_kind`, its probability; `time_offset_s`, in a volume, the time of
    the slices in which the particle is seen, minus the frame's `time_s`.

    `properties` are what the detector measures beyond that, with standard errors (radius, refractive index ...).
    """

    MORE: ClassVar[tuple[str, ...]] = (
        "z_other_um", "p_other", "chi_square", "kind", "p_kind", "time_offset_s",
    )  # fmt: skip
    PREFIXES: ClassVar[tuple[str, ...]] = ("",)
    info: FrameInfo
    table: FloatArray
    x_um = Column()
    y_um = Column()
    z_um = Column()
    sigma_x_um = Column()
    sigma_y_um = Column()
    sigma_z_um = Column()
    brightness = Column()
    confidence = Column()
    z_other_um = Column()
    p_other = Column()
    chi_square = Column()
    kind = Column()
    p_kind = Column()
    time_offset_s = Column()
    flags = Column()
    properties: Properties = NO_PROPERTIES

    def measured(self) -> tuple[Properties, ...]:
        """The properties that the detector measured."""
        return (self.properties,)


class TrackFlag(IntFlag):
    """What is special about a row of `Tracks`; `REDUCED` rows have a detection that is `DetectionFlag.REDUCED`."""

    NONE = 0
    PREDICTED = 1
    SECOND_DETECTION = 2
    TENTATIVE = 4
    REDUCED = 8


@dataclass(frozen=True, slots=True, eq=False)
class Tracks(ParticleTable):
    """The tracks that exist in one frame, one row each.

    Positions are as measured, not smoothed; a row without a detection holds the filter's prediction and is
    flagged `PREDICTED`. Velocities and their standard errors come from the filter, um/s. `age_frames` counts
    frames since the track's first detection; `detection` is the row in that frame's `Detections`, or -1.

    What is not known is NaN. `z_other_um` is the depth on the other side of focus, `p_side` the probability that
    `z_um` is on the right one. `revised` is the number of frames before this one whose rows of this track are on
    the wrong side, as is known now: there `z_um` and `z_other_um` are to be exchanged (0: none, NaN as well).
    `kind` is the class of the particle, from all of the track's detections, and `p_kind` its probability.
    `time_offset_s` is that of the row's detection.

    Where the row's detection has a second depth, `z_detected_um`, `sigma_z_detected_um`, `z_other_detected_um` and
    `p_other` are those of the detection; where it has a class, that is in `kind_detected` and `p_kind_detected`.

    `track_before` is the number under which this track's row of the frame before was sent, where that was another:
    the links of that frame were decided anew. All rows of that frame with such a number have changed at once, so
    that of two tracks which exchange theirs either says it (see `tracking.trajectories.relinking`).
    """

    MORE: ClassVar[tuple[str, ...]] = (
        "z_other_um", "p_side", "revised", "kind", "p_kind", "time_offset_s",
    )  # fmt: skip
    DETECTED: ClassVar[tuple[str, ...]] = (
        "z_detected_um", "sigma_z_detected_um", "z_other_detected_um", "p_other",
        "kind_detected", "p_kind_detected",
    )  # fmt: skip
    """What the row's own detection said, before the tracker decided; with the other columns it gives it back."""
    LINKED: ClassVar[tuple[str, ...]] = ("track_before",)
    UNFIT: ClassVar[int] = int(TrackFlag.PREDICTED | TrackFlag.TENTATIVE | TrackFlag.SECOND_DETECTION)
    """Flags with which a row says nothing of a particle by itself; a plain number, as enumerations are slow with
    arrays."""
    PREFIXES: ClassVar[tuple[str, ...]] = ("", OF_DETECTION)
    info: FrameInfo
    table: FloatArray
    track = Column()
    x_um = Column()
    y_um = Column()
    z_um = Column()
    sigma_x_um = Column()
    sigma_y_um = Column()
    sigma_z_um = Column()
    vx_um_s = Column()
    vy_um_s = Column()
    vz_um_s = Column()
    sigma_vx_um_s = Column()
    sigma_vy_um_s = Column()
    sigma_vz_um_s = Column()
    brightness = Column()
    confidence = Column()
    age_frames = Column()
    detection = Column()
    z_other_um = Column()
    p_side = Column()
    revised = Column()
    kind = Column()
    p_kind = Column()
    time_offset_s = Column()
    z_detected_um = Column()
    sigma_z_detected_um = Column()
    z_other_detected_um = Column()
    p_other = Column()
    kind_detected = Column()
    p_kind_detected = Column()
    track_before = Column()
    flags = Column()
    properties: Properties = NO_PROPERTIES
    detected: Properties = NO_PROPERTIES

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Rows (N,) that count in measurements: confirmed tracks, detected in this frame, no second detections."""
        fit: npt.NDArray[np.bool_] = (self.flags.astype(np.int64) & self.UNFIT) == 0
        return fit

    def measured(self) -> tuple[Properties, ...]:
        """The properties of the particles, and those that this frame's detections gave them."""
        return self.properties, self.detected


@dataclass(frozen=True, slots=True, eq=False)
class Predictions(ParticleTable):
    """What the tracker knows of its 3D tracks after a frame: a hint for the detector in a later frame.

    Tracks of two detections are flagged tentative until they are confirmed.

    `info` is the frame whose detections the tracker used last. Its `focus_um` is the focus that the tracker took
    for it (where the frame has no reading, the last one before, or 0), always finite. `height_um` is focus + z, so
    that a move of the focus is no motion. Positions are filtered, um; velocities in um/s. The state (p, v) of an
    axis has the covariance (pp, pv, vv), um^2, um^2/s and um^2/s^2; `q*_um2_s` is the variance of its random step
    per second. A time t later the position is p + v t with the variance pp + 2 t pv + t^2 vv + q t.

    `brightness`, grey values, is the mean of the last detections, `hits` the number of detections so far, `missed`
    the camera frames since the last one (0: detected in this frame). `kind` is the class of the particle, NaN where
    it is not known. `flags` are those of `TrackFlag`.
    """

    MORE: ClassVar[tuple[str, ...]] = ("kind",)
    info: FrameInfo
    table: FloatArray
    track = Column()
    x_um = Column()
    y_um = Column()
    height_um = Column()
    vx_um_s = Column()
    vy_um_s = Column()
    vz_um_s = Column()
    pp_x = Column()
    pp_y = Column()
    pp_z = Column()
    pv_x = Column()
    pv_y = Column()
    pv_z = Column()
    vv_x = Column()
    vv_y = Column()
    vv_z = Column()
    qx_um2_s = Column()
    qy_um2_s = Column()
    qz_um2_s = Column()
    brightness = Column()
    hits = Column()
    missed = Column()
    kind = Column()
    flags = Column()


RESERVED = frozenset({"frame", *Detections.COLUMNS, *Tracks.COLUMNS, *Predictions.COLUMNS}) | {
    "time_s", "camera_frame", "wall_s", "focus_um", "flow_ul_s", "exposure_ms", "row", "length", "first_frame",
    "last_frame",
}  # fmt: skip
"""Names of columns that a property cannot have."""
