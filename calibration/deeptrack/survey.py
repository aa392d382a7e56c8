"""What the first images of a pipeline tell: its units, classes, the ranges of properties, contrast and noise."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.deeptrack.contrast import contrast_of, peaks_of
from calibration.deeptrack.errors import PipelineError
from calibration.deeptrack.labels import ANGLE, ENDINGS, Objects, Term, objects_of, unit_of
from calibration.deeptrack.light import is_brightfield
from calibration.deeptrack.loading import Loaded
from calibration.deeptrack.recording import Drawn, Recorder, Symmetry
from calibration.training.material import KNEE, LARGEST_PEAK
from engines.network.layout import MOST_KINDS
from engines.network.learnt import LearntProperty
from engines.network.model_card import Normalisation, Polarity
from engines.network.preparation import noise_of
from stream.particle_properties import check_names

FloatArray = npt.NDArray[np.float64]
IMAGES, FEWEST_IMAGES = 40, 10
"""Images that are drawn before a training, for ranges and units: ranges of 200 objects are known to 1 %. Of slow
pipelines fewer."""
PATIENCE_S = 20.0
"""Processor time for these images, and for those that a training begins with."""
SEED = 2**30
"""Of these images; those of a training have other seeds."""
SAME = 1e-9
"""Relative spread below which a property is the same in all objects."""
SAME_PIXEL = 0.02
SPARE = 0.02
"""Of a range that is added at both ends, as the images seen do not reach them."""
LEAST_DEPTH_UM = 1e-3
CLOCK_S = 1e-4
"""Least processor time of an image, where a clock is too coarse to tell."""
CROP_S = 0.01
"""Processor time of a training for a crop of 128 px, small network, s: drawing is to take about as long."""
CROPS, FIRST = (0, 8), (4, 6)
"""Exponents of two: an image for each crop to one for 256; 16 to 64 images to begin with."""
LARGEST_REACH_PX, PART_OF_PEAK = 32, 0.25
"""An object reaches as far as the rms contrast around it stays above this part of its largest."""
NOISE_OF_PEAK = 0.01
"""The noise counts as this part of the mean peak at least, for pipelines that draw none."""


@dataclass(frozen=True, slots=True)
class Units:
    """Units of a network for a pipeline, see `Material`; `sources` gives the class of each scatterer's objects.

    `terms` times `factors` are the values of `properties`, `shape` that of the images, `reach_px` how far an object
    is seen. Drawing an image took `draw_s` of processor time; one is drawn for every `every` crops, and
    `first` ones before. Images may be turned and mirrored as `symmetry` says.
    """

    pixel_size_um: float
    polarity: Polarity
    normalisation: Normalisation
    middle_um: float
    half_range_um: float
    depth: bool
    noise_contrast: float
    peak_contrast: float
    knee: float | None
    sources: tuple[int, ...]
    kind_names: tuple[str, ...]
    terms: tuple[Term, ...]
    factors: tuple[float, ...]
    properties: tuple[LearntProperty, ...]
    shape: tuple[int, int]
    reach_px: int
    draw_s: float
    every: int
    first: int
    symmetry: Symmetry

    @property
    def sign(self) -> float:
        """Of the objects' contrast."""
        return -1.0 if self.polarity == "dark" else 1.0

    @property
    def angles(self) -> list[bool]:
        """Which of the terms are angles."""
        return [each.period is not None for each in self.properties]


