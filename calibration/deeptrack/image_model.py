"""The PSF model of a pipeline's objects, for the fit after the network: from images that the pipeline draws.

An object's image may change with one number of it (its radius, its depth): the one with which images of other
objects are predicted best. That number takes the place of depth in the model (`engines.refine.quantity`). Where no
number does, or objects are of several kinds, there is no model and the network's answer is the result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from calibration.deeptrack.contrast import background_of, contrast_of
from calibration.deeptrack.errors import PipelineError
from calibration.deeptrack.fit_window import padded, window_of
from calibration.deeptrack.image_noise import Noise, noise_in
from calibration.deeptrack.image_regression import Cutouts, FloatArray, ImageSpline, symmetric
from calibration.deeptrack.labels import Objects, Term, objects_of
from calibration.deeptrack.light import dark_part, is_brightfield, light_multiplies
from calibration.deeptrack.loading import load_pipeline
from calibration.deeptrack.recording import Drawn, Recorder
from calibration.deeptrack.survey import Units, property_of
from calibration.quantity_model import CLEARLY, INNER_NODES, ROOM, SIZE, SIZES, model_over, values_of_nodes
from engines.network.preparation import noise_of
from engines.refine.cells import extents
from engines.refine.psf import FitModel
from engines.refine.quantity import DEPTH, Quantity

SEED = 3 << 28
"""Of these images; others have the survey and the training."""
MOST_IMAGES, MOST_S = 1000, 30.0
"""Images that are drawn, and processor time that it may take: slow pipelines draw fewer, most of them without
noise."""
PART_OF_TRAINING = 0.25
"""Of the duration that was asked for, which the drawing also may take; it matters below 2 minutes."""
NOISY_PART = 0.2
"""Part of the images that keep DeepTrack's noise features, which the others lack: they tell the noise."""
FEWEST = 40
"""Objects without which there is no model."""
MOST_WORK = 4e7
"""Objects times the cube of their images' side: 20 s of processor time. The best lit are taken: 300 of 51 px."""
TRIED = 160
"""Objects with which the number is chosen."""
HELD_OUT = 0.25
LARGEST_MISFIT = 0.1
"""Part of an object's image, rms, that the model may leave unexplained in objects that it has not seen. Objects
whose images change with a second number leave 0.2 and more."""
REACHES = 3.0
"""The model extends to so many times the distance at which an object is still plainly seen."""
LEAST_HALF_PX, LARGEST_HALF_PX = 8, 32
WIDER = 2
"""The fit's window may be so many times as large as the images that the model was made from."""
LEAST_NOISE_OF_PEAK = 3e-3
"""Noise that images count to have at least, over the mean peak: so none outweighs all others."""
WIDE_SD = 10.0
"""Relative spread of the brightness where images have no light as a unit of it."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageModel:
    """What was found: the `model`, None with the `reason`; the `misfit` that was measured, with how many
    `objects`."""

    model: FitModel | None
    reason: str
    misfit: float
    objects: int


def image_model(recorder: Recorder, units: Units, minutes: float = math.inf) -> ImageModel:
    """The model for a pipeline whose units are known; `minutes` are those in which the user wants a result.

    Raises what the pipeline raises.
    """
    if len(units.kind_names) != 1:
        return ImageModel(None, f"{len(units.kind_names)} kinds of objects", np.nan, 0)
    half = int(np.clip(REACHES * units.reach_px + 2, LEAST_HALF_PX, LARGEST_HALF_PX))
    half = min(half, (min(units.shape) - 1) // 2)
    drawn = _draw(recorder, min(MOST_S, 60 * PART_OF_TRAINING * minutes))
    terms = _varying([one for one, _ in drawn])
    cutouts, values, noisy = _cutouts(drawn, units, terms, half)
    count = len(cutouts.images)
    if count < FEWEST:
        return ImageModel(
            None, f"only {count} objects of {len(drawn)} images are alone and inside", np.nan, count
        )
    with_noise, their_values = cutouts.of(noisy), values[noisy]
    best_lit = np.argsort(-cutouts.weight.max(axis=(1, 2)), kind="stable")
    used = np.zeros(count, np.bool_)
    used[best_lit[: max(FEWEST, int(MOST_WORK / cutouts.images.shape[1] ** 3))]] = True
    cutouts, values, count = cutouts.of(used), values[used], int(used.sum())
    rng = np.random.default_rng(0)
    some = np.zeros(count, np.bool_)
    some[rng.permutation(count)[:TRIED]] = True
    misfits = [_misfit(cutouts.of(some), None)]
    misfits += [_misfit(cutouts.of(some), column[some]) for column in values.T]
    best = int(np.argmin(misfits))
    if best and misfits[best] > CLEARLY * misfits[0]:
        best = 0
    node_of = None if best == 0 else values[:, best - 1]
    misfit, is_symmetric = _checked(cutouts, node_of)
    if not misfit <= LARGEST_MISFIT:
        return ImageModel(
            None,
            f"the images of its objects change with more than one number: {100 * misfit:.0f} % of them are not "
            "explained by any",
            misfit,
            count,
        )
    spline = _spline(cutouts, node_of)
    lit = units.normalisation == "background"
    multiplies = lit and light_multiplies(spline, units.sign, is_brightfield(recorder.microscopes))
    if is_symmetric:
        spline.make_symmetric()
    quantity = _quantity(recorder, units, terms, best, node_of)
    noise = Noise(1.0, 0.0)
    if len(with_noise.images):
        ends = None if node_of is None else (float(node_of.min()), float(node_of.max()))
        test = ImageSpline(
            with_noise,
            *_nodes(None if best == 0 else their_values[:, best - 1], len(with_noise.images), ends),
        )
        test.fit_amplitudes(spline.coefficients)
        noise = noise_in(test, units.sign, lit)
    dark_grey = None
    if multiplies:
        dark_grey = dark_part(noise) * float(np.median([background_of(one.image) for one, _ in drawn]))
    apart_px = _apart_px([one for one, _ in drawn])
    model = _fit_model(units, spline, quantity, node_of is None, noise, dark_grey, apart_px)
    return ImageModel(model, "", misfit, count)


def _draw(recorder: Recorder, most_s: float) -> list[tuple[Drawn, bool]]:
    """Images, most of them without the noise of DeepTrack's own features, and whether they have it."""
    quiet = Recorder(load_pipeline(recorder.loaded.path, recorder.loaded.name))
    _without_noise(quiet)
    drawn: list[tuple[Drawn, bool]] = []
    begun_s = time.process_time()
    while not drawn or (len(drawn) < MOST_IMAGES and time.process_time() - begun_s < most_s):
        noisy = len(drawn) < NOISY_PART * MOST_IMAGES and len(drawn) % 5 == 0
        one = (recorder if noisy else quiet).draw(SEED + len(drawn))
        one.views.clear()
        drawn.append((one, noisy))
    return drawn


