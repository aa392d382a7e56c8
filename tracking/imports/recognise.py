"""Tells by its contents which program's file something is; the suffix does not count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import zarr

from stream.errors import SourceError
from stream.hdf5_reading import reading, schema_of
from tracking.imports.challenge import is_challenge
from tracking.imports.xml_reading import root_of
from tracking.imports.zarr_reading import is_zarr, open_group
from tracking.trajectories.hdf5_superblock import SIGNATURE
from tracking.trajectories.schema import SCHEMA
from tracking.trajectories.soundness import read_superblock

OURS, GEFF, FLOWTRACKS_H5, FLOWTRACKS_ZARR = "liveptv", "geff", "flowtracks.h5", "flowtracks.zarr"
TRACKMATE, TRACKMATE_TRACKS, VTP, TABLE = "trackmate", "trackmate tracks", "vtp", "table"
CHALLENGE = "challenge"
HEAD_BYTES = 65_536
ROOTS = {"TrackMate": TRACKMATE, "Tracks": TRACKMATE_TRACKS, "VTKFile": VTP}


@dataclass(frozen=True, slots=True)
class Recognised:
    """The kind of a file, one of the constants above; `inside` is the group in a folder."""

    kind: str
    inside: str = ""


def recognise(path: Path) -> Recognised:
    """What a file or folder is. Raises `SourceError` that says what is read if it is nothing of that."""
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    with reading(path), path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise SourceError(f"{path} is empty")
    if head.startswith(SIGNATURE):
        return _hdf5(path)
    if head.startswith(b"PAR1"):
        return Recognised(TABLE)
    text = _text(head)
    if text.startswith("<"):
        return _xml(path)
    if "\0" in text or path.suffix.lower() not in TEXT_TABLES:
        raise SourceError(f"{path} is not an HDF5 file, nor another one with trajectories: {READ}")
    return Recognised(TABLE)


TEXT_TABLES = (".csv", ".tsv", ".txt")
READ = "liveptv, GEFF, TrackMate, flowtracks, VTK PolyData (.vtp), the Particle Tracking Challenge or a table"


def _text(head: bytes) -> str:
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        if head.startswith(mark):
            return head[len(mark) :].decode(name, "replace").lstrip()
    return head.decode("latin-1").lstrip()


def _xml(path: Path) -> Recognised:
    root = root_of(path)
    if root not in ROOTS and is_challenge(path):
        return Recognised(CHALLENGE)
    if root not in ROOTS:
        raise SourceError(f"{path} is XML with <{root[:40]}>, not a file of trajectories: {READ}")
    return Recognised(ROOTS[root])


def _hdf5(path: Path) -> Recognised:
    try:
        block = read_superblock(path)
        if block is not None and block.flags:
            return Recognised(OURS)
        with h5py.File(path, "r", locking=False) as file:
            schema = schema_of(file)
            names = set(file)
            particles = file.get("particles")
            fields = set(particles.dtype.names or ()) if isinstance(particles, h5py.Dataset) else set()
    except (OSError, RuntimeError, KeyError, ValueError):
        return Recognised(OURS)  # still being written, left open or damaged: its reader says which
    if schema == SCHEMA:
        return Recognised(OURS)
    if {"trajid", "time", "pos"} <= fields:
        return Recognised(FLOWTRACKS_H5)
    if schema:
        raise SourceError(f"{path} is {schema}, not a file of trajectories")
    if {"frame", "x_um", "y_um"} <= names:
        return Recognised(TABLE)
    raise SourceError(f"{path} is HDF5, but not of liveptv or flowtracks; there are no trajectories in it")


def _folder(path: Path) -> Recognised:
    if not is_zarr(path):
        raise SourceError(
            f"{path} is a folder, but not a Zarr group; give a file, or a folder with GEFF or flowtracks"
        )
    with reading(path):
        group = open_group(path)
        if "geff" in group.attrs:
            return Recognised(GEFF)
        if "trajid" in group:
            return Recognised(FLOWTRACKS_ZARR)
        inner = group.get("trajectories")
        if isinstance(inner, zarr.Group) and "trajid" in inner:
            return Recognised(FLOWTRACKS_ZARR, "trajectories")
        graphs = [name for name, found in group.groups() if "geff" in found.attrs]
    if len(graphs) == 1:
        return Recognised(GEFF, graphs[0])
    if graphs:
        raise SourceError(f"{path} has several graphs ({', '.join(graphs)}); give one: {path / graphs[0]}")
    raise SourceError(f"{path} is a Zarr group without GEFF or flowtracks trajectories")
