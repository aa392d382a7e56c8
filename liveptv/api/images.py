"""Simulated images: an array that knows the size of its pixels, becomes xarray and draws itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from liveptv.api.axes import image_axes
from liveptv.api.optional import needs
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


class Images(np.ndarray):
    """Camera images (T, H, W), an array as any other; what is computed from it is a plain array.

    Attributes
    ----------
    pixel_size_um : float
        Size of a pixel in object space.
    """

    pixel_size_um: float

    def __new__(cls, images: npt.NDArray[Any], pixel_size_um: float) -> Images:
        """The same memory, seen as images."""
        made = np.asarray(images).view(cls)
        made.pixel_size_um = pixel_size_um
        return made

    def __array_finalize__(self, of: npt.NDArray[Any] | None) -> None:
        self.pixel_size_um = getattr(of, "pixel_size_um", 1.0)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    def __reduce__(self) -> Any:
        return Images, (np.asarray(self), self.pixel_size_um)

    def to_xarray(self) -> xr.DataArray:
        """The images over `frame`, `y` and `x`, um. Raises `ConfigurationError` if xarray is not installed."""
        found: xr.DataArray = images_xarray(np.asarray(self), self.pixel_size_um)
        return found

    def plot(self, frame: int = 0, axes: Axes | None = None) -> Axes:
        """Draw one image, in um; returns the axes."""
        return plot_image(np.asarray(one_of(self, frame)), self.pixel_size_um, f"frame {frame}", axes)


def one_of(images: Any, frame: int) -> npt.NDArray[Any]:
    """Image `frame` of images (T, H, W), or the only one (H, W). Raises `ConfigurationError` if there is none."""
    array = images if hasattr(images, "ndim") or hasattr(images, "frames") else np.asarray(images)
    if getattr(array, "ndim", 3) == 2:
        return np.asarray(array)
    if not 0 <= frame < len(array):
        raise ConfigurationError(f"there is no image of frame {frame}; there are {len(array)}, from frame 0")
    image = np.asarray(array[frame])
    if image.ndim != 2:
        raise ConfigurationError(
            f"an image (H, W) is needed, not an array of shape {image.shape}; choose a slice"
        )
    return image


def plot_image(image: npt.NDArray[Any], pixel_size_um: float, title: str, axes: Axes | None) -> Axes:
    """Draw a camera image (H, W)."""
    from liveptv.reports.drawn import draw_image

    with image_axes(axes, image.shape) as drawn:
        draw_image(drawn, image, pixel_size_um)
        drawn.set_title(title)
    result: Axes = drawn
    return result


def images_xarray(images: npt.NDArray[Any], pixel_size_um: float, z_step_um: float | None = None) -> Any:
    """Images (T, H, W) or volumes (T, Z, H, W) as `xarray.DataArray`, with places in um."""
    xarray = needs("xarray")
    *_, height, width = images.shape
    names = ["frame", *(["z"] if images.ndim == 4 else []), "y", "x"][-images.ndim :]
    places = {"x": np.arange(width) * pixel_size_um, "y": np.arange(height) * pixel_size_um}
    if "z" in names and z_step_um is not None:
        places["z"] = np.arange(images.shape[1]) * z_step_um
    coordinates: dict[str, Any] = {name: (name, values, {"units": "um"}) for name, values in places.items()}
    if "frame" in names:
        coordinates["frame"] = ("frame", np.arange(len(images)), {})
    return xarray.DataArray(
        images, dims=names, coords=coordinates, name="grey value", attrs={"pixel_size_um": pixel_size_um}
    )