def _without_noise(recorder: Recorder) -> None:
    """Let DeepTrack's features of noise do nothing; what a user's own code adds stays."""
    from deeptrack.optical.noises import Background, Noise

    def nothing(inputs: list[Any], **_: Any) -> list[Any]:
        return inputs

    for each in recorder.later:
        if isinstance(each, Noise) and not isinstance(each, Background):
            each._process_and_get = nothing


def _varying(drawn: Sequence[Drawn]) -> list[Term]:
    """The numbers that are not the same in all objects, each once."""
    seen = [each for one in drawn for each in one.seen]
    terms: list[Term] = []
    columns: list[FloatArray] = []
    for key in sorted(
        {key for each in seen for key in each.properties if not key.startswith("_")} - {"position", "z"}
    ):
        numbers = [Term(key).values_in(each.properties) for each in seen]
        size = min((len(each) for each in numbers), default=0)
        for part in range(size):
            column = np.array([each[part] for each in numbers])
            spread = float(np.ptp(column))
            if not np.isfinite(spread) or not spread > 1e-9 * float(np.abs(column).max()):
                continue
            if any(_same(column, other) for other in columns):
                continue
            columns.append(column)
            terms.append(Term(key, None if size == 1 else part))
    return terms


def _same(one: FloatArray, other: FloatArray) -> bool:
    """Whether two columns (N,) say the same, but for a factor and an offset."""
    return abs(float(np.corrcoef(one, other)[0, 1])) > 1 - 1e-9


