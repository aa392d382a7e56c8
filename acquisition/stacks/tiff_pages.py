"""Reads pages of TIFF files, with few files open at a time and sizes checked before memory is allocated."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tifffile

from acquisition.stacks.claimed_size import check_size
from acquisition.stacks.plane_table import Place
from acquisition.stacks.tiff_series import Video
from stream.errors import SourceError

MICROMANAGER_TAG = 51123
MOST_OPEN = 16
"""Files of a set that are open at a time; a set may have one per plane, and systems limit open files."""


FORM_TAGS = frozenset((256, 257, 258, 259, 262, 277, 278, 284, 317, 322, 323, 339))
"""Width, height, bits, compression, meaning, samples, rows of a strip, planes, predictor, tiles, sample format."""


class CutShortError(Exception):
    """A page lies behind the end of its file."""

    def __init__(self, file: Path, text: str) -> None:
        super().__init__(text)
        self.file = file


class TiffMembers:
    """The files of a recording, opened when needed."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, tifffile.TiffFile] = OrderedDict()
        self._forms: dict[Path, list[bytes]] = {}
        self._last: tuple[Place, Any] | None = None

    def file(self, path: Path) -> tifffile.TiffFile:
        """An open file. Raises `SourceError` if it is not a TIFF."""
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        while len(self._open) >= MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        # other files of the set are found by us, not by tifffile
        file = self._open[path] = tifffile.TiffFile(path, _multifile=False)
        if not len(file.pages):
            raise SourceError(f"{path} contains no images")
        first = file.pages.first
        check_size(path, first.imagelength, first.imagewidth)
        return file

    def read(self, place: Place, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The pixels (H, W) of a plane; `shape` and `dtype` are used for plain pixels without a page.

        Raises `CutShortError` if the file ends before it.
        """
        if not place.data:
            return self._asarray(self.file(place.file), self.page(place))
        handle = self.file(place.file).filehandle
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if place.data + nbytes > handle.size:
            raise CutShortError(place.file, f"it ends at byte {handle.size} of {place.data + nbytes}")
        handle.seek(place.data)
        return np.frombuffer(handle.read(nbytes), dtype).reshape(shape)

    def facts(self, place: Place) -> dict[str, Any]:
        """The metadata of a plane."""
        if not place.data:
            return _tag(self.page(place))
        start, length = place.text
        handle = self.file(place.file).filehandle
        if length <= 0 or start + length > handle.size:
            return {}
        handle.seek(start)
        try:
            found = json.loads(handle.read(length))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def page(self, place: Place) -> Any:
        """The page of a plane. Raises `CutShortError` if the file ends before it."""
        if self._last is not None and self._last[0] == place:
            return self._last[1]
        file = self.file(place.file)
        if place.offset:
            if place.offset >= file.filehandle.size:
                raise CutShortError(place.file, f"it ends at byte {file.filehandle.size} of {place.offset}")
            file.filehandle.seek(place.offset)
            page = tifffile.TiffPage(file, index=0)
        else:
            try:
                page = self._page_like_the_first(place.file, file, place.ifd)
            except IndexError as error:
                raise CutShortError(place.file, f"it has no page {place.ifd}") from error
        self._last = place, page
        return page

    def _page_like_the_first(self, path: Path, file: tifffile.TiffFile, number: int) -> Any:
        """A page; if it has the format of the first one, only its location is read, which is much faster."""
        pages = file.pages
        pages.useframes = True
        pages.set_keyframe(0)
        try:
            frame = pages[number]
        except RuntimeError:
            # of another width or layout
            pages.useframes = False
            return pages[number]
        finally:
            pages.useframes = False
        if isinstance(frame, tifffile.TiffPage):
            return frame
        if path not in self._forms:
            self._forms[path] = _form(file, pages.first.offset)
        return frame if _form(file, frame.offset) == self._forms[path] else frame.aspage()

    def read_page(self, file: tifffile.TiffFile, video: Video, index: int) -> npt.NDArray[Any]:
        """The pixels (H, W) of a plane of a single file. Raises `CutShortError` if it ends before them."""
        if video.data is None:
            return self._asarray(file, video.pages[index], video.end)
        # ImageJ files over 4 GB, and other contiguous files: one page, then all images in a row
        dtype = np.dtype(video.dtype).newbyteorder(file.byteorder)
        shape = video.shape[-2:]
        nbytes = int(np.prod(shape)) * dtype.itemsize
        start = video.data + index * nbytes
        if start + nbytes > (video.end or file.filehandle.size):
            raise CutShortError(Path(file.filehandle.path), where_it_ends(file, video.end))
        file.filehandle.seek(start)
        return (
            np.frombuffer(file.filehandle.read(nbytes), dtype).reshape(shape).astype(dtype.newbyteorder("="))
        )

    def page_facts(self, file: tifffile.TiffFile, index: int) -> dict[str, Any]:
        """Micro-Manager's metadata of a page of a single file."""
        if index >= len(file.pages):
            return {}
        page = file.pages[index]
        return _tag(page if isinstance(page, tifffile.TiffPage) else page.aspage())

    def _asarray(self, file: tifffile.TiffFile, page: Any, end: int = 0) -> npt.NDArray[Any]:
        path, size = Path(file.filehandle.path), file.filehandle.size
        if len(page.dataoffsets) != len(page.databytecounts):
            raise CutShortError(path, "a page does not tell where its pixels are")
        ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if not ends or max(ends) > size:
            raise CutShortError(path, f"it ends at byte {size} of {max(ends, default=0)}")
        if end and max(ends) > end:
            raise CutShortError(path, where_it_ends(file, end))
        key = page.keyframe
        itemsize = 1 if key.dtype is None else key.dtype.itemsize
        check_size(path, key.imagelength, key.imagewidth, itemsize, sum(page.databytecounts))
        if key.compression == 1 and not key.is_tiled:
            least = key.imagelength * ((key.imagewidth * key.bitspersample + 7) // 8)
            if sum(page.databytecounts) < least:
                raise CutShortError(path, f"a page has {sum(page.databytecounts)} bytes of {least}")
        image = np.asarray(page.asarray())
        if image.ndim > 2 and image.size == image.shape[-2] * image.shape[-1]:
            image = image.reshape(image.shape[-2:])
        if image.ndim >= 3 and key.samplesperpixel > 1:
            raise SourceError(f"{path} contains a colour image among the others; convert all to greyscale")
        return image if image.dtype.isnative else image.astype(image.dtype.newbyteorder("="))

    def close(self) -> None:
        """Close all files. Idempotent."""
        self._last = None
        while self._open:
            self._open.popitem()[1].close()


def where_it_ends(file: tifffile.TiffFile, end: int = 0) -> str:
    """Why images are missing: the file ends, or contains only zeros from the byte `end` on."""
    if end and end < file.filehandle.size:
        return f"it contains only zeros from byte {end} on, as after an interrupted copy"
    return f"it ends at byte {file.filehandle.size}"


def entry_of(file: tifffile.TiffFile, offset: int) -> tuple[int, int]:
    """Number of tags of a page and offset of the next page (0 for the last); both 0 behind the end of the file."""
    handle, layout = file.filehandle, file.tiff
    handle.seek(offset)
    text = handle.read(layout.tagnosize)
    if len(text) < layout.tagnosize:
        return 0, 0
    count = int(struct.unpack(layout.tagnoformat, text)[0])
    handle.seek(offset + layout.tagnosize + count * layout.tagsize)
    text = handle.read(layout.offsetsize)
    return count, int(struct.unpack(layout.offsetformat, text)[0]) if len(text) == layout.offsetsize else 0


def _form(file: tifffile.TiffFile, offset: int) -> list[bytes]:
    """The raw tags of a page that define the format of its pixels."""
    handle, layout = file.filehandle, file.tiff
    count, _ = entry_of(file, offset)
    handle.seek(offset + layout.tagnosize)
    entries = handle.read(count * layout.tagsize)
    order: Literal["little", "big"] = "little" if file.byteorder == "<" else "big"
    rows = (entries[at : at + layout.tagsize] for at in range(0, len(entries), layout.tagsize))
    return [row for row in rows if int.from_bytes(row[:2], order) in FORM_TAGS]


def _tag(page: Any) -> dict[str, Any]:
    tag = getattr(page, "tags", {}).get(MICROMANAGER_TAG)
    return tag.value if tag is not None and isinstance(tag.value, dict) else {}
