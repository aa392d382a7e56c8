"""A recording opened for reading: its images as arrays, by index or one after the other."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.typing as npt

from acquisition.recording import Recording as Source
from acquisition.recording import open_recording
from liveptv.workflows.offline import recorded_frames
from stream.messages import Frame

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

Image = npt.NDArray[Any]

ABOUT = ("frame", "camera_frame", "time_s", "focus_um", "flow_ul_s", "exposure_ms")


class Recording:
    """Images of a TIFF, OME-TIFF, Micro-Manager, NDTiff, OME-Zarr or HDF5 file, or of a folder of images.

    Parameters
    ----------
    path : str or path
        `PATH::position=1,channel=0` chooses one of several videos in a file.
    pixel_size_um, frame_rate_hz, axes, z_step_um : optional
        Take precedence over what the file says.
    volumes : bool, optional
        Read the z planes of each time as one volume; left out: where `z_step_um` is given.

    Attributes
    ----------
    shape : tuple of int
        (T, H, W), or (T, Z, H, W) for volumes.
    dtype : numpy.dtype
        uint8 or uint16.
    pixel_size_um, z_step_um, frame_rate_hz : float
        NaN where the frame rate is unknown, and for the z step of images; a pixel is 1 um where neither the file
        nor the caller says it.
    remarks : tuple of str
        What was assumed or decided when the file was read, one line each.

    Raises
    ------
    SourceError
        If the file cannot be read; the text says why.
    ConfigurationError
        For `axes` that the file cannot have.

    Examples
    --------
    >>> with liveptv.read_recording("video.ome.tif") as video:
    ...     first, some, all_of_them = video[0], video[10:20], video[:]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        pixel_size_um: float | None = None,
        frame_rate_hz: float | None = None,
        axes: str | None = None,
        z_step_um: float | None = None,
        volumes: bool | None = None,
    ) -> None:
        self.path = Path(path)
        self._options: dict[str, Any] = {
            "run_id": "python",
            "pixel_size_um": pixel_size_um,
            "frame_rate_hz": frame_rate_hz,
            "axes": axes,
            "z_step_um": z_step_um,
            "volumes": volumes,
        }
        self._source = open_recording(self.path, **self._options)
        info = self._source.info
        slices = () if math.isnan(info.z_step_um) else (info.depth,)
        self.shape: tuple[int, ...] = (info.frames or 0, *slices, info.height, info.width)
        self.dtype = np.dtype(info.dtype)
        self.pixel_size_um = info.pixel_size_um
        self.z_step_um = info.z_step_um
        self.frame_rate_hz = info.frame_rate_hz
        self.remarks = self._source.remarks

    def __len__(self) -> int:
        return self.shape[0]

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> Image: ...
    def __getitem__(self, index: int | slice) -> Image:
        """One image (H, W) or volume (Z, H, W), or some (N, ...) for a slice of them.

        Raises `IndexError`, or `SourceError` if unreadable.
        """
        if isinstance(index, slice):
            chosen = range(len(self))[index]
            images = np.empty((len(chosen), *self.shape[1:]), self.dtype)
            for at, number in enumerate(chosen):
                images[at] = self._source.image(number)
            return images
        return np.array(self._source.image(range(len(self))[index]))

    def __iter__(self) -> Iterator[Image]:
        return (self[number] for number in range(len(self)))

    def frames(self) -> Iterator[Frame]:
        """The images with what the file says of each: time, focus, exposure, the camera's own frame number.

        Yields
        ------
        stream.messages.Frame
            `frame.image` (H, W) and `frame.info`, whose `time_s` counts from the first frame.
        """
        return self._read(Source.frames)

    def numbered_frames(self) -> Iterator[Frame]:
        """The same with the numbers of the recording: that of a frame that was lost is left out."""
        return self._read(recorded_frames)

    def _read(self, frames_of: Callable[[Source], Iterator[Frame]]) -> Iterator[Frame]:
        source = open_recording(self.path, **self._options)
        try:
            yield from frames_of(source)
        finally:
            source.close()

    def to_pandas(self) -> pd.DataFrame:
        """What the file says of each frame: number, time, focus, flow, exposure (`ABOUT`).

        It reads through the whole file. What is not known is NaN.
        """
        import pandas as pd

        return pd.DataFrame([{name: getattr(each.info, name) for name in ABOUT} for each in self.frames()])

    def to_xarray(self, start: int = 0, stop: int | None = None) -> xr.DataArray:
        """The images from `start` to before `stop` (left out: all) over `frame`, (`z`,) `y` and `x`, um.

        Raises `ConfigurationError` if xarray is not installed.
        """
        from liveptv.api.images import images_xarray

        found: xr.DataArray = images_xarray(self[start:stop], self.pixel_size_um, self.z_step_um)
        return found.assign_coords(frame=range(len(self))[start:stop])

    def plot(self, frame: int = 0, axes: Axes | None = None) -> Axes:
        """Draw an image, in um; of a volume its brightest values along z. Returns the axes."""
        from liveptv.api.images import plot_image

        image, title = self[frame], f"{self.path.name}, frame {frame}"
        if image.ndim == 3:
            image, title = image.max(axis=0), f"{title}, brightest along z"
        return plot_image(image, self.pixel_size_um, title, axes)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        frames, *size = self.shape
        what = "images" if len(size) == 2 else "volumes"
        return f"<Recording {self.path.name}: {frames} {what} of {' x '.join(map(str, size))}, {self.dtype}>"


def read_recording(
    path: str | os.PathLike[str],
    *,
    pixel_size_um: float | None = None,
    frame_rate_hz: float | None = None,
    axes: str | None = None,
    z_step_um: float | None = None,
    volumes: bool | None = None,
) -> Recording:
    """Open a recording; see `Recording`."""
    return Recording(
        path,
        pixel_size_um=pixel_size_um,
        frame_rate_hz=frame_rate_hz,
        axes=axes,
        z_step_um=z_step_um,
        volumes=volumes,
    )
