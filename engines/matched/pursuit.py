"""Objects whose images are only roughly known, each found by a template and measured by its own symmetry.

Templates answer wherever something is roughly like them. What answers most, and is most alike within the
template's outline, is taken first: its centre is where it is most like itself after half a turn, so that the
template's shape does not move it, and what is alike on both sides is taken off the image, so that no other
template answers to it. This is matching pursuit (Mallat & Zhang 1993, IEEE Trans. Signal Process. 41, 3397) in
which an object, once it is found, is its own template. What is left of it, as no object is quite symmetric and no
outline quite right, counts as noise for all that comes after. Then each is measured again without the others
until none moves, and the templates answer to what is left.
"""

from __future__ import annotations

import heapq
import math
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

from engines.classical.spots import false_alarm_threshold
from engines.matched.filters import Candidates, levelled
from engines.matched.symmetry import centre_of, turned
from engines.matched.templates import Template, product_of, templates_of
from engines.refine.arguments import Float32Array, FloatArray
from engines.refine.psf import FitModel

LEAST_BRIGHTNESS = 0.25
"""Over that of the example that an object looks like. What is left beside objects answers as faint ones below 0.12
in simulated focus series; 0.15 and 0.4 find the same."""
LEAST_SYMMETRY, LEAST_LIKENESS = 0.5, 0.5
"""Part of the variance under the outline that is alike after half a turn, and correlation with the template that is
most alike: an object has 0.9, half an object beside a brighter one that was taken off has less."""
LEFT_PART = 0.1
"""Of the contrast of an object that was taken off: what may be left of it, as a standard deviation."""
DROPPED = 0.9
"""Of an answer: if less is left of it since others were taken off, it waits for its turn again."""
SWEEPS, MOVED_PX = 4, 0.02
"""How often all are measured without the others at most, and px that one may move by without those that it overlaps
being measured again: less than a centre is known to."""
BESIDE = [step for step in product((-1, 0, 1), repeat=2) if any(step)]
"""Rows and columns to the pixels around one."""
PASSES = 2
"""How often all templates answer to the image: the second time to what brighter ones had hidden."""
SMOOTHING_PX = 1.0
"""Gaussian under which a centre is looked for: the noise times its own mirror image is then a tenth."""
CENTRE_ROUNDS, CLOSE_PX = 5, 0.01
LARGEST_MOVE, LARGEST_MOVE_PX = 0.35, 2.0
"""From the template's place to the centre: of half its side, and px that are always allowed."""
FIRST_WITHIN, WITHIN_PX = 0.2, 1.0
"""From where a centre is looked for at first, of half the template's side, and then, px."""
AGREE_SDS = 3.0
"""Difference of two pixels, in standard deviations of their noise, up to which their mean stands for both."""
PARTNER_SDS, PARTNER_PART, PEAK_PART = 5.0, 0.15, 0.05
"""Difference of two partners, in standard deviations of their noise, over the fainter and over the object's peak,
beyond which something else adds to one of them."""
SMOOTHED = 1 / (2 * math.sqrt(math.pi) * SMOOTHING_PX)
"""What smoothing leaves of the standard deviation of a pixel's noise."""


class _Square(NamedTuple):
    """The square around the pixel next to a centre: the centre's offset from it, and where it is in the square."""

    row: int
    column: int
    offset: tuple[float, float]
    middle: tuple[float, float]

    @classmethod
    def about(cls, at: tuple[float, float], half: int) -> _Square:
        """That of a centre (y, x) in an image, with so many pixels on each side."""
        row, column = round(at[0]), round(at[1])
        offset = at[0] - row, at[1] - column
        return cls(row, column, offset, (half + offset[0], half + offset[1]))


class _Placed(NamedTuple):
    """An object at its centre (y, x): its `own` image (P, P), with the part of the variance that is alike on both
    sides, the correlation with the template most alike, and standard errors of the centre."""

    centre: tuple[float, float]
    square: _Square
    own: FloatArray
    symmetry: float
    likeness: float
    sigma: tuple[float, float]


