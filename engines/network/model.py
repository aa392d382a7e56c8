"""A model file opened with ONNX Runtime: one session, run by any number of threads at once."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engines.engine import BackEndError
from engines.network.layout import SLOTS, planes_of
from engines.network.model_card import ModelCard, card_of
from engines.network.session import OnnxSession
from engines.refine import psf_text as packed
from engines.refine.psf import FitModel
from stream.errors import ConfigurationError

SAME_PIXELS = 1e-3
"""Relative difference in pixel size between a file's PSF model and its network: both are written at once."""
INPUT, ORIGIN, OUTPUT = "image", "origin", "maps"
PLANES_NDIM = 4
"""Axes of planes; maps, of files of schema 1, have one more, and are read of whole frames only."""
TRIAL_PX = 64
"""Side of the image that a network is tried out on."""
TRIAL_S = 20.0
"""Longest time that trial may take; it takes some ms."""
LONGEST_RUN_S = 120.0
"""A frame of 4 megapixels takes 0.5 s, several times that on a busy computer."""


class Network(Protocol):
    """What runs a network on the processor; several threads may call at once.

    Each call maps (1, 1, H, W), H and W multiples of 16, to planes (1, slots x values, H/4, W/4), float32, which
    may be overwritten by the same thread's next call. It may raise anything.
    """

    backend: str
    device: str
    precision: str

    def __call__(self, images: npt.NDArray[np.float32], /) -> npt.NDArray[np.float32]:
        """Map images to planes."""
        ...


class OnnxModel:
    """The network of a `.onnx` file and its metadata. Each call runs on the calling thread.

    Raises `ConfigurationError` for a file that is missing, is not ONNX, is not a model of liveptv, is of a newer
    version, or does not finish a small image in time. `may_read_parts` says whether it can read a part of a frame
    as it reads the whole: it does not know the place in the field of view, or can be told it, which the first
    files with a `field_shape` cannot.
    """

    backend = "onnxruntime"
    device = "cpu"
    precision = "float32"

    def __init__(self, path: Path) -> None:
        self._session = OnnxSession(path)
        self.metadata = self._session.metadata
        self._path = path
        self.card: ModelCard = card_of(self.metadata, str(path))
        names = self._session.ends
        if names != [[INPUT], [OUTPUT]]:
            raise ConfigurationError(
                f"{path} has inputs and outputs {names}, not {INPUT} and {OUTPUT}; it is not a liveptv model"
            )
        planes = len(self._session.graph.get_outputs()[0].shape) == PLANES_NDIM
        optional = [end.name for end in self._session.graph.get_overridable_initializers()]
        self._takes_origin = ORIGIN in optional and self.card.field_shape is not None
        self.may_read_parts = planes and (self.card.field_shape is None or self._takes_origin)
        self._try_out()

    def _try_out(self) -> None:
        """Run the network on a small image, for a limited time, as a file can hold an endless loop."""
        try:
            small = np.zeros((1, 1, TRIAL_PX, TRIAL_PX), np.float32)
            planes = self._run(small, TRIAL_S, (0.0, 0.0))
        except BackEndError as error:
            raise ConfigurationError(f"{error}; it is not a liveptv model") from error
        except Exception as error:  # as above
            detail = " ".join(str(error).split())
            raise ConfigurationError(f"{self._path} cannot be run: {detail}; train it again") from error
        _check_shape(planes.shape, self.card)

    def psf(self, kind: int = 0) -> FitModel | None:
        """The PSF model that the network was trained for, of one kind of particles; None in a model without one.

        Raises `ConfigurationError` where it is damaged.
        """
        text = self.metadata.get(kind_key(kind))
        if text is None:
            return None
        psf, card = packed.unpack(text, str(self._path)), self.card
        alike = abs(psf.pixel_size_um / card.pixel_size_um - 1) < SAME_PIXELS
        if not alike or psf.polarity != card.polarity:
            raise ConfigurationError(
                f"the PSF model in {self._path} is for {psf.polarity} particles and pixels of "
                f"{psf.pixel_size_um:g} um, its network is not; train it again"
            )
        return psf

    def __call__(
        self, images: npt.NDArray[np.float32], origin: tuple[float, float] | None = None
    ) -> npt.NDArray[np.float32]:
        """Map (1, 1, H, W), H and W multiples of 16, to planes (1, slots x values, H/4, W/4), float32.

        `origin` is where the first pixel of a part of a frame lies in the network's field of view, x and y in px;
        networks that do not know the place leave it aside. Without it the images are whole ones. A file of schema 1
        gives maps (1, H/4, W/4, slots, values).
        """
        maps = self._run(images, LONGEST_RUN_S, origin)
        _check_shape(maps.shape, self.card)
        return maps

    def _run(
        self, images: npt.NDArray[np.float32], limit_s: float, origin: tuple[float, float] | None
    ) -> npt.NDArray[np.float32]:
        """The network's output. Raises `BackEndError` where it takes longer than `limit_s`."""
        given = {INPUT: images}
        if origin is not None and self._takes_origin:
            given[ORIGIN] = np.array([origin], np.float32)
        size = f"{images.shape[-2]} x {images.shape[-1]}"
        return self._session.run(OUTPUT, given, limit_s, f"one image of {size} pixels")


def kind_key(kind: int) -> str:
    """Key in a file's metadata of the PSF model of a kind of particles."""
    return packed.KEY if kind == 0 else f"{packed.KEY}_{kind}"


def _check_shape(shape: tuple[int, ...], card: ModelCard) -> None:
    planes = planes_of(card.kinds, card.learnt)
    if shape[1:2] != (planes,) and shape[3:] != (SLOTS, planes // SLOTS):
        raise ConfigurationError(
            f"the model's output has the shape {shape}, which this version cannot read; update liveptv"
        )
