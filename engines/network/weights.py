"""The weights in a model file's metadata, for back ends that build the network themselves."""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from engines.bounded_reading import MOST_WEIGHTS_BYTES, inflate, read_arrays
from stream.errors import ConfigurationError

KEY = "liveptv_weights"


def pack(weights: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """The weights as text: a compressed `.npz` file in base 64."""
    buffer = io.BytesIO()
    np.savez(buffer, **cast("dict[str, Any]", dict(weights)))
    return base64.b64encode(zlib.compress(buffer.getvalue(), 9)).decode("ascii")


def unpack(metadata: Mapping[str, str], name: str) -> dict[str, npt.NDArray[np.generic]]:
    """The weights in the metadata of the model `name`. Raises `ConfigurationError` where there are none."""
    try:
        content = inflate(base64.b64decode(metadata[KEY]), MOST_WEIGHTS_BYTES, KEY)
        return read_arrays(content, MOST_WEIGHTS_BYTES)
    except (KeyError, ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(
            f"{name} does not contain its weights ({error}); train it again, or use the back end onnxruntime"
        ) from error
