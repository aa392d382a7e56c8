"""The curves of a calibration: features of the PSF and of each trace over depth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calibration.assemble import Assembled
from calibration.features import local_variance, make_masks, masked_signal
from calibration.generalised_gaussian import fit_generalised_gaussian
from calibration.preparation import faded
from calibration.result import FeatureCurves, ParticleTable
from calibration.scan.cutouts import TraceImages

FloatArray = npt.NDArray[np.float64]

MOST_TRACES = 60
"""Traces in the report's curves; more lines cannot be seen."""
MOST_DEPTHS = 80
"""Depths at which widths are fitted, each by a least-squares fit of seven parameters."""


def feature_curves(
    traces: TraceImages,
    made: Assembled,
    table: ParticleTable,
    focus_um: FloatArray,
    pixel_size_um: float,
    noise_variance: float,
) -> FeatureCurves:
    """Masked signal, local variance and widths (generalised Gaussian, eq. 3) over depth."""
    masks = make_masks(made.images)
    every = max(1, -(-len(made.images) // MOST_DEPTHS))
    images = made.images[::every]
    shapes = [
        fit_generalised_gaussian(image, rotation_deg=made.focal_planes.rotation_deg) for image in images
    ]
    chosen = np.flatnonzero(table.used & table.complete)[:MOST_TRACES]
    own = traces.contrast[chosen]
    return FeatureCurves(
        z_um=made.z_um[::every],
        masked_signal=masked_signal(images, masks),
        local_variance=local_variance(images),
        sigma_x_um=np.array([shape.sigma_x_px for shape in shapes]) * pixel_size_um,
        sigma_y_um=np.array([shape.sigma_y_px for shape in shapes]) * pixel_size_um,
        shape_x=np.array([shape.shape_x for shape in shapes]),
        shape_y=np.array([shape.shape_y for shape in shapes]),
        trace_z_um=table.z_um[chosen, None] - focus_um,
        trace_masked_signal=masked_signal(own, masks),
        trace_local_variance=local_variance(own, noise_variance * float(np.mean(faded(traces.half_px) ** 2))),
    )