class _Seen(NamedTuple):
    template: Template
    strength: float
    brightness: float
    placed: _Placed


class _Rest:
    """What is left of a contrast (H, W), with the variance of its pixels; beyond its edge nothing is known."""

    def __init__(self, image: FloatArray, noise: float, pad: int) -> None:
        self.shape, self._pad = image.shape, pad
        self.image = np.pad(image, pad)
        self.variance = np.full(self.image.shape, noise**2)
        self.known = np.pad(np.ones_like(image), pad)

    def part(self, whole: FloatArray, half: int, row: int, column: int) -> FloatArray:
        """The square (2 half + 1)^2 around a pixel of one of the images above; a view."""
        row, column = row + self._pad, column + self._pad
        return whole[row - half : row + half + 1, column - half : column + half + 1]

    def smoothed(self, half: int, row: int, column: int) -> FloatArray:
        """The image's square around a pixel, smoothed."""
        spare = math.ceil(4 * SMOOTHING_PX)
        wide = ndimage.gaussian_filter(self.part(self.image, half + spare, row, column), SMOOTHING_PX)
        return wide[spare:-spare, spare:-spare]

    def both_known(self, half: int, square: _Square) -> FloatArray:
        """1 where a pixel and its partner on the other side of the centre are in the image, else 0."""
        known = self.part(self.known, half, square.row, square.column)
        return np.where(known * turned(known, square.middle) > 0.99, 1.0, 0.0)

    def put(self, placed: _Placed, sign: float) -> None:
        """Add an object to the image, or take it off."""
        where = placed.own.shape[0] // 2, placed.square.row, placed.square.column
        self.part(self.image, *where)[...] += sign * placed.own
        self.part(self.variance, *where)[...] -= sign * (LEFT_PART * placed.own) ** 2


