"""The PSF model as text, in the metadata of a model file: what the fit after a network needs."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.bounded_reading import MOST_IMAGE_BYTES, inflate
from engines.refine.arguments import Float32Array
from engines.refine.field import FieldModel
from engines.refine.misfit import Misfit
from engines.refine.psf import MOST_MODES, FitModel
from engines.refine.quantity import DEPTH, Quantity
from stream.errors import ConfigurationError
from stream.particle_properties import check_names

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
    """The PSF model as text, with what varies over the field; splines are rounded to 1/32767 of the largest
    value."""
    rounded, scale = _rounded(model.coefficients)
    numbers: dict[str, Any] = {name: float(getattr(model, name)) for name in NUMBERS}
    header = {**numbers, "polarity": model.polarity, "scale": scale, "shape": rounded.shape}
    header["sigma_scale"] = model.sigma_scale
    planes = _halves(rounded)
    if model.quantity is not None:
        header["quantity"] = asdict(model.quantity)
    if model.quantity is not None:
        header["extent_px"] = model.extent_px.tolist()
    if model.growth is not None:
        header["growth"] = float(model.growth)
    if model.dark_grey is not None:
        header["dark_grey"] = float(model.dark_grey)
    if model.misfit is not None:
        header["misfit"] = model.misfit.numbers()
    if model.field is not None:
        modes, scale = _rounded(model.field.modes)
        header["field"] = {"numbers": model.field.numbers(), "scale": scale, "modes": len(modes)}
        planes += _halves(modes)
    content = io.BytesIO()
    text = json.dumps(header).encode()
    content.write(len(text).to_bytes(4, "little") + text + planes)
    return base64.b64encode(zlib.compress(content.getvalue(), 9)).decode("ascii")


def _rounded(values: Float32Array) -> tuple[npt.NDArray[np.int16], float]:
    scale = float(np.abs(values).max(initial=0.0)) / LEVELS or 1.0
    return np.rint(values / scale).astype("<i2"), scale


def _halves(rounded: npt.NDArray[np.int16]) -> bytes:
    planes = rounded.tobytes()
    return planes[::2] + planes[1::2]


def _joined(halves: bytes, shape: tuple[int, ...], scale: float) -> Float32Array:
    low, high = np.split(np.frombuffer(halves, np.uint8), 2)
    rounded = np.stack([low, high], axis=1).reshape(-1).view("<i2").reshape(shape)
    return np.asarray(rounded * np.float32(scale), np.float32)


def unpack(text: str, name: str) -> FitModel:
    """The PSF model that `pack` wrote. Raises `ConfigurationError` where the text of the file `name` is damaged."""
    try:
        content = inflate(base64.b64decode(text), MOST_IMAGE_BYTES, KEY)
        start = 4 + int.from_bytes(content[:4], "little")
        header = json.loads(content[4:start])
        shape = tuple(int(size) for size in header["shape"])
        over_field = header.get("field")
        modes = 0 if over_field is None else int(over_field["modes"])
        size = math.prod(shape) * np.dtype("<i2").itemsize
        if min(shape) < 0 or not 0 <= modes <= MOST_MODES or len(content) - start != size * (1 + modes):
            raise ValueError(f"{len(content) - start} bytes for a shape of {shape} and {modes} modes")
        if len(shape) != 3 or header["polarity"] not in ("dark", "bright"):
            raise ValueError(f"a PSF model of shape {shape}, polarity {header['polarity']}")
        field = None
        if over_field is not None:
            spline = _joined(content[start + size :], (modes, *shape), float(over_field["scale"]))
            field = FieldModel.of_numbers(over_field["numbers"], spline)
        misfit = Misfit.of_numbers(header["misfit"]) if "misfit" in header else None
        x, y, z = (float(value) for value in header.get("sigma_scale", (1.0, 1.0, 1.0)))
        return FitModel.of(
            _joined(content[start : start + size], shape, float(header["scale"])),
            header["z_first_um"],
            header["z_step_um"],
            (header["z_min_um"], header["z_max_um"]),
            pixel_size_um=header["pixel_size_um"],
            polarity=header["polarity"],
            read=header["read"],
            shot=header["shot"],
            brightness_sd=header["brightness_sd"],
            sigma_scale=(x, y, z),
            field=field,
            misfit=misfit,
            quantity=_quantity(header.get("quantity")),
            growth=header.get("growth"),
            dark_grey=header.get("dark_grey"),
            extent_px=header.get("extent_px"),
        )
    except (
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        AttributeError,
        RecursionError,
        zlib.error,
    ) as error:
        raise ConfigurationError(f"the PSF model in {name} is damaged ({error}); train it again") from error


def _quantity(numbers: Any) -> Quantity | None:
    if numbers is None:
        return None
    name = str(numbers["name"])
    if name != DEPTH:
        check_names([name])
    return Quantity(name, float(numbers["at_zero"]), float(numbers["per_um"]))
