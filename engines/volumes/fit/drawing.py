"""The light of fitted particles in a volume, as the fit draws them."""

from __future__ import annotations

import numpy as np

from engines.volumes.fit.arguments import Float32Array, FloatArray
from engines.volumes.fit.spots import kernel_psf, stack_of
from engines.volumes.fit.volume import put_all
from engines.volumes.fit.windows import make_room
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise


def light_of(theta: FloatArray, psf: VolumePsf, shape: tuple[int, ...]) -> Float32Array:
    """The light (Z, H, W) of particles `theta` (N, 4: z, y, x in voxels, amplitude), without any background."""
    light = np.zeros(shape, np.float32)
    nothing, none = Background.flat(0.0, shape[0]), np.zeros(shape[0], np.bool_)
    stack = stack_of(light, none, psf, Noise(0.0, 0.0, 1.0), nothing, None, None, 1.0)
    kernel = kernel_psf(psf)
    put_all(light, np.ascontiguousarray(theta), len(theta), 1.0, stack, kernel, make_room(kernel, stack, 1))
    return light
