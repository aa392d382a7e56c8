"""D of each axis where its errors last over frames: from means over frames, or as an upper limit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tracking.physics.diffusion.averages import ABOVE, SURE, AveragedDiffusion, from_averages, limit_um2_s
from tracking.physics.diffusion.covariance import Moments

AXES = "xyz"
DEPTH = 2


@dataclass(frozen=True, slots=True)
class AxisDiffusion:
    """D of one axis, um^2/s, with its standard error, and the localisation error, um.

    `snr` is sqrt(D dt) over the localisation error (inf without one), `method` is "covariance", "likelihood" or
    "averages". `shear_um2_s` is what the sheared flow had added to D and was subtracted. `used`: whether the axis
    counts for the mean D. `at_most`: D is an upper limit only, as errors last over frames
    (`tracking.physics.diffusion.averages`). `frames`: where they surely do, over how many frames means are taken
    to be free of them, else 1.
    """

    axis: str
    um2_s: float
    standard_error_um2_s: float
    localisation_um: float
    snr: float
    method: str
    shear_um2_s: float
    used: bool
    at_most: bool = False
    frames: int = 1

    @property
    def limit_um2_s(self) -> float:
        """What D is below with a probability of 95 %, um^2/s."""
        return limit_um2_s(self.um2_s, self.standard_error_um2_s)


def with_lasting_errors(axes: list[AxisDiffusion], of_blocks: list[Moments]) -> list[AxisDiffusion]:
    """The axes, with D from `averages` where errors last over frames.

    Shear makes D of longer blocks larger: axes that it adds to are left as they are. Those that were corrected for
    it by depths whose errors last do not count either, if one is left that was not.
    """
    plane = [_in_the_plane(axis, of_blocks, at) for at, axis in enumerate(axes[:DEPTH])]
    return _along_the_depth([*plane, *axes[DEPTH:]], of_blocks) if len(axes) > DEPTH else plane


def _in_the_plane(axis: AxisDiffusion, of_blocks: list[Moments], at: int) -> AxisDiffusion:
    found = from_averages(of_blocks, at) if axis.shear_um2_s == 0.0 else None
    if found is None or not found.lasting:
        return axis
    axis = replace(axis, frames=found.block)
    if axis.um2_s - found.um2_s > SURE * math.hypot(axis.standard_error_um2_s, found.standard_error_um2_s):
        axis = _from(found, axis)
    return axis


def _from(found: AveragedDiffusion, axis: AxisDiffusion) -> AxisDiffusion:
    """An axis with D from means over frames."""
    return replace(
        axis,
        um2_s=found.um2_s,
        standard_error_um2_s=found.standard_error_um2_s,
        method="averages",
        used=axis.used and not found.at_most,
        at_most=found.at_most,
    )


def _along_the_depth(axes: list[AxisDiffusion], of_blocks: list[Moments]) -> list[AxisDiffusion]:
    depth, plane = axes[DEPTH], [axis for axis in axes[:DEPTH] if axis.used]
    clear = [axis for axis in plane if axis.shear_um2_s == 0.0]
    plane = clear or plane
    count = max(len(plane), 1)
    across = (
        sum(axis.um2_s for axis in plane) / count if plane else math.nan,
        math.sqrt(sum(axis.standard_error_um2_s**2 for axis in plane)) / count if plane else math.nan,
    )
    found = from_averages(of_blocks, DEPTH)
    if found is None:
        return axes
    found = found.beside(across)
    apart = math.hypot(depth.standard_error_um2_s, found.standard_error_um2_s)
    larger = depth.um2_s - across[0] > ABOVE * math.hypot(depth.standard_error_um2_s, across[1])
    # Where steps are longer than errors are large, both have to say so: D in the plane and longer blocks.
    shown = found.lasting or found.at_most or depth.um2_s - found.um2_s > SURE * apart
    if not (found.lasting and larger if depth.method == "covariance" else shown or larger):
        return axes
    plane = [
        replace(axis, used=axis.used and not (clear and axis.shear_um2_s > 0.0)) for axis in axes[:DEPTH]
    ]
    return [*plane, _from(found, replace(depth, frames=found.block))]
