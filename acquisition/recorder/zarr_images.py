"""Images as OME-Zarr 0.5, sharded: one image a chunk, many images a file, readable while it grows.

Each shard is a file that begins with its index: for each image its offset and length, 16 bytes. An image is
appended, then its entry is filled in; a commit replaces the array's `zarr.json`, which says how many images there
are. So a reader never meets an image that is not there in full, and a program that is killed leaves a valid file.
The index has no checksum, which would have to change together with each entry (the standard leaves that choice).
"""

from __future__ import annotations

import math
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from acquisition.recorder.compression_choice import CompressionChoice
from acquisition.recorder.files import GrowingFile, replace_file
from acquisition.recorder.image_writer import ImageFacts
from acquisition.recorder.packing import MOST_BYTES, Packed, Packer, whole_bytes
from stream.errors import OutputError
from stream.messages import FrameInfo, ImageArray

LEVEL = "0"
SHARD_BYTES = 256_000_000
"""Images of a shard, bytes: 69 full frames (1440 x 2560), a file a second at 60 frames/s. Smaller shards make many
files (an hour then has thousands); a reader that loads whole shards needs memory for larger ones."""
MOST_IN_SHARD = 4096  # images: an index of 64 KB, which a reader reads for each image
WORDS = {
    Packed.NONE: "not compressed",
    Packed.LZ4: "compressed with LZ4",
    Packed.ZSTD: "compressed with zstd",
}
ENTRY = struct.Struct("<QQ")
EMPTY = b"\xff" * ENTRY.size


