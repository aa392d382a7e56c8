"""Errors of a user's pipeline, and how its code is run."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from calibration.errors import CalibrationError
from stream.own_code import where_it_failed


class PipelineError(CalibrationError):
    """A pipeline that cannot be used; the text says why, where in the user's file, and what to do."""


@contextmanager
def running(what: str, path: Path, seed: int | None = None) -> Iterator[None]:
    """Run code of the file at `path`: tell where in it `what` failed; with a `seed`, begin its random numbers."""
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the numbers that pipelines draw
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # DeepTrack's and numpy's, once for each image
            yield
    except (KeyboardInterrupt, PipelineError):
        raise
    except BaseException as error:  # a user's code may raise anything, or call sys.exit
        raise PipelineError(f"{what} failed: {where_it_failed(error, path)}") from error