class Pursuit:
    """Finds the objects of a model in images of one shape (H, W); threads may share it."""

    def __init__(self, model: FitModel, shape: tuple[int, int], threshold: float | None = None) -> None:
        self._model, self._shape = model, shape
        self._templates = templates_of(model)
        self._pad = max(each.half for each in self._templates) + math.ceil(4 * SMOOTHING_PX)
        sizes = [fft.next_fast_len(side + 3 * self._pad, real=True) for side in shape]
        self._size = (sizes[0], sizes[1])
        self._spectra = [
            np.conj(fft.rfft2(each.flat.astype(np.float32), self._size)) for each in self._templates
        ]
        area = math.prod(shape)
        self.threshold = threshold or false_alarm_threshold(
            sum(area / each.area_px for each in self._templates)
        )

    def find(self, contrast: Float32Array, variance: tuple[float, float]) -> Candidates:
        """The objects in a contrast (H, W) whose pixels have this variance, (read, shot), at the median's light."""
        noise = math.sqrt(sum(variance))
        image = levelled(contrast, self._model, variance, np.empty(self._shape, np.float32))
        rest = _Rest(image.astype(np.float64), noise, self._pad)
        seen: list[_Seen] = []
        for _ in range(PASSES):
            more = self._taken(rest, noise)
            if not more:
                break
            seen = self._settled(rest, sorted(seen + more, key=lambda each: -each.strength))
        columns = [
            (
                *each.placed.centre[::-1],
                *each.placed.sigma[::-1],
                each.template.depth_um,
                each.strength,
                each.brightness * each.template.peak,
            )
            for each in seen
        ]
        return Candidates(*np.array(columns, np.float64).reshape(-1, len(Candidates._fields)).T)

    def _settled(self, rest: _Rest, seen: list[_Seen]) -> list[_Seen]:
        """The same objects, each measured without the others until none moves; less those that are none then."""
        half = np.array([each.template.half for each in seen])
        there = np.ones(len(seen), np.bool_)
        moved = there
        for _ in range(SWEEPS):
            at = np.array([each.placed.centre for each in seen])
            overlap = np.abs(at[:, None] - at).max(axis=2) <= half[:, None] + half
            again = there & overlap[:, moved].any(axis=1)
            moved = np.zeros_like(there)
            for n in np.flatnonzero(again):
                before = seen[n].placed
                rest.put(before, 1.0)
                placed = self._placed(rest, before.centre, seen[n].template, WITHIN_PX) or before
                there[n] = _is_object(placed)
                moved[n] = not there[n] or math.dist(placed.centre, before.centre) > MOVED_PX
                seen[n] = seen[n]._replace(placed=placed)
                if there[n]:
                    rest.put(placed, -1.0)
        return [each for each, is_there in zip(seen, there, strict=True) if is_there]

    def _peaks(self, rest: _Rest, least: list[float]) -> list[tuple[float, int, int, int]]:
        """Where each template answers most, at `least` so much: the answer less than 0, row, column, template."""
        spectrum = fft.rfft2(rest.image.astype(np.float32), self._size)
        height, width = self._shape
        found = []
        for k, (each, own) in enumerate(zip(self._templates, self._spectra, strict=True)):
            first = self._pad - each.half
            answer = fft.irfft2(spectrum * own, self._size)[first : first + height, first : first + width]
            rows, columns = np.nonzero(answer > least[k])
            mine = answer[rows, columns]
            beside = [
                (np.clip(rows + dy, 0, height - 1), np.clip(columns + dx, 0, width - 1)) for dy, dx in BESIDE
            ]
            top = np.all([mine >= answer[each] for each in beside], axis=0)
            places = rows[top].tolist(), columns[top].tolist()
            found += [(-value, *place, k) for value, *place in zip(mine[top].tolist(), *places, strict=True)]
        return found

    def _taken(self, rest: _Rest, noise: float) -> list[_Seen]:
        """The objects that are found in what is left, and taken off it."""
        least = [max(self.threshold * noise, LEAST_BRIGHTNESS * each.answer) for each in self._templates]
        waiting = self._peaks(rest, least)
        heapq.heapify(waiting)
        seen: list[_Seen] = []
        while waiting:
            before, row, column, k = heapq.heappop(waiting)
            template = self._templates[k]
            part, variance = (
                rest.part(whole, template.half, row, column) for whole in (rest.image, rest.variance)
            )
            now = float((template.flat * part).sum())
            if now <= least[k]:
                continue
            # what is beside the template's image within its outline speaks against it
            whole = float((template.window * (part**2 - variance)).sum())
            score = now * min(1.0, now / math.sqrt(max(whole, 1e-12)))
            if score < DROPPED * -before:
                heapq.heappush(waiting, (-score, row, column, k))
                continue
            strength = now / math.sqrt(float((template.flat**2 * variance).sum()))
            if strength < self.threshold:
                continue
            within = max(WITHIN_PX, FIRST_WITHIN * template.half)
            placed = self._placed(rest, (float(row), float(column)), template, within)
            if placed is None or not _is_object(placed):
                continue
            seen.append(_Seen(template, strength, now / template.answer, placed))
            rest.put(placed, -1.0)
        return seen

    def _placed(
        self, rest: _Rest, start: tuple[float, float], template: Template, within_px: float
    ) -> _Placed | None:
        """The object about a place (y, x) at its centre; None where there is no centre near it."""
        half, at = template.half, start
        for turn in range(CENTRE_ROUNDS):
            square = _Square.about(at, half)
            smooth, weight = rest.smoothed(half, square.row, square.column), _weight(rest, square, template)
            if turn:
                weight = weight * _partners(rest, smooth, weight, square, half)
            y, x = centre_of(smooth * weight, square.middle, WITHIN_PX if turn else within_px)
            moved = math.dist((y, x), square.middle)
            at = y + square.row - half, x + square.column - half
            inside = all(-0.5 <= place <= side - 0.5 for place, side in zip(at, rest.shape, strict=True))
            if not inside or math.dist(at, start) > max(LARGEST_MOVE_PX, LARGEST_MOVE * half):
                return None
            if turn > 1 and moved < CLOSE_PX:
                break
        return self._own(rest, at, template)

    def _own(self, rest: _Rest, at: tuple[float, float], template: Template) -> _Placed:
        """What is alike on both sides of a centre, and how sure that makes the centre."""
        half, square = template.half, _Square.about(at, template.half)
        image, variance, known = (
            rest.part(whole, half, square.row, square.column)
            for whole in (rest.image, rest.variance, rest.known)
        )
        window = ndimage.shift(template.window, square.offset, order=1)
        other, both = turned(image, square.middle), rest.both_known(half, square)
        fainter = np.where(np.abs(image) < np.abs(other), image, other)
        limit = AGREE_SDS * np.sqrt(2 * variance) + PARTNER_PART * np.maximum(np.abs(image), np.abs(other))
        alike = np.where(
            np.abs(image - other) <= limit, 0.5 * (image + other), np.where(image * other > 0, fainter, 0.0)
        )
        # beyond the edge of the image there is no partner
        own = window * np.where(both > 0, alike, image * known)
        sure = window * both
        energy = float((sure * (image**2 - variance)).sum())
        symmetry = float((sure * image * other).sum()) / max(energy, 1e-12)
        centred = ndimage.shift(own, (-square.offset[0], -square.offset[1]), order=1)
        power = float((own**2).sum() - 0.5 * (variance * window**2).sum())
        alikes = [product_of(centred, each.image) for each in self._templates]
        return _Placed(
            at,
            square,
            own,
            symmetry,
            max(alikes) / math.sqrt(max(power, 1e-12)),
            _sigma(own, image - other, sure),
        )


