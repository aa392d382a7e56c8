"""The image model of objects of which a few were seen: for matched filters and the fit, without training.

The examples are put in an order, each at a place s_i of one number. Between two neighbours the image of an object
is a blend of both, each first stretched to the size in between,

    f(u; s) = (1 - t) f_i(u l_i / l(s)) + t f_(i+1)(u l_(i+1) / l(s)),   t = (s - s_i) / (s_(i+1) - s_i)    (1)

with l the sizes along x and y. So neither a ring that grows nor one that turns from wide to high is blurred. The
number is the size itself, or the place in the shortest way from look to look: whichever of the two predicts
examples that are left out better. Where neither does, the model says only where objects are.

Where objects are alike after half a turn, so is the model, and what it does not explain does not move their places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.examples.objects import Example
from calibration.quantity_model import CLEARLY, SIZE, SIZES, model_over, values_of_nodes
from engines.network.model_card import Polarity
from engines.refine.misfit import Misfit
from engines.refine.psf import FitModel
from engines.refine.quantity import Quantity

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LOOK = "look"
"""The number where it is not the size: from 0 to 1 over the examples, as far as one differs from the next."""
LARGEST_MISFIT = 0.2
"""Part of an example's image, rms, that the others may leave unexplained for a fit: in simulated focus series a fit
is as exact as the objects' symmetry at 0.18, and half as exact at 0.26 (docs/one-shot.md)."""
GOOD = 0.1
"""Such a part, up to which the size is the number, as that goes on beyond the examples."""
ALIKE = 0.04
"""Difference of two examples in the number, over its range, up to which they are averaged: a third of a node."""
FEWEST = 3
"""Examples from which on they have an order, and of objects that are not round that show whether they turn."""
ROUND_PART = 0.05
"""Part of a round object's energy by which it may differ after a quarter of a turn, beside its noise."""
MOST_TRIED = 8
"""Examples up to which all orders are tried; of more, a way is made by always going to the nearest."""
TRIED = 33
"""Values of the number at which an example that was left out is looked for."""
BRIGHTNESS_SD = 0.25
"""Relative spread of the brightness of objects that look alike, which a few examples do not show."""
SPARE_PX = 3
"""px around the largest image, which a spline needs."""


class Way(NamedTuple):
    """Images (M, P, P) of peak 1 in order, with the `noise` (M,) variance of a pixel, and their places `at` (M,) on
    the number, and `size` (M, 2): the logarithm of their sizes along y and x.

    `by_size`: the number is the size, over the mean one, which goes on beyond the examples.
    """

    images: FloatArray
    noise: FloatArray
    at: FloatArray
    size: FloatArray
    by_size: bool

    @property
    def ends(self) -> tuple[float, float]:
        """The range of the number."""
        return (SIZES[0] * float(self.at[0]), SIZES[1] * float(self.at[-1])) if self.by_size else (0.0, 1.0)

    def of(self, which: IntArray) -> Way:
        """Some of them."""
        return Way(self.images[which], self.noise[which], self.at[which], self.size[which], self.by_size)

    def merged(self) -> Way:
        """The same with the mean of those that are next to each other."""
        low, high = self.ends
        groups: list[list[int]] = []
        for n, at in enumerate(self.at):
            if groups and at - self.at[groups[-1][0]] <= ALIKE * (high - low):
                groups[-1].append(n)
            else:
                groups.append([n])
        images = []
        for group in groups:
            size = self.size[group].mean(axis=0)
            splines = [ndimage.spline_filter(self.images[n], order=3, mode="mirror") for n in group]
            ratios = np.exp(size - self.size[group])
            images.append(np.mean([_stretched(*each) for each in zip(splines, ratios, strict=True)], axis=0))
        noise, at, sizes = (
            np.array([column[group].mean(axis=0) for group in groups])
            for column in (self.noise, self.at, self.size)
        )
        return Way(np.array(images), noise, at, sizes, self.by_size)

    def shown(self, numbers: FloatArray) -> FloatArray:
        """Images (K, P, P) at numbers (K,), by (1)."""
        last = len(self.at) - 1
        place = np.interp(numbers, self.at, np.arange(last + 1))
        splines = [ndimage.spline_filter(image, order=3, mode="mirror") for image in self.images]
        found = np.zeros((len(numbers), *self.images.shape[1:]))
        for k, size in enumerate(self._sizes(numbers)):
            first = min(int(place[k]), max(last - 1, 0))
            part = place[k] - first
            for knot, share in ((first, 1 - part), (first + 1, part)):
                if share > 0:
                    found[k] += share * _stretched(splines[knot], np.exp(size - self.size[knot]))
        return found

    def _sizes(self, numbers: FloatArray) -> FloatArray:
        if self.by_size:
            return np.repeat(np.log(np.maximum(numbers, 0.5 * self.at[0]))[:, None], 2, axis=1)
        return np.stack([np.interp(numbers, self.at, self.size[:, axis]) for axis in range(2)], axis=1)


