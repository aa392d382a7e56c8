"""Joint fit of all traces and the PSF: depth labels at the noise limit of the scan.

The images of trace i are `brightness_i * M(z_i - focus; x - x_i, y - y_i)` with one unknown PSF M, a spline
over depth in the space of the significant principal images. M enters linearly and is eliminated (variable
projection, Golub & Pereyra 1973): the effect of one trace on M is part of the Gauss-Newton step of all traces,
so traces that overlap only through others converge in few steps. Each trace is compared with an M from which it
and an eighth of the others are left out; otherwise its own noise would bias it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from threadpoolctl import threadpool_limits

from calibration.alignment.aligned import Aligned, Positions
from calibration.alignment.basis import average_images, moved_to_middle, principal_images
from calibration.alignment.depth_spline import SplineSums, best_stiffness, node_weights, support_level
from calibration.alignment.joint_normal import BRIGHTNESS, PARAMETERS, JointNormal, X, Y, Z

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

END_NODES = 4
"""Nodes beyond the first and last depth: those that a cubic spline needs, and one to move into."""
PREDICTED_PART = 0.75
"""Part of the traces whose residuals the others' spline must lower at a visible node; without a particle it is
0.5 by chance. 0.6 and 0.9 change the depth range by 3 %, not the labels."""
PREDICTED_NODES = 5
"""Nodes over which that part is averaged."""
FOLDS = 8
"""Groups of traces, each compared with a spline through the others. 4 or 16 change nothing in a small simulated
scan (rms depth error 0.082 um); the time is proportional."""
INNER_STEPS = 8
"""Most steps at fixed offsets; 3 to 5 are typical."""
MAX_STEP_NODES = 2.0
"""Largest step in depth, in nodes. Half or twice as much changes nothing."""
MAX_STEP_PX = 1.0
"""Largest step in the plane, px."""
SETTLED_UM = 0.005
"""Standard deviation of the last steps in depth, um, at which the alignment ends: far below the labels' errors.
Half or twice as much changes nothing."""
SETTLED_PX = 0.003
"""Most steps at fixed offsets. Half or twice as many change nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    first_um: float
    step_um: float
    count: int

    def coordinates(self, depth_um: FloatArray) -> FloatArray:
        return (depth_um - self.first_um) / self.step_um


def align(
    contrast: Float32Array,
    focus_um: FloatArray,
    start: Positions,
    *,
    z_step_um: float,
    max_steps: int = 8,
) -> Aligned:
    """Align traces: depth, brightness and offset of each, and the PSF that they share.

    Parameters
    ----------
    contrast
        Traces (N, K, P, P) of lone particles, wholly inside the image, in contrast.
    focus_um
        Focus position (K,) of each plane.
    start
        First positions, within a step or two of the true ones.
    z_step_um
        Distance of the spline's nodes: the step of the scan.
    max_steps
        Largest number of outer steps, in which the images are shifted to their new offsets.
    """
    now, moved, steps = start, np.inf, 0
    while True:
        steps += 1
        state = _Step(contrast, focus_um, now, z_step_um)
        with threadpool_limits(1):  # the matrices are small; threads would only wait for one another
            now, change, chi2, moved = _settle(state, now)
        aside = float(np.std(change[:, X:]))
        if steps == max_steps or (moved < SETTLED_UM and aside < SETTLED_PX and steps > 1):
            break
        now = replace(now, dx_px=now.dx_px + change[:, X], dy_px=now.dy_px + change[:, Y])
    spline, total = state.spline(now)
    return Aligned(
        now,
        state.basis,
        spline,
        total.information,
        state.nodes.first_um,
        state.nodes.step_um,
        state.values,
        chi2,
        state.variances(now),
        state.predicted(now),
        steps,
        moved,
    )


def _settle(state: _Step, now: Positions) -> tuple[Positions, FloatArray, FloatArray, float]:
    """Gauss-Newton steps of depth and brightness until they are small.

    Returns the new positions, the last change (N, 4), squared residuals (N, K), and the last move in depth, um.
    """
    for _ in range(INNER_STEPS):
        change, chi2 = state.step(now)
        now = Positions(
            np.maximum(now.brightness + change[:, BRIGHTNESS], 0.05),
            now.z_um + change[:, Z] * state.nodes.step_um,
            now.dx_px,
            now.dy_px,
        )
        now = replace(now, brightness=now.brightness / np.mean(now.brightness))
        moved = float(np.std(change[:, Z])) * state.nodes.step_um
        if moved < SETTLED_UM:
            break
    return now, change, chi2, moved


