"""The traces' images, each moved to its particle's place, in the space of their principal images.

The basis of the alignment (`calibration.alignment.basis`) comes from averages over all particles, in which what is
odd over the field cancels. Here it comes from averages over depth and groups of particles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from calibration.alignment.basis import derivatives
from calibration.alignment.depth_spline import node_weights

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

MOST_MEAN, MOST_DIFFERENT = 24, 40
"""Most principal images of the average over all particles, and of what differs between groups; 10 to 20 describe a
PSF over depth. They limit the time."""
NEW_PART = 0.05
"""Part of an image's norm that must be new to the basis."""
GROUPS = 24
"""Groups of particles at most; with more the averages hold more noise, with fewer they hide what differs."""
ABOVE_NOISE = 1.5
"""Variance of a principal image over the largest one that noise alone gives (Marchenko & Pastur 1967)."""


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Depths of the spline's nodes: `first_um` + j `step_um`, `count` of them."""

    first_um: float
    step_um: float
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Traces:
    """Images (N, K, P, P) of N particles in K planes, clean of neighbours, and what is known of the particles.

    `depth_um` (N, K) are local depths, `seen` (N, K) marks those that count; `dx_px`, `dy_px` (N, K) the particle's
    place, off the middle pixel, in each image; `u`, `v` (N,) its place in the field (`engines.refine.field`).
    """

    images: Float32Array
    depth_um: FloatArray
    seen: BoolArray
    dx_px: FloatArray
    dy_px: FloatArray
    brightness: FloatArray
    u: FloatArray
    v: FloatArray
    noise_variance: float

    def moved(self, dx_px: FloatArray, dy_px: FloatArray, dz_um: FloatArray) -> Traces:
        """The same with places (N, K) or (N, 1) and depths (N,) changed by so much."""
        return replace(
            self,
            dx_px=self.dx_px + dx_px,
            dy_px=self.dy_px + dy_px,
            depth_um=self.depth_um + dz_um[:, None],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Traces in a basis of R images (R, P, P): `values` (N, K, R), and operators (R, R) of the basis's derivatives.

    `basis` is orthonormal; coefficients (R,) times `by_x` or `by_y` are those of the image's derivative.
    """

    traces: Traces
    nodes: Nodes
    basis: FloatArray
    by_x: FloatArray
    by_y: FloatArray
    values: FloatArray

    @classmethod
    def of(
        cls, traces: Traces, nodes: Nodes, basis: FloatArray | None = None, *, alike: bool = False
    ) -> Samples:
        """Move the images to the middle; find their basis where none is given.

        `alike`: the basis need not describe how particles differ from one another.
        """
        shifted = to_middle(traces.images, traces.dx_px, traces.dy_px)
        if basis is None:
            basis = _basis(shifted, traces, alike=alike)
        flat = basis.reshape(len(basis), -1)
        with threadpool_limits(2):
            by_x, by_y = (part.reshape(len(basis), -1) @ flat.T for part in derivatives(basis))
            count, planes, size, _ = shifted.shape
            values = (shifted.reshape(-1, size * size) @ flat.T.astype(np.float32)).astype(np.float64)
        return cls(traces, nodes, basis, by_x, by_y, values.reshape(count, planes, -1))

    def weights(self) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
        """First node (N, K), and the weights (N, K, 4) of four nodes and their slopes by um; 0 where not seen."""
        node = (self.traces.depth_um - self.nodes.first_um) / self.nodes.step_um
        first, weight, slope = node_weights(node.ravel(), self.nodes.count)
        shape = (*node.shape, 4)
        seen = self.traces.seen[..., None]
        return (
            first.reshape(node.shape),
            weight.reshape(shape) * seen,
            slope.reshape(shape) * seen / self.nodes.step_um,
        )


def to_middle(images: Float32Array, dx_px: FloatArray, dy_px: FloatArray) -> Float32Array:
    """Shift images (N, K, P, P), each by its own (N, K), so that each particle sits on the middle pixel
    (Fourier)."""
    size = images.shape[-1]
    along, across = fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :]
    out = np.empty_like(images)
    for index, stack in enumerate(images):
        turn = along * dy_px[index, :, None, None] + across * dx_px[index, :, None, None]
        phase = np.exp(2j * np.pi * turn).astype(np.complex64)
        out[index] = fft.irfft2(fft.rfft2(stack, workers=-1) * phase, s=(size, size), workers=-1)
    return out


def _basis(shifted: Float32Array, traces: Traces, *, alike: bool) -> FloatArray:
    """An orthonormal basis (R, P, P): images of all particles, their derivatives, and what differs between groups.

    The derivatives must be in it, or a small shift of a faint image, below the noise of any single average, could
    not be seen and not be described.
    """
    size = shifted.shape[2]
    mean = _principal(
        _averages(shifted, traces, np.zeros(len(shifted), np.int64)), MOST_MEAN, traces.noise_variance
    )
    by_x, by_y = (part.reshape(len(mean), -1) for part in derivatives(mean.reshape(-1, size, size)))
    moved = _orthonormal(np.concatenate([mean, by_x, by_y]))
    if alike:
        return moved.reshape(-1, size, size)
    groups = _averages(shifted, traces, _groups(traces))
    rest = groups - (groups @ moved.T) @ moved
    more = _principal(rest, MOST_DIFFERENT, traces.noise_variance)
    return _orthonormal(np.concatenate([moved, more])).reshape(-1, size, size)


def _averages(shifted: Float32Array, traces: Traces, group: npt.NDArray[np.int64]) -> FloatArray:
    """Sums (B, P * P) over bins of depth and groups (N,), scaled to the noise of one image."""
    step_um = float(np.median(np.abs(np.diff(traces.depth_um[0])))) or 1.0
    place = np.round((traces.depth_um - traces.depth_um.min()) / step_um).astype(np.int64)
    bins = int(place.max()) + 1
    index = (group[:, None] * bins + place)[traces.seen]
    weight = np.broadcast_to(traces.brightness[:, None], place.shape)[traces.seen]
    information = np.bincount(index, weight**2, minlength=(int(group.max()) + 1) * bins)
    total = np.zeros((information.size, shifted[0, 0].size), np.float32)
    for where, image, factor in zip(index, shifted[traces.seen].reshape(len(index), -1), weight, strict=True):
        total[where] += np.float32(factor) * image
    known = information > 0
    return (total[known] / np.sqrt(information[known])[:, None]).astype(np.float64)


def _principal(averages: FloatArray, most: int, noise_variance: float) -> FloatArray:
    """Principal images (R, P * P) above the noise, the strongest first; `most` of them at most."""
    many = min(most, min(averages.shape) - 1)
    # a fixed start, so that the same scan gives the same calibration
    with threadpool_limits(2):
        _, values, images = svds(averages, k=many, v0=np.ones(min(averages.shape)))
    order = np.argsort(values)[::-1]
    noise = noise_variance * (np.sqrt(len(averages)) + np.sqrt(averages.shape[1])) ** 2
    order = order[values[order] ** 2 > ABOVE_NOISE * noise]
    found: FloatArray = images[order]
    return found


def _orthonormal(images: FloatArray) -> FloatArray:
    """An orthonormal basis of images (Q, P * P), in their order; what is nearly a sum of earlier ones is left
    out."""
    out: list[FloatArray] = []
    for image in images:
        rest, size = image, float(np.linalg.norm(image))
        for _ in range(2):
            for known in out:
                rest = rest - (rest @ known) * known
        left = float(np.linalg.norm(rest))
        if size > 0 and left > NEW_PART * size:
            out.append(rest / left)
    return np.stack(out)


def _groups(traces: Traces) -> npt.NDArray[np.int64]:
    """Group (N,) of each particle: neighbours in the field, the brighter and the fainter half of each apart."""
    count = len(traces.u)
    strips = max(1, int(np.sqrt(min(count, GROUPS) / 2)))
    group = np.zeros(count, np.int64)
    by_u = np.array_split(np.argsort(traces.u), strips)
    number = 0
    for strip in by_u:
        for cell in np.array_split(strip[np.argsort(traces.v[strip])], strips):
            for half in np.array_split(cell[np.argsort(traces.brightness[cell])], 2):
                group[half] = number
                number += half.size > 0
    return group
