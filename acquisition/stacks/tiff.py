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

from acquisition.stacks.axes import AxisEvidence, assumed_axes, decide_axes, given_axes
from acquisition.stacks.ome import OmeFacts, OmePlane, ome_facts
from acquisition.stacks.scales import Scales
from acquisition.stacks.stack import NAN, Layout, Plane, StackInfo, check_pixels, layout_of
from acquisition.stacks.tiff_facts import (
    PlaneColumns,
    imagej_scales,
    micromanager_planes,
    micromanager_scales,
    plain_scales,
)
from stream.errors import ConfigurationError, SourceError

MICROMANAGER_TAG = 51123
DAMAGE = ("invalid page offset", "corrupt", "invalid value offset", "failed to reshape", "truncated")


class TiffStack:
    """One series of a TIFF file, read page by page."""

    def __init__(self, path: Path, axes: str | None = None, *, is_scan: bool = False) -> None:
        """Open the file. `axes` takes precedence over its own; `is_scan` where it should be a focus scan.

        Raises `SourceError` if it is no TIFF or has no images that we read, `ConfigurationError` for `axes` that
        it cannot have.
        """
        self._path, self._given_axes, self._is_scan = path, axes, is_scan
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
        except (SourceError, ConfigurationError):
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
        named = axes
        if self._given_axes is not None:
            axes = given_axes(self._path, shape, self._given_axes)
        layout = layout_of(self._path, shape, axes)  # what cannot be read is said before anything else
        lead = max(named.find("Y"), 0)
        self._named = Layout(shape[:lead], named[:lead], layout.height, layout.width)
        dtype = check_pixels(self._path, np.dtype(series.dtype))
        self._ome = ome_facts(self._file.ome_metadata) if self._file.is_ome else OmeFacts()
        scales, kind = self._facts()
        self._columns = self._micromanager_columns()
        focus_um, stamps_s = self._positions_and_stamps()
        decided = ""
        if self._given_axes is None:
            if (kind == "TIFF" and set(str(series.axes)) - set("TZCYX")) or (same and shape[0] > 1):
                decided = assumed_axes(axes, "its pages")
            else:
                evidence = AxisEvidence(scales.interval.value, scales.z.value, scales.x.value, focus_um)
                axes, decided = decide_axes(axes, shape, evidence, is_scan=self._is_scan)
        self._layout: Layout = layout_of(self._path, shape, axes)
        self._spacing_um = scales.z.value if self._layout.size("Z") > 1 else NAN
        self._expected = max(self._layout.planes, self._ome.planes)
        self.info = StackInfo(
            planes=self._layout.planes,
            height=self._layout.height,
            width=self._layout.width,
            dtype=dtype,
            volume=self._layout.volume,
            pixel_size_um=scales.x.value,
            frame_rate_hz=scales.rate_hz,
            format=kind,
            axes=self._layout.axes,
            lead=self._layout.lead,
            pixel_size_y_um=scales.y.value,
            stamps_s=stamps_s,
            remarks=tuple(
                text for text in (decided, scales.z.remark if self._layout.size("Z") > 1 else "") if text
            ),
            pixel_remarks=scales.pixel_remarks,
            time_remarks=tuple(
                t for t in (scales.interval.remark, *scales.remarks, self._columns.remark) if t
            ),
        )
        _ = len(self._file.pages)  # walks through them all, and complains where that fails
        problem = next((text for text in self._complaints if any(word in text for word in DAMAGE)), "")
        if problem or self._expected > self._layout.planes:
            self.damage = str(self._cut_short(self._layout.planes, problem or "pages are missing"))

    def _facts(self) -> tuple[Scales, str]:
        file = self._file
        if file.is_micromanager:
            summary = (file.micromanager_metadata or {}).get("Summary", {})
            return micromanager_scales(summary, self._micromanager(0)), "Micro-Manager"
        if file.is_ome:
            return self._ome.scales, "OME-TIFF"
        tags = file.pages.first.tags
        x_per_unit, y_per_unit = _ratio(tags.get("XResolution")), _ratio(tags.get("YResolution"))
        if file.is_imagej:
            return imagej_scales(file.imagej_metadata or {}, x_per_unit, y_per_unit), "ImageJ TIFF"
        unit = tags.get("ResolutionUnit")
        return plain_scales(x_per_unit, y_per_unit, 0 if unit is None else int(unit.value)), "TIFF"

    def _micromanager_columns(self) -> PlaneColumns:
        """What Micro-Manager says of each plane, read once."""
        count = self._named.planes if self._file.is_micromanager else 0
        return micromanager_planes(count, (self._micromanager(index) for index in range(count)))

    def _positions_and_stamps(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Focus positions, um, and time stamps, s, of all planes."""
        planes = []
        if self._ome.by_plane:
            t, z = self._named.positions("T").tolist(), self._named.positions("Z").tolist()
            planes = [self._ome.plane(*place) for place in zip(t, z, strict=True)]
        focus_um, stamps_s = np.full((2, self._named.planes), NAN)
        if planes:
            focus_um, stamps_s = np.array([(plane.focus_um, plane.time_s) for plane in planes]).T
        if self._columns.time_s.size:
            columns = self._columns
            focus_um = np.where(np.isfinite(columns.focus_um), columns.focus_um, focus_um)
            stamps_s = np.where(np.isfinite(columns.time_s), columns.time_s, stamps_s)
        return focus_um, stamps_s

    def _ome_plane(self, index: int) -> OmePlane:
        position = self._named.position
        return self._ome.plane(position(index, "T"), position(index, "Z"))

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
        ome, said = self._ome_plane(index), self._columns
        has_said = index < said.time_s.size
        by_spacing_um = self._layout.position(index, "Z") * self._spacing_um
        return Plane(
            image=np.ascontiguousarray(image, self.info.dtype),
            time_s=_first(said.time_s[index] if has_said else NAN, ome.time_s),
            focus_um=_first(said.focus_um[index] if has_said else NAN, ome.focus_um, by_spacing_um),
            exposure_ms=_first(said.exposure_ms[index] if has_said else NAN, ome.exposure_ms),
            camera_frame=int(said.camera_frame[index])
            if has_said and said.camera_frame[index] >= 0
            else None,
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
    """tifffile's names, with a plain stack's pages (I, Q) taken for times, those behind them for planes."""
    names = list(str(series.axes))
    for name in "TZ":
        unnamed = [place for place, other in enumerate(names) if other in "IQRP"]
        longer = [place for place in unnamed if series.shape[place] > 1] or unnamed
        if longer and name not in names:
            names[longer[0]] = name
    axes = "".join(names)
    if axes.startswith("S") and "T" not in axes:
        # three or four frames that tifffile was not told are not the colours of one
        axes = axes.replace("S", "T", 1)
    return axes


def _ratio(tag: tifffile.TiffTag | None) -> float:
    """The value of a resolution tag; NaN where there is none."""
    value = None if tag is None else tag.value
    try:
        return float(value[0] / value[1]) if isinstance(value, tuple) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return NAN


def _first(*values: float) -> float:
    return next((float(value) for value in values if np.isfinite(value)), NAN)


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
