"""Images as OME-TIFF (BigTIFF), readable while it grows.

A page is appended with its directory behind its pixels; it becomes part of the file when a commit writes its place
into the directory before it, 8 bytes. So a program that is killed leaves a valid file. The OME-XML of the first
page has the number of images in digits of a fixed width, which a commit rewrites; at the end an OME-XML with the
time of each image takes its place.
"""

from __future__ import annotations

import math
import struct
from array import array
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np

from acquisition.recorder.files import GrowingFile
from acquisition.recorder.image_writer import ImageFacts
from acquisition.recorder.ome_xml import SIZE_DIGITS, OmeXml
from acquisition.recorder.packing import whole_bytes
from stream.errors import OutputError
from stream.messages import FrameInfo, ImageArray

HEADER = struct.Struct("<2sHHHQ")
FIRST_IFD_AT = 8
ENTRY = struct.Struct("<HHQQ")
PLACE = struct.Struct("<Q")
SHORT, LONG, ASCII, LONG8 = 3, 4, 2, 16
UNCOMPRESSED, ZSTD = 1, 50000
DESCRIPTION = 270
ZSTD_LEVEL = 1  # higher levels take several times as long for some per cent


class TiffImages:
    """An OME-TIFF under way, as `image_writer.ImageWriter`."""

    def __init__(
        self, path: Path, facts: ImageFacts, compression: Literal["none", "zstd"], *, overwrite: bool = False
    ) -> None:
        """Create the file, without images. Raises `OutputError`."""
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists; choose another name or pass --overwrite")
        self._facts = facts
        self._zstd = compression == "zstd"
        self._planes = facts.shape[0] if len(facts.shape) == 3 else 1
        self._xml = OmeXml(facts)
        self._file = GrowingFile(facts.nbytes)
        self._end = HEADER.size
        self._next = self._images = self._shown = 0
        self._stored_bytes = 0
        self._last_link = FIRST_IFD_AT  # where the place of the next directory goes
        self._committed_link, self._pending_ifd = FIRST_IFD_AT, 0
        self._description_at = self._digits_at = 0
        self._times, self._exposures, self._heights = array("d"), array("d"), array("d")
        try:
            self._file.open(path)
            self._file.write([HEADER.pack(b"II", 43, 8, 0, 0)], 0)
        except OSError as error:
            self._file.close()
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
        """How the images are stored."""
        return "compressed with zstd" if self._zstd else "not compressed"

    def append(self, image: ImageArray, info: FrameInfo, hurried: bool = False) -> None:
        """Write an image, a page for each plane, behind the last one. Raises `OSError`."""
        del hurried
        end, link, pending = self._end, self._last_link, self._pending_ifd
        try:
            for plane in image.reshape(-1, *image.shape[-2:]):
                self._append_page(plane)
        except OSError:
            self._end, self._last_link, self._pending_ifd = end, link, pending
            raise
        times_s, heights_um = slice_facts(info, self._planes)
        self._times.extend(times_s)
        self._heights.extend(heights_um)
        self._exposures.append(info.exposure_ms)
        self._next += 1

    def _append_page(self, plane: ImageArray) -> None:
        pixels: bytes | memoryview = whole_bytes(plane)
        if self._zstd:
            whole: Any = pixels  # any buffer is taken
            pixels = bytes(imagecodecs.zstd_encode(whole, level=ZSTD_LEVEL))
        start = self._file.aligned(self._end)
        is_first = self._next == 0 and self._last_link == FIRST_IFD_AT
        text = self._xml.while_growing() if is_first else b""
        at = start + len(pixels) + -len(pixels) % 8
        entries = self._entries(start, len(pixels), len(text))
        ifd_bytes = 8 + len(entries) * ENTRY.size + 8
        if text:
            entries = self._entries(start, len(pixels), len(text), at + ifd_bytes)
        ifd = PLACE.pack(len(entries)) + b"".join(ENTRY.pack(*entry) for entry in entries) + PLACE.pack(0)
        self._file.write_block([pixels, bytes(-len(pixels) % 8), ifd, text], start)
        if self._last_link == self._committed_link:
            self._pending_ifd = at
        else:
            self._file.write([PLACE.pack(at)], self._last_link)
        if text:
            tags = [entry[0] for entry in entries]
            self._description_at = at + 8 + tags.index(DESCRIPTION) * ENTRY.size
            self._digits_at = at + ifd_bytes + self._xml.digits_at
        self._last_link = at + ifd_bytes - 8
        self._end = at + ifd_bytes + len(text)
        self._stored_bytes += len(pixels)

    def _entries(
        self, pixels_at: int, nbytes: int, text_bytes: int, text_at: int = 0
    ) -> list[tuple[int, int, int, int]]:
        height, width = self._facts.shape[-2:]
        bits = 8 * np.dtype(self._facts.dtype).itemsize
        described = [(DESCRIPTION, ASCII, text_bytes, text_at)] if text_bytes else []
        return [
            (254, LONG, 1, 0),
            (256, LONG, 1, width),
            (257, LONG, 1, height),
            (258, SHORT, 1, bits),
            (259, SHORT, 1, ZSTD if self._zstd else UNCOMPRESSED),
            (262, SHORT, 1, 1),
            *described,
            (273, LONG8, 1, pixels_at),
            (277, SHORT, 1, 1),
            (278, LONG, 1, height),
            (279, LONG8, 1, nbytes),
            (339, SHORT, 1, 1),
        ]

    def commit(self) -> None:
        """Make all appended images visible: the chain of pages, then their number. Raises `OSError`."""
        if self._next > self._images:
            self._file.write([PLACE.pack(self._pending_ifd)], self._committed_link)
            self._committed_link = self._last_link
            self._images = self._next
        if self._images > self._shown:  # a program killed here leaves pages that are not counted
            self._file.write([b"%0*d" % (SIZE_DIGITS, self._images)], self._digits_at)
            self._shown = self._images

    def rollback(self) -> None:
        """Forget the images appended since the last commit; their room in the file stays unused."""
        self._next, self._last_link = self._images, self._committed_link
        pages = self._images * self._planes
        del self._times[pages:], self._heights[pages:], self._exposures[self._images :]

    def sync(self) -> None:
        """Wait until what was written is on the disk. Raises `OSError`. May be called from another thread."""
        self._file.sync()

    def finish(self) -> None:
        """Write the times of all images, and close. Raises `OSError`."""
        self.commit()
        if self._images:
            text = self._xml.complete(self._images, self._times, self._exposures, self._heights)
            self._file.write([text], self._end)
            place = struct.pack("<QQ", len(text), self._end)  # number of characters, and where they are
            self._file.write([place], self._description_at + 4)
        self._file.sync()
        self.close()

    def close(self) -> None:
        """Close the file as it is. Idempotent."""
        self._file.close()


def slice_facts(info: FrameInfo, slices: int) -> tuple[list[float], list[float]]:
    """Time, s, and height, um, of each slice of a volume; of an image its own time, and no height."""
    volume = info.volume
    if volume is None or volume.slices != slices:
        return [info.time_s] * slices, [math.nan] * slices
    times_s = [info.time_s + later_s for later_s in volume.time_s] or [info.time_s] * slices
    return times_s, [info.focus_um + z_um for z_um in volume.z_um]
