"""Bounded reading of model files: claimed sizes are checked before memory is allocated.

All functions raise `ValueError`, with the size and the limit, for anything larger than a model can be.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

MOST_MODEL_BYTES = 1 << 30
"""Bytes of a model file. The shipped one has 2 MB; a network a hundred times as large still fits."""
MOST_TEXT_BYTES = 1 << 20
"""Bytes of a model's metadata, as JSON; a few kB are typical."""
MOST_IMAGE_BYTES = 64 << 20
"""Bytes of the PSF model in a model file: 1.2 MB are typical."""
MOST_WEIGHTS_BYTES = 1 << 28
"""Bytes of a network's weights, unpacked: the largest network of this program has 10 MB."""

Arrays = dict[str, npt.NDArray[np.generic]]


def refuse_beyond(size: float, most: int, what: str) -> None:
    """Raise `ValueError` where `what` has more bytes than `most`."""
    if size > most:
        raise ValueError(f"{what} has {size / 1e6:.0f} MB, at most {most / 1e6:.0f} MB are read")


def read_file(path: Path, most: int) -> bytes:
    """The content of a file. Raises `OSError` where it cannot be read."""
    refuse_beyond(path.stat().st_size, most, path.name)
    return path.read_bytes()


def inflate(data: bytes, most: int, what: str) -> bytes:
    """Decompress zlib data. Raises `zlib.error` for anything else."""
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(data, most)
    if unpacker.unconsumed_tail:
        raise ValueError(f"{what} unpacks to more than the {most / 1e6:.0f} MB that are read")
    if not unpacker.eof:
        raise ValueError(f"{what} is cut off")
    return content


def read_member(file: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A member of an archive. Raises `KeyError` where there is none, and what `zipfile` raises.

    Never more than a member claims is unpacked.
    """
    refuse_beyond(file.getinfo(name).file_size, most, name)
    return file.read(name)


def read_arrays(content: bytes, most: int) -> Arrays:
    """The arrays of a `.npz` file, whose headers have to agree with their sizes."""
    found: Arrays = {}
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        refuse_beyond(sum(member.file_size for member in file.infolist()), most, "an archive of weights")
        for member in file.infolist():
            stream = io.BytesIO(file.read(member))
            _check_array(stream, member)
            found[member.filename.removesuffix(".npy")] = np.lib.format.read_array(stream, allow_pickle=False)
    return found


def _check_array(stream: io.BytesIO, member: zipfile.ZipInfo) -> None:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{member.filename} claims the shape {shape} but has {member.file_size} bytes")
    stream.seek(0)


def refuse_long_text(metadata: Mapping[str, str], key: str, most: int = MOST_TEXT_BYTES) -> None:
    """Raise `ValueError` where a text of a model's metadata is longer than it can be."""
    refuse_beyond(len(metadata.get(key, "")), most, key)
