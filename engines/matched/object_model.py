"""The file with the image model of a pipeline's objects, from which they are found without a network."""

from __future__ import annotations

from pathlib import Path

import h5py

from engines.bounded_reading import MOST_TEXT_BYTES
from engines.refine.psf import FitModel
from engines.refine.psf_text import KEY, pack, unpack
from stream.errors import ConfigurationError
from stream.hdf5_reading import check_file, values
from stream.unfinished_files import written_beside

SCHEMA = "liveptv-object-model"
MADE_FROM = "made_from"
IS_ROUGH = "is_rough"
MOST_BYTES = 1 << 28


def write_object_model(
    path: Path, model: FitModel, made_from: str, overwrite: bool = False, *, is_rough: bool = False
) -> None:
    """Write the model to a new file. Raises `OutputError` where that is not possible.

    `is_rough`: it says where objects are, but is too unlike them to be fitted (`matched.pursuit`).
    """
    with written_beside(path, overwrite=overwrite) as part, h5py.File(part, "w") as file:
        file.attrs.update(schema=SCHEMA, pixel_size_um=model.pixel_size_um, polarity=model.polarity)
        file.attrs[IS_ROUGH] = is_rough
        file[KEY] = pack(model)
        file[MADE_FROM] = made_from


def is_object_model(path: Path) -> bool:
    """Whether a file says that it holds such a model."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(file.attrs.get("schema") == SCHEMA)
    except (OSError, RuntimeError):
        return False


def is_rough(path: Path) -> bool:
    """Whether the model of such a file only says where objects are, whose symmetry then measures them.

    Raises `ConfigurationError` where that cannot be read.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return int(file.attrs.get(IS_ROUGH, 0)) == 1
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ConfigurationError(f"cannot read the image model in {path} ({error}); make it again") from error


def load_object_model(path: Path) -> FitModel:
    """The model of a file. Raises `ConfigurationError` where it is damaged or holds something else."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            check_file(file, most_bytes=MOST_BYTES)
            if file.attrs.get("schema") != SCHEMA:
                raise ValueError("it is no image model of objects")
            text = str(values(file, KEY, ndim=0, kinds="O", most_bytes=MOST_TEXT_BYTES))
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"cannot read the image model in {path} ({error}); make it again") from error
    return unpack(text, path.name)