def _cutouts(
    drawn: Sequence[tuple[Drawn, bool]], units: Units, terms: Sequence[Term], half: int
) -> tuple[Cutouts, FloatArray, npt.NDArray[np.bool_]]:
    """Cut-outs of objects that are alone, their numbers (N, K): those of the terms, and z where it varies; and
    which (N,) have noise."""
    images, weights, offs, rows, noisy = [], [], [], [], []
    for one, has_noise in drawn:
        contrast = contrast_of(one.image, units.normalisation, units.sign).astype(np.float64)
        found = objects_of(one, terms)
        # an image without noise has a contrast of its own where contrasts are relative to the noise
        noise_floor = LEAST_NOISE_OF_PEAK * max(units.peak_contrast, float(np.abs(contrast).max()))
        noise = max(noise_of(contrast.astype(np.float32)), noise_floor)
        bordered = np.pad(contrast, half)
        there = np.pad(np.ones_like(contrast), half)
        for n in _alone(found, units, contrast.shape):
            column, row = int(np.rint(found.x_px[n])), int(np.rint(found.y_px[n]))
            part = slice(row, row + 2 * half + 1), slice(column, column + 2 * half + 1)
            images.append(bordered[part])
            weights.append(there[part] * _free(found, n, (row, column), half, units.reach_px) / noise**2)
            offs.append((found.x_px[n] - column, found.y_px[n] - row))
            own = [*found.values[n], *([found.z_um[n]] if units.depth else [])]
            rows.append(own)
            noisy.append(has_noise and noise > noise_floor)
    side = 2 * half + 1
    values = np.array(rows, np.float64).reshape(len(rows), len(terms) + int(units.depth))
    cutouts = Cutouts(
        np.array(images).reshape(-1, side, side),
        np.array(weights).reshape(-1, side, side),
        np.array(offs, np.float64).reshape(-1, 2),
    )
    return cutouts, values, np.array(noisy, np.bool_)


def _alone(found: Objects, units: Units, shape: tuple[int, ...]) -> list[int]:
    """Objects inside the image with no other within twice the distance at which one is plainly seen."""
    chosen = []
    for n, (x, y) in enumerate(zip(found.x_px, found.y_px, strict=True)):
        inside = -0.5 <= x < shape[1] - 0.5 and -0.5 <= y < shape[0] - 0.5
        away = np.hypot(found.x_px - x, found.y_px - y)
        away[n] = np.inf
        if inside and not (away < 2 * units.reach_px).any():
            chosen.append(n)
    return chosen


def _free(found: Objects, n: int, at: tuple[int, int], half: int, reach_px: int) -> FloatArray:
    """1 for the pixels (H, H) of a cut-out that are nearer to its own object than to the reach of another, else
    0."""
    rows, columns = np.mgrid[at[0] - half : at[0] + half + 1, at[1] - half : at[1] + half + 1]
    free = np.ones(rows.shape)
    for m, (x, y) in enumerate(zip(found.x_px, found.y_px, strict=True)):
        if m != n:
            free[np.hypot(columns - x, rows - y) < 2 * reach_px] = 0.0
    return free


def _nodes(
    values: FloatArray | None, count: int, ends: tuple[float, float] | None = None
) -> tuple[FloatArray, int]:
    """Coordinates (N,) of the numbers in nodes, and how many nodes there are; the `ends` of their range are theirs
    if not given."""
    if values is None:
        return np.full(count, 2.0), 5  # any place of a spline that is the same everywhere
    low, high = ends or (float(values.min()), float(values.max()))
    values = np.clip(values, low, high)
    return ROOM + (values - low) / (high - low) * (INNER_NODES - 1), INNER_NODES + 2 * ROOM


def _spline(cutouts: Cutouts, values: FloatArray | None) -> ImageSpline:
    spline = ImageSpline(cutouts, *_nodes(values, len(cutouts.images)))
    spline.solve()
    return spline


def _misfit(cutouts: Cutouts, values: FloatArray | None) -> float:
    """The part of the images, rms, that a model of some does not explain in others."""
    return min(_misfits(cutouts, values))


