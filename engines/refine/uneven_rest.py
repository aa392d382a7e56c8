"""Standard errors of places where what a fit leaves of an image is more than noise: light of objects that are none
of the model's, its own errors, dirt.

A fit's covariance F^-1 (equation 5 of `joint_fit`) is that of independent noise. Where the rest r of a fit, in its
standard deviations, is alike over many pixels it moves a place further. With the slopes f_x of an object along x,
what moves it has the variance (White 1982, Econometrica 50, 1, of which this is the sandwich F^-1 S F^-1)

    var(x) = (F^-1)_xx lambda,   lambda = sum_k |F_x(k)|^2 P(k) / sum_k |F_x(k)|^2                              (1)

by the Fourier transform F_x of f_x and the power spectrum P of r, 1 for noise. An object that is alike after half a
turn has slopes that are not, so only what is uneven between the two sides of its centre counts: the imaginary part
of the transform R of the rest about the centre. Over the n pixels of the object's rectangle

    P(k) = 2 (Im R(k))^2 / n                                                                                    (2)

The model may thus be wrong in its shape, as long as it is so on both sides. The fit has explained part of the rest
by its own slopes and background, which is known for noise; lambda is measured over that. As one rectangle holds few
independent parts of a rest, each lambda is drawn towards those of the other objects of the frame, as far as they
agree (empirical Bayes: Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3, 3, section 6.2).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.spatial import cKDTree
from scipy.special import digamma, gammaincinv, polygamma

from engines.refine.arguments import Float32Array, FloatArray, Noise
from engines.refine.joint_fit import LEAST_LIGHT
from engines.refine.psf import FitModel
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, TOP, X, Y, Z, draw
from engines.refine.spline import BY_X, BY_Y, VALUE

LOOKS = 5
"""Values of the model's number at which its slopes are taken: a particle goes by the nearest."""
UNEVEN_PART = 0.02
"""Part of a model's energy that may differ after half a turn for it to count as alike."""
LEAST_LEFT = 0.25
"""Least part of a rest that a fit is taken to leave where many objects overlap, which share it."""
LEAST_LAMBDA = 1e-3
FEWEST_PIXELS = 25
"""Pixels of a rectangle that have a partner in the image: of fewer the rest says nothing."""
AT_ONCE = 1 << 22
"""Values of spectra that are calculated at once: some 100 MB."""
BY_CHANCE = 1e-3
"""Probability below which what one object's rest says is no chance of what the others have in common: it then
counts alone, as one with dirt on it among many without."""
NEWTON_STEPS = 30
MODELS = 4
"""Models whose slopes are remembered: a program fits with one or two at a time."""


class Look(NamedTuple):
    """An object at one value of the model's number, in rectangles `half` px from their middle: the powers |F_x|^2
    and |F_y|^2 (2, K, K') of its slopes with weights that sum to 1, the part `left` (2,) of noise that its fit
    leaves to them, and how many `parts` (2,) of the rest count."""

    half: int
    powers: FloatArray
    left: FloatArray
    parts: FloatArray


@lru_cache(maxsize=MODELS)
def is_alike_after_half_a_turn(model: FitModel) -> bool:
    """Whether the images of a model's objects are, in the middle of its range."""
    image = _drawn(model, 0.5 * (model.z_min_um + model.z_max_um))[VALUE]
    return float(((image - image[::-1, ::-1]) ** 2).sum()) <= UNEVEN_PART * float((image**2).sum())


