"""Stores one camera image of a run with its detections in the trajectory file, and reads it for the report.

/snapshot/image        (H, W) uint8 or uint16; attribute `frame`
/snapshot/detections   (columns, N) float64; attribute `columns` names the rows, the first 8 or more of `Detections`
/snapshot/xz, yz       of a volume, whose `image` is the maximum projection along z: those along y (R, W) and x
                       (H, R), of R rows from low to high z; `xz` has the edges of the stack, um above slice 0, as
                       its attribute `z_um`
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from stream.errors import OutputError, SourceError
from stream.hdf5_reading import attribute, dataset, open_hdf5
from stream.messages import FLAGS, Detections, Frame, ImageArray
from tracking.trajectories.annotation import adding_to

GROUP = "snapshot"


@dataclass(frozen=True, slots=True, eq=False)
class SideViews:
    """A volume seen along y, `xz` (R, W), and along x, `yz` (H, R); `z_um` are the edges of its R rows together."""

    xz: ImageArray
    yz: ImageArray
    z_um: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """An image (H, W) and its detections by column, (N,) each; of a volume also its views from two sides."""

    frame: int
    image: ImageArray
    detections: dict[str, npt.NDArray[np.float64]]
    sides: SideViews | None = None


def store_snapshot(path: Path, frame: Frame, detections: Detections, sides: SideViews | None = None) -> None:
    """Store a frame (H, W) and its detections in a finished file, in place of an earlier one.

    Raises `OutputError` if there is no room or the file cannot be opened for writing; it is unchanged then.
    """
    try:
        with adding_to(path, frame.image.nbytes + frame.image.nbytes // 64 + detections.table.nbytes) as file:
            file.pop(GROUP, None)
            image = file.create_dataset(f"{GROUP}/image", data=frame.image, compression="gzip", chunks=True)
            image.attrs["frame"] = frame.info.frame
            table = file.create_dataset(f"{GROUP}/detections", data=detections.table)
            table.attrs["columns"] = list(Detections.COLUMNS)
            if sides is not None:
                xz = file.create_dataset(f"{GROUP}/xz", data=sides.xz, compression="gzip")
                xz.attrs["z_um"] = sides.z_um
                file.create_dataset(f"{GROUP}/yz", data=sides.yz, compression="gzip")
    except (OSError, RuntimeError, ValueError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else error
        raise OutputError(f"cannot store the image in {path}: {reason}") from error


def read_snapshot(path: Path) -> Snapshot | None:
    """The image in a finished file, None if it has none. Raises `SourceError` if it cannot be read."""
    try:
        with open_hdf5(path) as file:
            return snapshot_in(file) if GROUP in file else None
    except SourceError as error:
        raise SourceError(f"the image in {path} cannot be read: {error}") from error


def snapshot_in(file: h5py.File) -> Snapshot:
    """The image in an open file. If it is damaged, HDF5's own errors are raised."""
    image = dataset(file, f"{GROUP}/image", ndim=2)
    table = dataset(file, f"{GROUP}/detections", ndim=2)
    names = attribute(table, "columns")
    columns = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    frame = attribute(image, "frame", int)
    detections = dict(zip(columns, table[:], strict=True))
    if (
        frame is None
        or image.size == 0
        or not set(Detections.COLUMNS) - {FLAGS, *Detections.MORE} <= set(detections)
    ):
        raise SourceError(f"the image of frame {frame} is not complete")
    return Snapshot(int(frame), image[:], detections, _sides_in(file))


def _sides_in(file: h5py.File) -> SideViews | None:
    if f"{GROUP}/xz" not in file:
        return None
    xz, yz = (dataset(file, f"{GROUP}/{name}", ndim=2) for name in ("xz", "yz"))
    edges_um = attribute(xz, "z_um")
    is_span = isinstance(edges_um, np.ndarray) and edges_um.size == 2 and edges_um.dtype.kind == "f"
    if not is_span or not edges_um[0] < edges_um[1] or 0 in (*xz.shape, *yz.shape):
        raise SourceError("the heights of its volume cannot be")
    return SideViews(xz[:], yz[:], (float(edges_um[0]), float(edges_um[1])))
