"""The traces of a scan in the space of a few principal images, which describe every kind of particle in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from calibration.alignment.aligned import Positions
from calibration.alignment.basis import moved_to_middle
from calibration.alignment.depth_spline import SplineSums, best_stiffness, node_weights, support_level
from calibration.alignment.misfit import middle

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

MOST_IMAGES = 2000
"""Single images that the principal images are found from, evenly chosen; they limit the time to seconds."""
PRINCIPAL = 40
"""Principal images; a PSF over depth needs 10 to 20."""
FOLDS = 8
"""Groups of traces that are left out in turn."""
END_NODES = 4
COARSE_STEPS = 8
"""Steps of the scan by which a trace is moved in depth to compare it with a kind."""
FINE_STEPS = 0.25
"""Steps of the scan to which a depth is found; not varied."""


@dataclass(frozen=True, slots=True, eq=False)
class Traces:
    """N traces in K planes: `values` (N, K, R) in a basis, `power` (N, K), the sum of squares of each image.

    `focus_um` (K,) are the planes, `step_um` the step of the scan.
    """

    values: FloatArray
    power: FloatArray
    focus_um: FloatArray
    step_um: float

    @classmethod
    def of(cls, images: Float32Array, now: Positions, focus_um: FloatArray, step_um: float) -> Traces:
        """Images (N, K, P, P) of particles at positions `now`, of which the middle parts are looked at."""
        shifted = moved_to_middle(images, now.dx_px, now.dy_px)
        count, planes, size = shifted.shape[:3]
        near = middle(size // 2).ravel()
        flat = shifted.reshape(count * planes, -1)[:, near]
        every = max(1, len(flat) // MOST_IMAGES)
        # as strong as another whatever the particle's brightness
        some = flat[::every] / np.repeat(now.brightness, planes)[::every, None].astype(np.float32)
        many = min(PRINCIPAL, min(some.shape) - 1)
        with threadpool_limits(2):
            _, _, basis = svds(some.astype(np.float64), k=many, v0=np.ones(min(some.shape)))
            values = (flat @ basis.T.astype(np.float32)).astype(np.float64).reshape(count, planes, -1)
        power = np.einsum("mq,mq->m", flat, flat, dtype=np.float64).reshape(count, planes)
        return cls(values, power, focus_um, step_um)

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """How well traces (N,) are described by one kind: the part of their power that is left, the depth, um, and the
    brightness at which it is least."""

    left: FloatArray
    z_um: FloatArray
    brightness: FloatArray


class Kind:
    """The splines over depth through the traces of one kind, each trace compared with one made without its fold."""

    def __init__(self, traces: Traces, mine: IntArray, z_um: FloatArray, brightness: FloatArray) -> None:
        self._traces = traces
        step = traces.step_um
        depth = z_um[mine, None] - traces.focus_um
        self._first_um = float(depth.min()) - END_NODES * step
        self._count = int(np.ceil((depth.max() - self._first_um) / step)) + END_NODES + 1
        fold = np.full(len(traces), -1)
        fold[mine[np.argsort(z_um[mine], kind="stable")]] = np.arange(len(mine)) % min(FOLDS, len(mine))
        node = (depth - self._first_um) / step
        planes = len(traces.focus_um)
        sums = []
        for own in range(int(fold.max()) + 1):
            here = fold[mine] == own
            samples = traces.values[mine[here]].reshape(-1, traces.values.shape[2])
            weight = np.repeat(brightness[mine[here]], planes)
            sums.append(SplineSums.of(samples, node[here].ravel(), weight, self._count))
        total = reduce(add, sums)
        stiffness = best_stiffness(sums) if len(sums) > 1 else np.ones(total.right.shape[1])
        without = [total - one if own >= 0 else total for own, one in enumerate(sums)]
        self._splines = np.stack([each.solve(stiffness) for each in (*without, total)])
        level = support_level(total.information)
        self._known = np.stack([each.information > level for each in (*without, total)])
        self._fold = fold

    def compare(self, z_um: FloatArray, reach_steps: float = COARSE_STEPS) -> Likeness:
        """Compare all traces, each moved in depth by up to `reach_steps` from `z_um` (N,)."""
        step = self._traces.step_um
        best = self._at(z_um[:, None] + step * np.arange(-reach_steps, reach_steps + 1))
        fine = np.arange(-1 + FINE_STEPS, 1, FINE_STEPS)
        return self._at(best.z_um[:, None] + step * fine)

    def _at(self, tried_um: FloatArray) -> Likeness:
        """The best of the depths that are tried, (N, S)."""
        traces = self._traces
        left, brightness = np.full((2, *tried_um.shape), np.inf)
        power = traces.power.sum(axis=1)
        for n, (values, tried) in enumerate(zip(traces.values, tried_um, strict=True)):
            node = (tried[:, None] - traces.focus_um - self._first_um) / traces.step_um
            first, weight, _ = node_weights(node.ravel(), self._count)
            around = first[:, None] + np.arange(4)
            fold = self._fold[n]
            near = self._splines[fold][around] * self._known[fold][around].all(axis=1)[:, None, None]
            model = np.einsum("mp,mpr->mr", weight, near).reshape(*node.shape, -1)
            product = np.einsum("skr,kr->s", model, values)
            square = np.maximum(np.einsum("skr,skr->s", model, model), 1e-30)
            brightness[n] = np.maximum(product, 0.0) / square
            left[n] = 1 - np.maximum(product, 0.0) ** 2 / square / power[n]
        row = np.arange(len(left))
        best = left.argmin(axis=1)
        return Likeness(left[row, best], tried_um[row, best], brightness[row, best])