def survey(
    recorder: Recorder, learn: Sequence[str] = (), pixel_size_um: float | None = None, images: int = IMAGES
) -> Units:
    """Draw images and find the units. Raises `PipelineError` for what cannot be trained on."""
    loaded = recorder.loaded
    drawn, draw_s = _first_images(recorder, images)
    shape = drawn[0].image.shape
    for each in drawn:
        check_size(loaded, each.image.shape, shape)
    if all(math.isnan(each.pixel_size_um[0]) for each in drawn):
        raise PipelineError(
            f"{len(drawn)} images of {loaded.path} show nothing: their microscope was given no scatterer (only "
            "those of deeptrack 2.0 are read)"
        )
    terms = _terms(recorder, drawn, [Term.of(text) for text in learn])
    angles = [bool(_period(recorder, term)) for term in terms]
    objects = [objects_of(each, terms, angles) for each in drawn]
    inside = [_inside(each, shape) for each in objects]
    found = Objects(
        *(
            np.concatenate([part[i][chosen] for part, chosen in zip(objects, inside, strict=True)])
            for i in range(len(Objects._fields))
        )
    )
    if not found.x_px.size:
        raise PipelineError(
            f"none of the objects of {len(drawn)} images of {loaded.path} lies in its image; their "
            "position is (row, column) in pixels of output_region"
        )
    sources, kind_names = _kinds(recorder, found.source)
    low_um, high_um = float(found.z_um.min()), float(found.z_um.max())
    depth = high_um - low_um > LEAST_DEPTH_UM
    normalisation = _normalisation(recorder, drawn)
    plain = [contrast_of(each.image, normalisation, 1.0) for each in drawn]
    reach_px, sign = _reach(plain, objects, inside)
    peaks = np.concatenate(
        [
            peaks_of(contrast, each.x_px[chosen], each.y_px[chosen], reach_px)
            for contrast, each, chosen in zip(plain, objects, inside, strict=True)
        ]
    )
    peak = float(peaks.mean())
    noise = float(np.median([noise_of(contrast) for contrast in plain]))
    if not peak > 0:
        raise PipelineError(f"the images of {loaded.path} are the same everywhere: nothing to see")
    noise_contrast = 1.0 if normalisation == "noise" else max(noise, NOISE_OF_PEAK * peak)
    return Units(
        pixel_size_um=pixel_size_um or loaded.pixel_size_um or _pixel_size(loaded, drawn),
        polarity="dark" if sign < 0 else "bright",
        normalisation=normalisation,
        middle_um=0.5 * (low_um + high_um) if depth else 0.0,
        half_range_um=max(0.5 * (high_um - low_um) * (1 + SPARE), LEAST_DEPTH_UM) if depth else 1.0,
        depth=depth,
        noise_contrast=noise_contrast,
        peak_contrast=peak,
        knee=KNEE if float(np.quantile(peaks, 0.9)) > LARGEST_PEAK * noise_contrast else None,
        sources=sources,
        kind_names=kind_names,
        terms=tuple(terms),
        factors=tuple(unit_scale(_unit(recorder, term)) for term in terms),
        properties=tuple(
            _property(recorder, term, found.values[:, n], found.source, sources)
            for n, term in enumerate(terms)
        ),
        shape=(shape[0], shape[1]),
        reach_px=reach_px,
        draw_s=draw_s,
        every=2 ** _power_of_two(draw_s / CROP_S, CROPS),
        first=2 ** _power_of_two(PATIENCE_S / draw_s, FIRST),
        symmetry=Symmetry.NONE if any(angles) else recorder.symmetry,
    )


def _first_images(recorder: Recorder, most: int) -> tuple[list[Drawn], float]:
    """Images, and the processor time to draw one, s.

    There are `most`, or half as many, or ... for slow pipelines: in steps, so that another process of the training,
    or its continuation, finds the same ranges.
    """
    drawn, begun_s = [recorder.draw(SEED)], time.process_time()  # the first one also imports and compiles
    draw_s = CLOCK_S
    while len(drawn) < most:
        drawn.append(recorder.draw(SEED + len(drawn)))
        draw_s = max((time.process_time() - begun_s) / (len(drawn) - 1), CLOCK_S)
        if len(drawn) == FEWEST_IMAGES:
            while most > FEWEST_IMAGES and most * draw_s > PATIENCE_S:
                most //= 2
    return drawn, draw_s


def check_size(loaded: Loaded, shape: tuple[int, ...], first: tuple[int, ...]) -> None:
    """Raise `PipelineError` for an image that is not as large as the first."""
    if shape != first:
        raise PipelineError(
            f"the images of {loaded.path} differ in size ({first[1]} x {first[0]} and {shape[1]} x {shape[0]} px); "
            "give all the same output_region"
        )