class ZarrImages:
    """An OME-Zarr under way, as `image_writer.ImageWriter`."""

    def __init__(
        self,
        path: Path,
        facts: ImageFacts,
        choice: CompressionChoice | None,
        *,
        attributes: dict[str, Any],
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """`choice` None: no compression. `attributes` go into the group. Raises `OutputError`."""
        self._path, self._facts = path, facts
        self._choice = choice if facts.nbytes <= MOST_BYTES else None
        self._packer = None if self._choice is None else Packer(facts.nbytes)
        self._per_shard = max(1, min(MOST_IN_SHARD, shard_bytes // facts.nbytes))
        self._file = GrowingFile(facts.nbytes)
        self._shard = -1
        self._end = 0
        self._next = self._images = 0
        self._stored_bytes = 0
        try:
            if overwrite and path.is_dir() and (path / "zarr.json").exists():
                shutil.rmtree(path)
            path.mkdir()
            (path / LEVEL).mkdir()
            self._write_shape()
            replace_file(path / "zarr.json", _json(group_metadata(facts, attributes)))
        except FileExistsError as error:
            raise OutputError(f"{path} exists; choose another name or pass --overwrite") from error
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error

    @property
    def images(self) -> int:
        """Images committed."""
        return self._images

    @property
    def stored_bytes(self) -> int:
        """Bytes of all images appended, as stored."""
        return self._stored_bytes

    @property
    def how(self) -> str:
        """How many images are stored in which way."""
        if self._choice is None:
            return "not compressed"
        return ", ".join(f"{count} {WORDS[how]}" for how, count in self._choice.counts.items() if count)

    def append(self, image: ImageArray, info: FrameInfo, hurried: bool = False) -> None:
        """Write an image behind the last one, and its entry in the index. Raises `OSError`."""
        del info
        shard, place = divmod(self._next, self._per_shard)
        if shard != self._shard:
            self._open_shard(shard, goes_on=place > 0)
        parts = self._pack(image, hurried)
        length = sum(map(len, parts))
        began_s = time.perf_counter()
        self._file.write_block(parts, self._end)
        if self._choice is not None:
            self._choice.wrote(min(1.0, length / image.nbytes), time.perf_counter() - began_s)
        self._file.write([ENTRY.pack(self._end, length)], place * ENTRY.size)
        self._end = self._file.aligned(self._end + length)
        self._stored_bytes += length
        self._next += 1

    def _pack(self, image: ImageArray, hurried: bool) -> list[bytes | memoryview]:
        if self._choice is None or self._packer is None:
            return [whole_bytes(image)]
        how = self._choice.next(hurried)
        began_s = time.thread_time()
        parts = self._packer.pack(image, how)
        self._choice.took(how if len(parts) == 1 else Packed.NONE, time.thread_time() - began_s)
        return parts

    def _open_shard(self, number: int, *, goes_on: bool) -> None:
        """Begin a shard, or go on with one that was left and has committed images (after a rollback)."""
        path = self._path.joinpath(LEVEL, "c", str(number), *["0"] * len(self._facts.shape))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._shard = -1  # until all of this has succeeded
        self._file.open(path, goes_on=goes_on)
        if not goes_on:
            self._file.write([EMPTY * self._per_shard], 0)
        self._end = self._file.aligned(self._file.length)
        self._shard = number

    def commit(self) -> None:
        """Make all appended images visible: the array grows. Raises `OSError`."""
        if self._next > self._images:
            self._write_shape()
            self._images = self._next

    def _write_shape(self) -> None:
        metadata = array_metadata(self._facts, self._next, self._per_shard, self._packer is not None)
        replace_file(self._path / LEVEL / "zarr.json", _json(metadata))

    def rollback(self) -> None:
        """Forget the images appended since the last commit; their room in the file stays unused."""
        self._next = self._images

    def sync(self) -> None:
        """Wait until what was written is on the disk. Raises `OSError`. May be called from another thread."""
        self._file.sync()

    def finish(self) -> None:
        """Close the file; its metadata are complete since the last commit. Raises `OSError`."""
        self.commit()
        self._file.sync()
        self.close()

    def close(self) -> None:
        """Close the file as it is. Idempotent."""
        self._file.close()


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)


def _axes(facts: ImageFacts) -> str:
    return "tzyx" if len(facts.shape) == 3 else "tyx"


def array_metadata(facts: ImageFacts, images: int, per_shard: int, packed: bool) -> dict[str, Any]:
    """`zarr.json` of the array of all images (T, H, W) or (T, Z, H, W)."""
    dtype = np.dtype(facts.dtype)
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inner: list[dict[str, Any]] = [little if dtype.itemsize > 1 else {"name": "bytes"}]
    if packed:
        blosc = {
            "cname": "zstd",
            "clevel": 1,
            "shuffle": "bitshuffle",
            "typesize": dtype.itemsize,
            "blocksize": 0,
        }
        inner.append({"name": "blosc", "configuration": blosc})
    sharding = {
        "chunk_shape": [1, *facts.shape],
        "codecs": inner,
        "index_codecs": [little],
        "index_location": "start",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [images, *facts.shape],
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [per_shard, *facts.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(_axes(facts)),
        "attributes": {},
    }


def group_metadata(facts: ImageFacts, attributes: dict[str, Any]) -> dict[str, Any]:
    """`zarr.json` of the group: OME-Zarr 0.5, and `attributes` beside it.

    The scale of t is the nominal time between two frames, that of z the nominal distance of slices; what was
    measured is in the frame table. A scale that is not known is 1 without a unit.
    """
    rate_hz, pixel_um = facts.frame_rate_hz, facts.pixel_size_um
    interval_s = 1 / rate_hz if math.isfinite(rate_hz) and rate_hz > 0 else None
    axes: list[dict[str, str]] = [{"name": "t", "type": "time"} | ({"unit": "second"} if interval_s else {})]
    scale = [interval_s or 1.0]
    if len(facts.shape) == 3:
        is_known = facts.z_step_um > 0
        axes.append({"name": "z", "type": "space"} | ({"unit": "micrometer"} if is_known else {}))
        scale.append(facts.z_step_um if is_known else 1.0)
    for name in "yx":
        axes.append({"name": name, "type": "space", "unit": "micrometer"})
        scale.append(pixel_um)
    image = {
        "name": facts.name,
        "axes": axes,
        "datasets": [{"path": LEVEL, "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
    }
    ome = {"version": "0.5", "multiscales": [image]}
    return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome, **attributes}}