def widened_by(rest: Float32Array, theta: FloatArray, model: FitModel) -> FloatArray:
    """Factors (N, 2), 1 or more, of the standard errors along x and y of objects `theta` (N, 4), by (1).

    `rest` (H, W) is what their fit leaves of the image, over the standard deviation of its noise.
    """
    count = len(theta)
    if not count:
        return np.ones((0, 2))
    depths = np.linspace(model.z_min_um, model.z_max_um, LOOKS)
    which = np.abs(theta[:, Z, None] - depths).argmin(axis=1)
    found, parts = np.full((count, 2), np.nan), np.ones((count, 2))
    for number in np.unique(which):
        look = _look(model, float(depths[number]))
        mine = np.flatnonzero(which == number)
        shared = _shared(theta[:, :2], mine, 2 * look.half + 1)
        left = np.maximum(1.0 - (1.0 - look.left) * shared[:, None], LEAST_LEFT)
        found[mine], parts[mine] = _uneven(rest, theta[mine], look) / left, look.parts
    known = np.isfinite(found).all(axis=1)
    out = np.ones((count, 2))
    for axis in range(2):
        if known.any():
            some = np.maximum(found[known, axis], LEAST_LAMBDA)
            out[known, axis] = _agreed(some, parts[known, axis])
            out[~known, axis] = np.median(out[known, axis])
    return np.sqrt(np.maximum(out, 1.0))


def in_standard_deviations(contrast: Float32Array, total: Float32Array, noise: Noise) -> Float32Array:
    """The rest (H, W) of a frame's `contrast` beside the image `total` of all that was fitted, over its noise."""
    light = np.maximum(np.float32(1.0) + np.float32(noise.sign) * total, np.float32(LEAST_LIGHT))
    variance = np.float32(noise.read) + np.float32(noise.shot) * light
    least = np.float32(LEAST_LIGHT * (noise.read + noise.shot))
    found: Float32Array = (contrast - total) / np.sqrt(np.maximum(variance, least))
    return found