def _power_of_two(number: float, ends: tuple[int, int]) -> int:
    """The exponent next to a number: in steps, so that computers much alike train alike from the same seed."""
    return int(np.clip(round(math.log2(number)), *ends))


def _inside(objects: Objects, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    height, width = shape
    x, y = objects.x_px, objects.y_px
    inside: npt.NDArray[np.bool_] = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    return inside


def _terms(recorder: Recorder, drawn: Sequence[Drawn], wanted: Sequence[Term]) -> list[Term]:
    """The terms to learn: of several numbers those that vary, all of them there and not the same everywhere."""
    seen = [each for one in drawn for each in one.seen]
    terms: list[Term] = []
    for term in wanted:
        numbers = [values for each in seen if (values := term.values_in(each.properties)).size]
        if not numbers:
            keys = {key for each in seen for key in each.properties if not key.startswith("_")}
            raise PipelineError(
                f"no object of {recorder.loaded.path} has a number {term.words!r}; there is "
                + ", ".join(sorted(keys))
            )
        size = min(len(values) for values in numbers)
        table = np.array([values[:size] for values in numbers])
        varying = np.flatnonzero(np.ptp(table, axis=0) > SAME * np.abs(table).max(axis=0))
        if not varying.size:
            raise PipelineError(
                f"{term.words} is {table.flat[0]:g} in all objects of {recorder.loaded.path}: nothing to learn; "
                "draw it at random"
            )
        same = (table[:, varying] == table[:, varying[:1]]).all()
        parts = varying[:1] if same else varying  # a sphere's radius may be given three times
        terms += [term if size == 1 or term.part is not None else term.with_part(int(n)) for n in parts]
    if len(set(terms)) < len(terms):
        raise PipelineError("--learn names a property twice")
    return terms


def _unit(recorder: Recorder, term: Term) -> str:
    """The unit of a term, by the first scatterer that has it."""
    owner = next((each for each in recorder.scatterers if term.key in each.properties), None)
    return "" if owner is None else unit_of(owner, term.key)


def _period(recorder: Recorder, term: Term) -> float | None:
    """The period of an angle in rad: that of the file, else half a turn; None for what is no angle."""
    periods = recorder.loaded.periods
    for key in (term.words, term.key):
        if key in periods:
            return periods[key]
    return math.pi if _unit(recorder, term) == ANGLE else None


def _property(
    recorder: Recorder, term: Term, values: FloatArray, source: npt.NDArray[np.int64], kinds: tuple[int, ...]
) -> LearntProperty:
    period = _period(recorder, term)
    name, scale = property_of(recorder, term)
    known = np.isfinite(values)
    low, high = scale * float(values[known].min()), scale * float(values[known].max())
    if period is not None:
        low, high = 0.0, period
    else:
        spare = SPARE * (high - low)
        low, high = low - spare, high + spare
    there = sorted({kinds[number] for number in source[known]})
    every = sorted(set(kinds) - {-1})
    try:
        check_names([name])
    except ValueError as error:
        raise PipelineError(str(error)) from error
    return LearntProperty(
        name=name, low=low, high=high, period=period,
        of_kinds=None if there == every else tuple(there),
    )  # fmt: skip


def property_of(recorder: Recorder, term: Term) -> tuple[str, float]:
    """The name of a term as a property, with its unit, and the factor from the pipeline's unit to that."""
    unit = _unit(recorder, term)
    name = re.sub(r"[^a-z0-9_]", "_", term.words.lower().replace("[", "_").replace("]", ""))
    is_angle = _period(recorder, term) is not None
    return (name + ENDINGS.get(ANGLE if is_angle else unit, ""))[:40], unit_scale(unit)


def unit_scale(unit: str) -> float:
    """What a number in DeepTrack's unit is to be multiplied by: lengths become um."""
    return 1e6 if unit == "meter" else 1.0


def _kinds(recorder: Recorder, source: npt.NDArray[np.int64]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The class of each scatterer's objects (-1: none seen), and the names of the classes."""
    there = sorted(set(source.tolist()))
    names = {number: recorder.name_of(recorder.scatterers[number]) for number in there if number >= 0}
    kinds = sorted(set(names.values()))
    if len(kinds) > MOST_KINDS:
        raise PipelineError(
            f"{recorder.loaded.path} has {len(kinds)} kinds of objects ({', '.join(kinds)}), a network tells "
            f"{MOST_KINDS} apart; give scatterers that belong together the same name="
        )
    of = tuple(kinds.index(names[n]) if n in names else -1 for n in range(len(recorder.scatterers)))
    return of, tuple(kinds)


def _normalisation(recorder: Recorder, drawn: Sequence[Drawn]) -> Normalisation:
    """Relative to the light where there is light and the pipeline keeps it, else relative to the noise."""
    given = recorder.loaded.normalise
    if given is not None:
        return "noise" if given == "noise" else "background"
    kept = not any(type(each).__name__.startswith("Normalize") for each in recorder.later)
    positive = all(float(np.median(each.image)) > 0 for each in drawn)
    return "background" if is_brightfield(recorder.microscopes) and kept and positive else "noise"


def _pixel_size(loaded: Loaded, drawn: Sequence[Drawn]) -> float:
    known = [size for each in drawn for size in each.pixel_size_um if np.isfinite(size)]
    sizes = np.array(known) * _zoom(drawn)
    typical = float(np.median(sizes))
    if not typical > 0 or np.abs(sizes / typical - 1).max() > SAME_PIXEL:
        raise PipelineError(
            f"the pixels of {loaded.path} are {sizes.min():g} to {sizes.max():g} um large; say what the "
            "camera's are: pixel_size_um = ... in the file, or --pixel-size"
        )
    return typical


def _zoom(drawn: Sequence[Drawn]) -> float:
    """How many pixels of the microscope one of the image is, as pooling and resizing change it."""
    coordinates = drawn[0].coordinates
    if coordinates is None:
        return 1.0
    down, across = np.diff(coordinates, axis=0)[:, :-1], np.diff(coordinates, axis=1)[:-1]
    areas = np.abs(down[..., 0] * across[..., 1] - down[..., 1] * across[..., 0])
    return float(np.sqrt(np.median(areas)))


def _reach(
    contrasts: Sequence[npt.NDArray[np.float32]], objects: Sequence[Objects], inside: Sequence[Any]
) -> tuple[int, float]:
    """How far objects are seen, px, and the sign of their contrast there."""
    side = 2 * LARGEST_REACH_PX + 1
    total, square, count = np.zeros((side, side)), np.zeros((side, side)), np.zeros((side, side))
    for contrast, each, chosen in zip(contrasts, objects, inside, strict=True):
        padded = np.pad(contrast.astype(np.float64), LARGEST_REACH_PX, constant_values=np.nan)
        for x, y in zip(np.rint(each.x_px[chosen]), np.rint(each.y_px[chosen]), strict=True):
            row, column = int(max(y, 0)), int(max(x, 0))
            part = padded[row : row + side, column : column + side]
            there = np.isfinite(part)
            total[there] += part[there]
            square[there] += part[there] ** 2
            count += there
    rows, columns = np.indices((side, side)) - LARGEST_REACH_PX
    radius = np.hypot(rows, columns).astype(int)
    used = (radius <= LARGEST_REACH_PX) & (count > 0)
    weight = np.bincount(radius[used], count[used], LARGEST_REACH_PX + 1)
    profile = np.sqrt(np.bincount(radius[used], square[used], LARGEST_REACH_PX + 1) / np.maximum(weight, 1))
    profile -= np.median(profile[LARGEST_REACH_PX // 2 :])
    top = int(np.argmax(profile[: LARGEST_REACH_PX // 2]))
    below = np.flatnonzero(
        profile[top:] <= PART_OF_PEAK * profile[top]
    )  # beyond, uneven light may be as strong
    reach = min(max(top + int(below[0]) - 1 if below.size else LARGEST_REACH_PX, 2), LARGEST_REACH_PX)
    near = used & (radius <= reach)
    return reach, math.copysign(1.0, float(total[near].sum()))