class LeftOut(NamedTuple):
    """The part of the images, rms, that the others do not explain, and how far it moves them: variances of x and y
    (2,), px^2.
    """

    part: float
    moved_px2: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ExamplesModel:
    """The `model` of examples, and in `words` what their images change with; None with the reason.

    `misfit` is the part of an example's image, rms, that the model of the others does not explain, NaN for one.
    Where that is too much for a fit the model `is_rough`: it says where objects are, and their symmetry measures
    them.
    """

    model: FitModel | None
    words: str
    misfit: float
    is_rough: bool = False


def model_of(examples: Sequence[Example], pixel_size_um: float) -> ExamplesModel:
    """The image model of a few examples, where they have one."""
    if len(examples) < FEWEST and not all(map(_is_round, examples)):
        return ExamplesModel(
            None, "objects that are not round are modelled from three examples or more", math.nan
        )
    ways = [_by_size(examples)]
    if len(examples) >= FEWEST:
        ways.append(_by_look(examples))
    left_out = [_left_out(way) for way, _ in ways]
    best = (
        int(left_out[0].part > GOOD and left_out[1].part < CLEARLY * left_out[0].part) if len(ways) > 1 else 0
    )
    (way, order), misfit = ways[best], left_out[best].part
    unexplained = f"{100 * misfit:.0f} % of an example that is left out is not explained by the others"
    is_rough = misfit > LARGEST_MISFIT
    if is_rough:
        if any(each.symmetry == "none" for each in examples):
            return ExamplesModel(None, f"{unexplained}, nor are they alike after half a turn", misfit)
        way, order = _by_look(examples)
    peaks = np.array([abs(each.peak) for each in examples])
    numbers = values_of_nodes(*way.ends)
    images = (way if is_rough else way.merged()).shown(numbers)
    images /= np.array([_peak(image) for image in images])[:, None, None]
    if is_rough:  # how bright each look is tells objects from what is left beside them
        images *= np.exp(np.interp(numbers, way.at, np.log(peaks[order])))[:, None, None]
    else:
        images *= float(peaks.mean())
    polarity: Polarity = "bright" if sum(each.peak for each in examples) > 0 else "dark"
    model = model_over(
        Quantity.over(SIZE if way.by_size else LOOK, *way.ends),
        np.asarray(ndimage.spline_filter(images, order=3, mode="mirror")),
        pixel_size_um=pixel_size_um,
        polarity=polarity,
        read=1.0,
        shot=0.0,
        brightness_sd=float(np.hypot(peaks.std() / peaks.mean(), BRIGHTNESS_SD)),
        misfit=_misfit(images, left_out[best], pixel_size_um),
    )
    if is_rough:
        words = f"{unexplained}: too much for a fit; what is roughly like one is measured by its symmetry"
        return ExamplesModel(model, words, misfit, is_rough=True)
    if way.by_size:
        words = f"images change with their size, {way.ends[0]:.2f} to {way.ends[1]:.2f} times the mean one"
    else:
        words = f"images change from look to look, in the order of examples {', '.join(str(n + 1) for n in order)}"
    if np.isfinite(misfit):
        words += f"; {unexplained}"
    return ExamplesModel(model, words, misfit)


def _is_round(example: Example) -> bool:
    image, noise = example.image, example.noise_variance * example.noise_part
    differs = float(((image - np.rot90(image)) ** 2).sum()) - 2 * noise * float((image != 0).sum())
    return differs <= ROUND_PART * float((image**2).sum())


def _by_size(examples: Sequence[Example]) -> tuple[Way, IntArray]:
    size = np.array([each.radius_px for each in examples])
    order = np.argsort(size, kind="stable")
    at = size / size.mean()
    way = _way(
        examples, float((SIZES[1] * at.max() / at).max()), at, np.repeat(np.log(at)[:, None], 2, axis=1)
    )
    return way.of(order)._replace(by_size=True), order


