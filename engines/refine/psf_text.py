"""The PSF model as text, in the metadata of a model file: what the fit after a network needs."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from typing import Any

import numpy as np

from engines.bounded_reading import MOST_IMAGE_BYTES, inflate
from engines.refine.psf import FitModel
from stream.errors import ConfigurationError

KEY = "liveptv_particle"
LEVELS = np.iinfo(np.int16).max
"""Steps from 0 to the largest coefficient."""
NUMBERS = (
    "z_first_um",
    "z_step_um",
    "z_min_um",
    "z_max_um",
    "pixel_size_um",
    "read",
    "shot",
    "brightness_sd",
)


def pack(model: FitModel) -> str:
    """The PSF model as text; its coefficients are rounded to 1/32767 of the largest."""
    scale = float(np.abs(model.coefficients).max()) / LEVELS or 1.0
    rounded = np.rint(model.coefficients / scale).astype("<i2")
    planes = rounded.tobytes()
    low, high = planes[::2], planes[1::2]
    numbers: dict[str, Any] = {name: float(getattr(model, name)) for name in NUMBERS}
    header = {**numbers, "polarity": model.polarity, "scale": scale, "shape": rounded.shape}
    header["sigma_scale"] = model.sigma_scale
    content = io.BytesIO()
    text = json.dumps(header).encode()
    content.write(len(text).to_bytes(4, "little") + text + low + high)
    return base64.b64encode(zlib.compress(content.getvalue(), 9)).decode("ascii")


def unpack(text: str, name: str) -> FitModel:
    """The PSF model that `pack` wrote. Raises `ConfigurationError` where the text of the file `name` is damaged."""
    try:
        content = inflate(base64.b64decode(text), MOST_IMAGE_BYTES, KEY)
        start = 4 + int.from_bytes(content[:4], "little")
        header = json.loads(content[4:start])
        if len(content) - start != math.prod(header["shape"]) * np.dtype("<i2").itemsize:
            raise ValueError(f"{len(content) - start} bytes for a shape of {header['shape']}")
        low, high = np.split(np.frombuffer(content[start:], np.uint8), 2)
        rounded = np.stack([low, high], axis=1).reshape(-1).view("<i2").reshape(header["shape"])
        if rounded.ndim != 3 or header["polarity"] not in ("dark", "bright"):
            raise ValueError(f"a PSF model of shape {rounded.shape}, polarity {header['polarity']}")
        x, y, z = (float(value) for value in header.get("sigma_scale", (1.0, 1.0, 1.0)))
        return FitModel.of(
            (rounded * np.float32(header["scale"])).astype(np.float32),
            header["z_first_um"],
            header["z_step_um"],
            (header["z_min_um"], header["z_max_um"]),
            pixel_size_um=header["pixel_size_um"],
            polarity=header["polarity"],
            read=header["read"],
            shot=header["shot"],
            brightness_sd=header["brightness_sd"],
            sigma_scale=(x, y, z),
        )
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, zlib.error) as error:
        raise ConfigurationError(
            f"the PSF model in {name} is damaged ({error}); train it again, or set detector.refine off"
        ) from error