def _checked(cutouts: Cutouts, values: FloatArray | None) -> tuple[float, bool]:
    """The misfit, and whether objects look alike from all sides: what is symmetric predicts others no worse."""
    plain, alike = _misfits(cutouts, values)
    return min(plain, alike), alike <= plain


def _misfits(cutouts: Cutouts, values: FloatArray | None) -> tuple[float, float]:
    count = len(cutouts.images)
    tested = np.arange(count) % round(1 / HELD_OUT) == 0
    node, nodes = _nodes(values, count)
    trained = ImageSpline(cutouts.of(~tested), node[~tested], nodes)
    trained.solve()
    test = ImageSpline(cutouts.of(tested), node[tested], nodes)
    return _left(test, trained.coefficients), _left(test, symmetric(trained.coefficients))


def _left(test: ImageSpline, coefficients: FloatArray) -> float:
    """The part of an image, rms, that is left: the median of the better lit half of the images, all pixels counted.

    So a minority of images that are clipped does not count, and noise does not.
    """
    test.fit_amplitudes(coefficients)
    weight = test.cutouts.weight
    left = (weight * test.residual() ** 2).sum(axis=(1, 2)) - (weight > 0).sum(axis=(1, 2))
    power = (weight * (test.amplitude[:, None, None] * test.images()) ** 2).sum(axis=(1, 2))
    lit = power >= np.median(power)
    return float(np.sqrt(max(float(np.median(left[lit] / np.maximum(power[lit], 1e-300))), 0.0)))


def _quantity(
    recorder: Recorder, units: Units, terms: Sequence[Term], best: int, values: FloatArray | None
) -> Quantity:
    if values is None:
        return Quantity.over(SIZE, *SIZES)
    low, high = float(values.min()), float(values.max())
    if best > len(terms):
        return Quantity.over(DEPTH, low, high)
    try:
        name, factor = property_of(recorder, terms[best - 1])
    except ValueError as error:
        raise PipelineError(f"{terms[best - 1].words} of {recorder.loaded.path}: {error}") from error
    return Quantity.over(name, low * factor, high * factor)


def _apart_px(drawn: Sequence[Drawn]) -> float:
    """How far from each other neighbours are, px, by the median; infinite where objects are alone."""
    apart = []
    for one in drawn:
        found = objects_of(one, ())
        if found.x_px.size > 1:
            place = np.column_stack([found.x_px, found.y_px])
            apart += np.asarray(cKDTree(place).query(place, 2)[0])[:, 1].tolist()
    return float(np.median(apart)) if apart else np.inf


def _fit_model(
    units: Units,
    spline: ImageSpline,
    quantity: Quantity,
    resized: bool,
    noise: Noise,
    dark_grey: float | None,
    apart_px: float,
) -> FitModel:
    coefficients = _resized(spline.coefficients[2]) if resized else spline.coefficients
    light, _ = extents(coefficients.astype(np.float32))
    coefficients = padded(coefficients, min(WIDER * (coefficients.shape[1] // 2), LARGEST_HALF_PX))
    # a window in which there are others is no better for being larger
    window = np.maximum(light, np.minimum(window_of(coefficients, light), min(0.5 * apart_px, 1e6))).astype(
        int
    )
    lit = units.normalisation == "background"
    return model_over(
        quantity,
        coefficients,
        pixel_size_um=units.pixel_size_um,
        polarity=units.polarity,
        read=noise.read,
        shot=noise.shot,
        growth=noise.growth,
        dark_grey=dark_grey,
        extent_px=window,
        brightness_sd=float(np.std(spline.amplitude)) if lit else WIDE_SD,
    )


def _resized(plane: FloatArray) -> FloatArray:
    """Spline coefficients (J, H, H) of an object's image that is larger from node to node."""
    half = plane.shape[0] // 2
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    images = [
        ndimage.map_coordinates(plane, [v / s + half, u / s + half], order=3, mode="nearest", prefilter=False)
        for s in values_of_nodes(*SIZES)
    ]
    return np.asarray(ndimage.spline_filter(np.array(images), order=3, mode="mirror"), np.float64)