def _by_look(examples: Sequence[Example]) -> tuple[Way, IntArray]:
    count = len(examples)
    way = _way(examples, 1.0, np.zeros(count), np.zeros((count, 2)))
    flat = way.images.reshape(count, -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    order = _shortest(apart)
    steps = apart[order[:-1], order[1:]]
    at = np.append(0.0, np.cumsum(steps)) / max(float(steps.sum()), 1e-12)
    size = np.array([_size(image) for image in way.images[order]])
    return way.of(order)._replace(at=at, size=size), order


def _way(examples: Sequence[Example], larger: float, at: FloatArray, size: FloatArray) -> Way:
    """The examples as they are given, in the middle of images that hold the largest one this many times larger."""
    sign = 1.0 if sum(each.peak for each in examples) > 0 else -1.0
    half = math.ceil(larger * max(each.image.shape[0] // 2 for each in examples)) + SPARE_PX
    images = np.array([np.pad(sign * each.image, half - each.image.shape[0] // 2) for each in examples])
    peaks = np.array([_peak(image) for image in images])
    noise = np.array([each.noise_variance * each.noise_part for each in examples])
    return Way(images / peaks[:, None, None], noise / peaks**2, at, size, by_size=False)


def _shortest(apart: FloatArray) -> IntArray:
    """The order (M,) of the shortest way to all of some things that are so far (M, M) apart."""
    count = len(apart)
    if count <= MOST_TRIED:
        orders = np.array([order for order in permutations(range(count)) if order[0] < order[-1]])
    else:
        orders = np.array([_nearest_first(apart, start) for start in range(count)])
    lengths = apart[orders[:, :-1], orders[:, 1:]].sum(axis=1)
    found: IntArray = orders[lengths.argmin()]
    return found


def _nearest_first(apart: FloatArray, start: int) -> list[int]:
    way = [start]
    while len(way) < len(apart):
        away = apart[way[-1]].copy()
        away[way] = np.inf
        way.append(int(away.argmin()))
    return way


def _peak(image: FloatArray) -> float:
    """The largest contrast of a mean of 3 x 3 pixels."""
    return max(float(np.abs(ndimage.uniform_filter(image, 3)).max()), 1e-12)


def _size(image: FloatArray) -> FloatArray:
    """The logarithm of an image's root mean square size along y and x."""
    weight = np.abs(image)
    axes = np.indices(image.shape) - image.shape[0] // 2
    found: FloatArray = 0.5 * np.log((weight * axes**2).sum(axis=(1, 2)) / weight.sum())
    return found


def _stretched(spline: FloatArray, factors: FloatArray) -> FloatArray:
    """The image (P, P) of a cubic spline's coefficients, larger by factors along y and x about its middle."""
    half = spline.shape[0] // 2
    found: FloatArray = ndimage.affine_transform(
        spline, 1.0 / factors, offset=half - half / factors, order=3, mode="constant", prefilter=False
    )
    return found


def _left_out(way: Way) -> LeftOut:
    """What the others say of each example; NaN for a single one.

    Of three and more only those between others are left out, as the model does not go beyond the outer ones.
    """
    count = len(way.at)
    left, moved = [], []
    for n in range(1, count - 1) if count >= FEWEST else range(count if count > 1 else 0):
        others = way.of(np.delete(np.arange(count), n)).merged()
        low, high = others.ends
        shown = others.shown(np.linspace(min(low, way.at[n]), max(high, way.at[n]), TRIED))
        image = way.images[n]
        power, alike = (shown**2).sum(axis=(1, 2)), (shown * image).sum(axis=(1, 2))
        best = int((alike**2 / power).argmax())
        rest = image - alike[best] / power[best] * shown[best]
        whole = float((image**2).sum())
        noise = way.noise[n] * float((image != 0).sum())
        left.append(max(float((rest**2).sum()) - noise, 0.0) / whole)
        slopes = np.array(np.gradient(shown[best])) * alike[best] / power[best]
        moved.append((slopes * rest).sum(axis=(1, 2)) / (slopes**2).sum(axis=(1, 2)))
    if not left:
        return LeftOut(math.nan, np.zeros(2))
    return LeftOut(math.sqrt(float(np.mean(left))), np.mean(np.square(moved), axis=0)[::-1])


def _misfit(images: FloatArray, found: LeftOut, pixel_size_um: float) -> Misfit:
    """What the model does not explain, everywhere and over its whole range, where its `images` (J, P, P) are."""
    place = np.append(found.moved_px2 * pixel_size_um**2, 0.0)
    power = np.nan_to_num(found.part) ** 2 * float((images**2).mean())
    return Misfit((1, 1), np.zeros(1), place.reshape(1, 1, 1, 3), np.full((1, 1, 1), power))