def _is_object(placed: _Placed) -> bool:
    return placed.symmetry >= LEAST_SYMMETRY and placed.likeness >= LEAST_LIKENESS


def _sigma(own: FloatArray, uneven: FloatArray, sure: FloatArray) -> tuple[float, float]:
    """Standard errors of a centre (y, x), from what is `uneven` (P, P) between the two sides of it.

    That moves the centre by half the sum of its products with the slopes of the object's `own` image over the sum
    of their squares; partners have the same product. So noise of any kind counts, and what others leave.
    """
    errors = []
    for slope in np.gradient(ndimage.gaussian_filter(own, SMOOTHING_PX)):
        spread = 0.5 * float((sure * (slope * uneven) ** 2).sum())
        errors.append(math.sqrt(spread) / max(float((sure * slope**2).sum()), 1e-12))
    return errors[0], errors[1]


def _weight(rest: _Rest, square: _Square, template: Template) -> FloatArray:
    """The window (P, P) about a centre, less where others were taken off or the image ends; symmetric."""
    variance = rest.part(rest.variance, template.half, square.row, square.column)
    sure = np.sqrt(variance.min() / variance)
    window = ndimage.shift(template.window, square.offset, order=1)
    found: FloatArray = window * np.minimum(sure, turned(sure, square.middle))
    return found * rest.both_known(template.half, square)


def _partners(rest: _Rest, smooth: FloatArray, weight: FloatArray, square: _Square, half: int) -> FloatArray:
    """1 where a smoothed pixel (P, P) and its partner agree, 0 where something else adds to one of them."""
    other = turned(smooth, square.middle)
    noise = PARTNER_SDS * SMOOTHED * np.sqrt(2 * rest.part(rest.variance, half, square.row, square.column))
    fainter = np.minimum(np.abs(smooth), np.abs(other))
    least = PARTNER_PART * fainter + PEAK_PART * float((np.abs(smooth) * weight).max())
    return np.where(np.abs(smooth - other) <= noise + least, 1.0, 0.0)
