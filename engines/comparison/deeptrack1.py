"""DeepTrack 1's published networks, read from their Keras files: one particle in an image of 51 x 51 px.

Helgadottir, Argun & Volpe (2019), Optica 6, 506: convolutions of 3 x 3 with ReLU, each followed by the largest of
2 x 2, then fully connected layers; the answer is the place from the middle of the image, over half its side. Only
the weights are read (h5py), nothing of the file is run.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError
from stream.hdf5_reading import check_file, values

FloatArray = npt.NDArray[np.float32]
MOST_BYTES = 1 << 28
"""The published files have 0.5 MB."""
WEIGHTS = "model_weights"
"""Group of the weights in a file that holds a whole model; in one of weights alone they are at its root."""
SIDE_PX = 51
"""Of the published networks' images."""
MOST_TEXT = 1 << 20
MOST_LAYERS = 16
OUTPUTS = 3
"""x, y and the distance from the middle, x along the rows of DeepTrack's images."""
IMAGES_AT_ONCE = 64


class DeepTrack1:
    """The network of a file; called with images (N, H, W), values from 0 to 1, it returns places (N, 2): x, y in
    px.

    They are from the centre of the middle pixel, x along a row of the image as everywhere in this program.
    Raises `ConfigurationError` for a file that is missing, damaged or holds another network.
    """

    def __init__(self, path: Path) -> None:
        try:
            with h5py.File(path, "r", locking=False) as file:
                check_file(file, most_bytes=MOST_BYTES)
                self.side_px = _side(file)
                group = file.get(WEIGHTS, file)
                self._convolutions = _layers(group, "conv", 4)
                self._dense = [*_layers(group, "dense", 2), _layer(group, "output", 2)]
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"cannot read a network of DeepTrack 1 in {path} ({error}); give the .h5 file of its repository"
            ) from error
        if self._dense[-1][1].size != OUTPUTS:
            raise ConfigurationError(
                f"the network in {path} has {self._dense[-1][1].size} outputs, not x, y and r"
            )
        self._check_side(path)

    @property
    def weights(self) -> int:
        """How many numbers it learnt."""
        return sum(kernel.size + bias.size for kernel, bias in (*self._convolutions, *self._dense))

    def _check_side(self, path: Path) -> None:
        """Raise `ConfigurationError` unless images of this side give as many values as the full layers take."""
        left = self.side_px
        for _ in self._convolutions:
            left = (left - 2) // 2
        wanted = self._dense[0][0].shape[0]
        if left * left * self._convolutions[-1][1].size != wanted:
            raise ConfigurationError(
                f"the layers of {path} do not follow from one another: {wanted} values of images of "
                f"{self.side_px} px"
            )

    def __call__(self, images: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Places (N, 2) in images (N, H, W) of the network's size."""
        if images.ndim != 3 or images.shape[1:] != (self.side_px, self.side_px):
            raise ConfigurationError(
                f"DeepTrack 1 reads images of {self.side_px} x {self.side_px} px, not {images.shape[1:]}"
            )
        parts = [
            self._answer(images[first : first + IMAGES_AT_ONCE].astype(np.float32))
            for first in range(0, len(images), IMAGES_AT_ONCE)
        ]
        found = np.concatenate([np.empty((0, OUTPUTS), np.float32), *parts])
        half = (self.side_px - 1) / 2
        return np.asarray(found[:, [1, 0]] * half, np.float64)

    def _answer(self, images: FloatArray) -> FloatArray:
        x = images[..., None]
        for kernel, bias in self._convolutions:
            windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
            x = np.maximum(np.tensordot(windows, kernel, axes=((4, 5, 3), (0, 1, 2))) + bias, 0)
            rows, columns = x.shape[1] // 2, x.shape[2] // 2
            x = x[:, : 2 * rows, : 2 * columns].reshape(len(x), rows, 2, columns, 2, -1).max(axis=(2, 4))
        flat = x.reshape(len(x), -1)
        for kernel, bias in self._dense[:-1]:
            flat = np.maximum(flat @ kernel + bias, 0)
        kernel, bias = self._dense[-1]
        return np.asarray(flat @ kernel + bias, np.float32)


def _side(file: h5py.File) -> int:
    """Side of the images, px, where the file says it."""
    text = file.attrs.get("model_config")
    if text is None:
        return SIDE_PX
    text = text.decode() if isinstance(text, bytes) else str(text)
    config = json.loads(text[:MOST_TEXT])["config"]
    layers = config["layers"] if isinstance(config, dict) else config
    return int(layers[0]["config"]["batch_input_shape"][1])


def _layers(group: h5py.Group, name: str, ndim: int) -> list[tuple[FloatArray, FloatArray]]:
    found: list[tuple[FloatArray, FloatArray]] = []
    while len(found) < MOST_LAYERS and f"{name}_{len(found) + 1}" in group:
        found.append(_layer(group, f"{name}_{len(found) + 1}", ndim))
    if not found:
        raise ValueError(f"no layer {name}_1")
    return found


def _layer(group: h5py.Group, name: str, ndim: int) -> tuple[FloatArray, FloatArray]:
    """Kernel and bias of a layer; they lie in a group of the layer's name, once or twice."""
    inner = group[name]
    inner = inner.get(name, inner)
    kernel, bias = (values(inner, f"{part}:0", ndim=n) for part, n in (("kernel", ndim), ("bias", 1)))
    if kernel.shape[-1] != bias.size or (ndim == 4 and kernel.shape[:2] != (3, 3)):
        raise ValueError(f"layer {name} of shape {kernel.shape}")
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise ValueError(f"layer {name} has values that are not finite")
    return kernel.astype(np.float32), bias.astype(np.float32)
