"""What is seen of a scan: the traces of all candidates, and their alignment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.alignment.aligned import Aligned, Positions
from calibration.alignment.joint import align
from calibration.alignment.misfit import central_misfit
from calibration.scan.candidates import Candidates
from calibration.scan.cutouts import TraceImages

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The traces of all candidates, the planes that are used and the noise of a plane's mean image."""

    traces: TraceImages
    found: Candidates
    focus_um: FloatArray
    plane_used: BoolArray
    noise_variance: float
    pixel_size_um: float
    step_um: float
    shape: tuple[int, int]


def images_of(seen: Seen, members: IndexArray) -> npt.NDArray[np.float32]:
    """Images (N, K, P, P) of the members, in the planes that are used."""
    contrast = seen.traces.contrast[members]
    return contrast if seen.plane_used.all() else np.ascontiguousarray(contrast[:, seen.plane_used])


def align_members(seen: Seen, members: IndexArray, start: Positions) -> Aligned:
    """The members' traces, aligned from `start`."""
    return align(images_of(seen, members), seen.focus_um[seen.plane_used], start, z_step_um=seen.step_um)


def misfit_of_members(seen: Seen, members: IndexArray, aligned: Aligned) -> FloatArray:
    """How far each of the aligned members is from the others, as `central_misfit` has it."""
    focus_um = seen.focus_um[seen.plane_used]
    return central_misfit(aligned, images_of(seen, members), focus_um, seen.noise_variance)
