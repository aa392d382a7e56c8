"""TIFF stacks: plain, ImageJ, OME (also in several files), and Micro-Manager's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from acquisition.stacks.ome import OmeFacts, ome_facts
from acquisition.stacks.stack import NAN, Layout, Plane, StackInfo, check_pixels, layout_of, to_s, to_um
from stream.errors import SourceError

MICROMANAGER_TAG = 51123
DAMAGE = ("invalid page offset", "corrupt", "invalid value offset", "failed to reshape", "truncated")


class TiffStack:
    """One series of a TIFF file, read page by page."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises `SourceError` if it is no TIFF or has no images that we read."""
        self._path = path
        self.damage = ""
        self._complaints: list[str] = []
        try:
            with _listening(self._complaints):
                self._file = tifffile.TiffFile(path)
                try:
                    self._open()
                except BaseException:
                    self._file.close()
                    raise
        except SourceError:
            raise
        except (OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
            raise SourceError(f"cannot read {path} as TIFF: {_plain(error)}") from error

    def _open(self) -> None:
        if not self._file.series:
            raise SourceError(f"{self._path} holds no images")
        series = self._series = self._file.series[0]
        self._pages = list(series.pages)
        shape, axes = tuple(series.shape), _axes(series)
        same = [other for other in self._file.series[1:] if other.shape == series.shape]
        if same and series.ndim == 2 and not self._file.is_ome:
            # one image after the other, each written by itself
            self._pages += [page for other in same for page in other.pages]
            shape, axes = (len(self._pages), *shape), "TYX"
        elif same:
            raise SourceError(
                f"{self._path} holds {len(same) + 1} series of images of the same size; save one of them alone"
            )
        self._layout: Layout = layout_of(self._path, shape, axes)
        dtype = check_pixels(self._path, np.dtype(series.dtype))
        self._ome = ome_facts(self._file.ome_metadata) if self._file.is_ome else OmeFacts()
        pixel_um, rate_hz, kind = self._facts()
        self._spacing_um = self._spacing() if self._layout.size("Z") > 1 else NAN
        self._expected = max(self._layout.planes, self._ome.planes)
        self.info = StackInfo(
            planes=self._layout.planes,
            height=self._layout.height,
            width=self._layout.width,
            dtype=dtype,
            volume=self._layout.volume,
            pixel_size_um=pixel_um,
            frame_rate_hz=rate_hz,
            format=kind,
            axes=self._layout.axes,
            lead=self._layout.lead,
        )
        _ = len(self._file.pages)  # walks through them all, and complains where that fails
        problem = next((text for text in self._complaints if any(word in text for word in DAMAGE)), "")
        if problem or self._expected > self._layout.planes:
            self.damage = str(self._cut_short(self._layout.planes, problem or "pages are missing"))

    def _facts(self) -> tuple[float, float, str]:
        file = self._file
        if file.is_micromanager:
            summary = (file.micromanager_metadata or {}).get("Summary", {})
            pixel_um = _number(summary.get("PixelSize_um", summary.get("PixelSizeUm")))
            interval_ms = _number(summary.get("Interval_ms"))
            first = self._micromanager(0)
            pixel_um = pixel_um if pixel_um > 0 else _number(first.get("PixelSizeUm"))
            return (
                pixel_um if pixel_um > 0 else NAN,
                1e3 / interval_ms if interval_ms > 0 else NAN,
                "Micro-Manager",
            )
        if file.is_ome:
            return self._ome.pixel_size_um, self._ome.frame_rate_hz, "OME-TIFF"
        if file.is_imagej:
            facts = file.imagej_metadata or {}
            interval_s = to_s(_number(facts.get("finterval")), str(facts.get("tunit", "s")))
            rate_hz = 1 / interval_s if interval_s > 0 else _number(facts.get("fps"))
            return self._resolution_um(str(facts.get("unit", ""))), rate_hz, "ImageJ TIFF"
        return NAN, NAN, "TIFF"

    def _spacing(self) -> float:
        facts = (self._file.imagej_metadata or {}) if self._file.is_imagej else {}
        return to_um(_number(facts.get("spacing")), str(facts.get("unit", "")))

    def _resolution_um(self, unit: str) -> float:
        tag = self._file.pages.first.tags.get("XResolution")
        if tag is None or not tag.value[0]:
            return NAN
        return to_um(tag.value[1] / tag.value[0], unit)

    def read(self, index: int) -> Plane:
        """Plane `index`. Raises `SourceError`, also where the file is cut short."""
        try:
            with _listening(self._complaints):
                image = self._pixels(index)
        except SourceError:
            raise
        except (OSError, ValueError, RuntimeError, TypeError, IndexError, KeyError) as error:
            raise self._cut_short(index, _plain(error)) from error
        if image.shape != (self.info.height, self.info.width):
            raise SourceError(
                f"frame {index} of {self._path} is {image.shape[0]} x {image.shape[1]} pixels, the first was "
                f"{self.info.height} x {self.info.width}"
            )
        position = self._layout.position
        ome = self._ome.plane(position(index, "T"), position(index, "Z"))
        facts = self._micromanager(index)
        elapsed_ms = _number(facts.get("ElapsedTime-ms"))
        return Plane(
            image=np.ascontiguousarray(image, self.info.dtype),
            time_s=1e-3 * elapsed_ms if np.isfinite(elapsed_ms) else ome.time_s,
            focus_um=_first(
                _number(facts.get("ZPositionUm")), ome.focus_um, position(index, "Z") * self._spacing_um
            ),
            exposure_ms=_first(_number(facts.get("Exposure-ms")), ome.exposure_ms),
            camera_frame=int(facts["ImageNumber"]) if str(facts.get("ImageNumber", "")).isdigit() else None,
        )

    def _pixels(self, index: int) -> npt.NDArray[Any]:
        size = self._file.filehandle.size
        pages = self._pages
        if len(pages) >= self._layout.planes:
            page = pages[index]
            if page is None:
                raise SourceError(
                    f"frame {index} of {self._path} lies in a file that is missing; keep all files of the "
                    "recording in one folder"
                )
            ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if page.parent is self._file and max(ends, default=0) > size:
                raise self._cut_short(index, f"it ends at byte {size} of {max(ends)}")
            return np.asarray(page.asarray()).reshape(page.shape[-2:])
        if self._series.dataoffset is None:
            raise SourceError(f"{self._path} has {len(pages)} pages for {self._layout.planes} images")
        # ImageJ's files over 4 GB: one page, then all images in a row
        dtype = np.dtype(self._series.dtype).newbyteorder(self._file.byteorder)
        nbytes = self.info.height * self.info.width * dtype.itemsize
        start = self._series.dataoffset + index * nbytes
        if start + nbytes > size:
            raise self._cut_short(index, f"it ends at byte {size}")
        handle = self._file.filehandle
        handle.seek(start)
        return np.frombuffer(handle.read(nbytes), dtype).reshape(self.info.height, self.info.width)

    def _micromanager(self, index: int) -> dict[str, Any]:
        if not self._file.is_micromanager or index >= len(self._pages):
            return {}
        page = self._pages[index]
        tags = getattr(page, "tags", None) or getattr(self._file.pages[index], "tags", {})
        tag = tags.get(MICROMANAGER_TAG) if tags else None
        return tag.value if tag is not None and isinstance(tag.value, dict) else {}

    def _cut_short(self, index: int, why: str) -> SourceError:
        of = f" of {self._expected}" if self._expected > index else ""
        return SourceError(
            f"{self._path} is damaged or cut short at frame {index}{of} ({why}); copy it again from where it was "
            "recorded"
        )

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


class _Listener(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@contextmanager
def _listening(lines: list[str]) -> Iterator[None]:
    """Collect what tifffile only logs."""
    logger = logging.getLogger("tifffile")
    listener, propagate = _Listener(lines), logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate


def _axes(series: tifffile.TiffPageSeries) -> str:
    """tifffile's names, with a plain stack's pages (I, Q) taken for times."""
    axes = str(series.axes)
    for unnamed in "IQRP":
        if unnamed in axes and "T" not in axes:
            axes = axes.replace(unnamed, "T", 1)
    if axes.startswith("S") and "T" not in axes:
        # three or four frames that tifffile was not told are not the colours of one
        axes = axes.replace("S", "T", 1)
    return axes


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return NAN


def _first(*values: float) -> float:
    return next((value for value in values if np.isfinite(value)), NAN)


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