def _drawn(model: FitModel, depth_um: float) -> FloatArray:
    """An object's image and its slopes (4, S, S) at a depth, its centre in the middle pixel."""
    half = min(int(model.extent_px.max()), model.coefficients.shape[1] // 2 - 1)
    box = np.zeros(BOX, np.int64)
    box[TOP], box[BOTTOM], box[LEFT], box[RIGHT] = 0, 2 * half + 1, 0, 2 * half + 1
    out = np.zeros((4, 2 * half + 1, 2 * half + 1), np.float32)
    draw(np.array([half, half, depth_um, 1.0]), box, model.for_kernels(), True, out)
    return out.astype(np.float64)


def _waves(side: int) -> tuple[int, FloatArray, FloatArray, FloatArray]:
    """Length of the transforms of rectangles of a side, their wave numbers along y and x, and the weight of each
    column: those that stand for two count twice."""
    length = fft.next_fast_len(2 * side, real=True)
    weight = np.full(length // 2 + 1, 2.0)
    weight[0] = 1.0
    if length % 2 == 0:
        weight[-1] = 1.0
    return length, 2 * math.pi * fft.fftfreq(length), 2 * math.pi * fft.rfftfreq(length), weight


@lru_cache(maxsize=MODELS * LOOKS)
def _look(model: FitModel, depth_um: float) -> Look:
    drawn = _drawn(model, depth_um)
    side = drawn.shape[1]
    half = side // 2
    length, along_y, along_x, weight = _waves(side)
    slopes = drawn[[BY_X, BY_Y]]
    powers = np.abs(fft.rfft2(slopes, (length, length))) ** 2 * weight
    powers /= powers.sum(axis=(1, 2), keepdims=True)
    # what is explained is the part of odd functions that plane and slopes span
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    basis = np.linalg.qr(np.stack([u, v, *slopes]).reshape(4, -1).T)[0].T.reshape(4, side, side)
    middle = np.exp(1j * half * (along_y[:, None] + along_x))
    explained = 2 * (fft.rfft2(basis, (length, length)) * middle).imag ** 2
    turned = [
        np.cos(2 * wave[:, None] * np.arange(-half, half + 1)).sum(axis=1) for wave in (along_y, along_x)
    ]
    noise = 1 - (np.outer(*turned) + explained.sum(axis=0)) / side**2
    left = (powers * noise).sum(axis=(1, 2))
    # the variance of such a sum of squares of noise, by how it is alike between pixels
    alike = fft.irfft2(powers / weight, (length, length)) * length**2
    lag = np.abs(fft.fftfreq(length, 1.0 / length))
    pairs = np.clip(side - lag, 0.0, None)
    parts = 0.5 * side**4 / (alike**2 * np.outer(pairs, pairs)).sum(axis=(1, 2))
    return Look(half, powers, left, parts)


def _uneven(rest: Float32Array, theta: FloatArray, look: Look) -> FloatArray:
    """lambda (N, 2) of (1) for objects (N, 4) in what is left of an image; NaN where too little of one is seen."""
    half, side = look.half, 2 * look.half + 1
    length, along_y, along_x, _ = _waves(side)
    seen = [
        np.lib.stride_tricks.sliding_window_view(np.pad(each, half), (side, side))
        for each in (rest, np.ones_like(rest))
    ]
    height, width = rest.shape
    row = np.clip(np.rint(theta[:, Y]).astype(int), 0, height - 1)
    column = np.clip(np.rint(theta[:, X]).astype(int), 0, width - 1)
    off_y, off_x = half + theta[:, Y] - row, half + theta[:, X] - column
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    terms = np.stack([np.ones_like(u), u, v]).reshape(3, -1)
    out = np.full((len(theta), 2), np.nan)
    step = max(1, AT_ONCE // length**2)
    for first in range(0, len(theta), step):
        some = slice(first, first + step)
        image, inside = (each[row[some], column[some]].astype(np.float64) for each in seen)
        inside = inside * inside[:, ::-1, ::-1]
        pixels = inside.sum(axis=(1, 2))
        flat, mask = (image * inside).reshape(len(image), -1), inside.reshape(len(image), -1)
        # each fit has a plane of background of its own
        matrix = np.einsum("ni,ai,bi->nab", mask, terms, terms) + 1e-9 * np.eye(3)
        plane = np.linalg.solve(matrix, np.einsum("ni,ai->na", flat, terms)[..., None])[..., 0]
        flat = flat - mask * (plane @ terms)
        spectrum = fft.rfft2(flat.reshape(image.shape), (length, length))
        centred = spectrum * np.exp(1j * along_y * off_y[some, None])[:, :, None]
        centred *= np.exp(1j * along_x * off_x[some, None])[:, None, :]
        power = 2 * centred.imag**2 / np.maximum(pixels, 1.0)[:, None, None]
        value = np.einsum("nij,aij->na", power, look.powers)
        out[some] = np.where((pixels >= FEWEST_PIXELS)[:, None], value, np.nan)
    return out


def _shared(places: FloatArray, mine: npt.NDArray[np.intp], side: int) -> FloatArray:
    """How many of the objects at `places` (N, 2) the squares of a side about `mine` of them hold, by their area."""
    pairs = cKDTree(places).query_pairs(side, p=math.inf, output_type="ndarray")
    part = np.clip(1.0 - np.abs(places[pairs[:, 0]] - places[pairs[:, 1]]) / side, 0.0, None).prod(axis=1)
    out = np.ones(len(places))
    for end in range(2):
        np.add.at(out, pairs[:, end], part)
    found: FloatArray = out[mine]
    return found


def _agreed(found: FloatArray, parts: FloatArray) -> FloatArray:
    """Variances (N,), each measured on so many independent `parts` (N,), drawn towards what they have in common."""
    half = 0.5 * parts
    logs = np.log(found) - digamma(half) + np.log(half)
    if len(found) < 2:
        return found
    common = float(logs.mean())
    beyond = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if beyond > 0.0:
        prior = _inverse_trigamma(beyond)
        centre = math.exp(common + float(digamma(prior)) - math.log(prior))
        out = (half * found + prior * centre) / (half + prior)
    else:  # they differ no more than by chance
        centre = math.exp(common)
        out = np.full(len(found), centre)
    alone = found > centre * gammaincinv(half, 1.0 - BY_CHANCE) / half
    return np.asarray(np.where(alone, np.maximum(found, out), out), np.float64)


def _inverse_trigamma(value: float) -> float:
    """By Newton's method as Smyth (2004), appendix, has it."""
    at = 0.5 + 1.0 / value
    for _ in range(NEWTON_STEPS):
        there = float(polygamma(1, at))
        step = there * (1.0 - there / value) / float(polygamma(2, at))
        at += step
        if -step < 1e-8 * at:
            break
    return at
