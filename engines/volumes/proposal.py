"""What a proposer says: places in a volume where particles may be, for the fit to decide about.

A matched filter, a Laplacian of Gaussian and a network all propose in this form.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """Places where particles may be; arrays of length N, float64, strongest first.

    `x`, `y`, `z` are in voxels from the centre of the first voxel, z in slices. `amplitude` is the height of the
    particle's peak above the background, in grey values (NaN: not known). `strength` is the signal-to-noise ratio
    of the matched filter there, sqrt(sum of (signal / noise)^2) over the voxels: the square root of twice the
    log-likelihood ratio that the fit will find, but for what moving between the voxels adds. `probability` that a
    particle is there: NaN where the proposer does not know it.
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray
    amplitude: FloatArray
    strength: FloatArray
    probability: FloatArray

    def __len__(self) -> int:
        return int(self.x.size)

    @classmethod
    def none(cls) -> Self:
        """No proposals."""
        return cls(*(np.empty(0) for _ in fields(cls)))

    def joined(self, others: Proposals) -> Proposals:
        """These and the others, in this order."""
        pairs = ((getattr(self, c.name), getattr(others, c.name)) for c in fields(self))
        return Proposals(*(np.concatenate(pair) for pair in pairs))

    def take(self, which: npt.NDArray[Any]) -> Self:
        """Those that `which` names, a mask or indices."""
        return type(self)(*(getattr(self, column.name)[which] for column in fields(self)))


@runtime_checkable
class Proposer(Protocol):
    """Finds places in volumes. Called from several threads at a time."""

    def propose(
        self,
        image: npt.NDArray[Any],
        missing: npt.NDArray[np.bool_],
        background: Background,
        noise: Noise,
    ) -> Proposals:
        """The places in a volume (Z, H, W) of uint8 or uint16 where particles may be.

        Slices that are `missing` (Z,) have no image: their pixels are 0 and are not used.
        """
        ...