class _Step:
    """The traces at fixed offsets in the plane, projected on their basis; depth and brightness are free."""

    def __init__(
        self, contrast: Float32Array, focus_um: FloatArray, now: Positions, z_step_um: float
    ) -> None:
        self._focus_um = focus_um
        depth = now.z_um[:, None] - focus_um
        step_um = z_step_um
        first_um = float(depth.min()) - 2 * END_NODES * step_um
        self.nodes = _Nodes(
            first_um, step_um, int(np.ceil((depth.max() - first_um) / step_um)) + 2 * END_NODES + 1
        )
        shifted = moved_to_middle(contrast, now.dx_px, now.dy_px)
        self.count, self.planes, self._size = shifted.shape[:3]
        flat = shifted.reshape(-1, self._size, self._size)
        self.basis = principal_images(*average_images(flat, depth, now.brightness, z_step_um))
        self._power = np.einsum("mij,mij->m", flat, flat, dtype=np.float64)
        self._value, self._by_x, self._by_y = self.basis.project(flat)
        basis = self.basis
        self._xx, self._xy = basis.gram(basis.by_x, basis.by_x), basis.gram(basis.by_x, basis.by_y)
        self._yy = basis.gram(basis.by_y, basis.by_y)
        self._vx, self._vy = basis.gram(basis.images, basis.by_x), basis.gram(basis.images, basis.by_y)
        self._stiffness: FloatArray | None = None
        self._gain = (np.zeros(0), np.zeros(0))
        self._folds = np.empty(self.count, np.int64)
        self._folds[np.argsort(now.z_um)] = np.arange(self.count) % min(FOLDS, self.count)

    def sums(self, now: Positions) -> tuple[list[SplineSums], FloatArray]:
        """The sums of each fold, and the node coordinates (N, K)."""
        node = self.nodes.coordinates(now.z_um[:, None] - self._focus_um)
        value = self._value.reshape(self.count, self.planes, -1)
        sums = []
        for fold in range(int(self._folds.max()) + 1):
            mine = self._folds == fold
            weight = np.repeat(now.brightness[mine], self.planes)
            samples = value[mine].reshape(-1, self.basis.count)
            sums.append(SplineSums.of(samples, node[mine].ravel(), weight, self.nodes.count))
        return sums, node

    @property
    def values(self) -> FloatArray:
        """The images (N, K, R) in the basis."""
        return self._value.reshape(self.count, self.planes, -1)

    def predicted(self, now: Positions) -> npt.NDArray[np.bool_]:
        """Nodes (J,) at which the splines of the other traces lower the residuals of most traces."""
        self.step(now)
        gain, node = self._gain
        place = np.clip(np.round(node).astype(int), 0, self.nodes.count - 1)
        better = np.bincount(place.ravel(), (gain > 0).ravel(), self.nodes.count)
        there = np.bincount(place.ravel(), minlength=self.nodes.count)
        width = np.ones(PREDICTED_NODES)
        share = np.convolve(better, width, "same") / np.maximum(np.convolve(there, width, "same"), 1.0)
        return np.asarray(share > PREDICTED_PART)

    def variances(self, now: Positions) -> FloatArray:
        """Variances (N, 4) of brightness, z in um, x and y in px for a noise of 1, that of the spline included."""
        spline, _ = self.spline(now)
        node = self.nodes.coordinates(now.z_um[:, None] - self._focus_um)
        known = np.ones(self.nodes.count, np.bool_)
        normal, *_ = self._compare(np.arange(self.count), spline, known, node, now.brightness)
        variances = JointNormal(normal, node, now.brightness, self.nodes.count).variances()
        variances[:, Z] *= self.nodes.step_um**2
        return variances

    def spline(self, now: Positions) -> tuple[FloatArray, SplineSums]:
        """The spline (J, R) through all traces, and their sums."""
        sums, _ = self.sums(now)
        total = reduce(add, sums)
        stiffness = best_stiffness(sums) if self._stiffness is None else self._stiffness
        return total.solve(stiffness), total

    def step(self, now: Positions) -> tuple[FloatArray, FloatArray]:
        """The joint change (N, 4) of brightness, z in nodes, x and y in px, and the residuals (N, K)."""
        sums, node = self.sums(now)
        total = reduce(add, sums)
        if self._stiffness is None:
            self._stiffness = best_stiffness(sums)
        level = support_level(total.information)
        normal = np.zeros((self.count, self.planes, PARAMETERS, PARAMETERS))
        gradient = np.zeros((self.count, self.planes, PARAMETERS))
        chi2, chi2_in_basis = np.zeros((2, self.count, self.planes))
        for fold, own in enumerate(sums):
            mine = np.flatnonzero(self._folds == fold)
            others = total - own
            normal[mine], gradient[mine], chi2[mine], chi2_in_basis[mine] = self._compare(
                mine,
                others.solve(self._stiffness),
                others.information > level,
                node[mine],
                now.brightness[mine],
            )
        weight = self._trust(node, chi2_in_basis)
        matrix = JointNormal(normal * weight[..., None, None], node, now.brightness, self.nodes.count)
        change = matrix.solve(gradient * weight[..., None])
        self._gain = (self._power.reshape(chi2.shape) - chi2, node)
        change[:, BRIGHTNESS] = np.clip(change[:, BRIGHTNESS], -0.3, 0.3)
        change[:, Z] = np.clip(change[:, Z], -MAX_STEP_NODES, MAX_STEP_NODES)
        change[:, X:] = np.clip(change[:, X:], -MAX_STEP_PX, MAX_STEP_PX)
        return change, chi2 / self._size**2

    def _compare(
        self,
        mine: npt.NDArray[np.intp],
        spline: FloatArray,
        known: npt.NDArray[np.bool_],
        node: FloatArray,
        brightness: FloatArray,
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Normal matrices (without factors of brightness), gradients and squared residuals of some traces.

        The residuals are those of all pixels and those within the basis.
        """
        rows = (mine[:, None] * self.planes + np.arange(self.planes)).ravel()
        first, weight, slope = node_weights(node.ravel(), self.nodes.count)
        around = first[:, None] + np.arange(4)
        seen = known[around].all(axis=1)
        near = spline[around]
        m = np.einsum("mp,mpr->mr", weight, near) * seen[:, None]
        z = np.einsum("mp,mpr->mr", slope, near) * seen[:, None]
        value, by_x, by_y = self._value[rows], self._by_x[rows], self._by_y[rows]
        a = np.repeat(brightness, self.planes)
        mvx, mvy = m @ self._vx, m @ self._vy
        zvx, zvy = z @ self._vx, z @ self._vy
        dot = _dot
        mm, mz, mx, my = dot(m, m), dot(m, z), -dot(mvx, m), -dot(mvy, m)
        zx, zy = -dot(zvx, m), -dot(zvy, m)
        xx, xy, yy = dot(m @ self._xx, m), dot(m @ self._xy, m), dot(m @ self._yy, m)
        gradient = np.stack(
            [
                dot(value, m) - a * mm,
                dot(value, z) - a * mz,
                -dot(by_x, m) - a * mx,
                -dot(by_y, m) - a * my,
            ],
            axis=1,
        )
        normal = np.stack(
            [mm, mz, mx, my, mz, dot(z, z), zx, zy, mx, zx, xx, xy, my, zy, xy, yy], axis=1
        ).reshape(-1, PARAMETERS, PARAMETERS)
        chi2 = self._power[rows] - 2 * a * dot(value, m) + a**2 * mm
        inner = chi2 - self._power[rows] + dot(value, value)
        shape = (len(mine), self.planes)
        return (
            normal.reshape(*shape, 4, 4),
            gradient.reshape(*shape, 4),
            chi2.reshape(shape),
            inner.reshape(shape),
        )

    def _trust(self, node: FloatArray, chi2: FloatArray) -> FloatArray:
        """Weight (N, K) of each image: low at depths where the spline does not describe most traces."""
        place = np.clip(np.round(node).astype(int), 0, self.nodes.count - 1)
        present = np.unique(place)
        typical = np.zeros(self.nodes.count)
        typical[present] = ndimage.median(chi2, place, present)
        overall = float(np.median(typical[typical > 0]))
        trust = np.minimum(1.0, overall / np.maximum(typical, 1e-30)) ** 2
        weight: FloatArray = trust[place]
        return weight


def _dot(first: FloatArray, second: FloatArray) -> FloatArray:
    product: FloatArray = np.einsum("mr,mr->m", first, second)
    return product
