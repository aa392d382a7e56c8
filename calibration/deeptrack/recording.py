"""Draws images with a DeepTrack pipeline and notes what its microscopes saw.

DeepTrack 2 gives the image as a plain array, without what is in it. Notes are taken at three places instead: each
scatterer says which feature it is of, each microscope what it images and at which scale, and each feature after the
microscope how it moves pixels (`following`). The features themselves work as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

import numpy as np

from calibration.deeptrack.errors import PipelineError, running
from calibration.deeptrack.following import FloatArray, array_of, moved, own_coordinates, random_state
from calibration.deeptrack.loading import Loaded, microscopes_of
from calibration.deeptrack.sight import Scale

SOURCE = "liveptv_source"
"""Among the properties of what a scatterer gives: the number of its feature."""
BENT = 1e-6
"""Part of the light that may be out of phase before it counts as changed in phase; of rounding it is 1e-16."""
UNKNOWN_PIXELS = (math.nan, math.nan)
"""Pixel size in an image without objects: the microscope says it only with what it is given."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A scatterer as a microscope saw it: its feature's number, its properties, and its place.

    `place_px` (2,) is the row and column in the microscope's image, `z_um` its depth.
    """

    source: int
    properties: Mapping[str, Any]
    place_px: FloatArray
    z_um: float


@dataclass(slots=True, eq=False)
class Drawn:
    """An image (H, W), float64, what was seen, and the microscope's pixel size.

    `coordinates` (H, W, 2) say where in the microscope's image each pixel comes from, None: from the same place.
    `views` are the microscopes' images before everything else, from which the rest can be drawn anew.
    """

    image: FloatArray
    seen: list[Seen]
    pixel_size_um: tuple[float, float]
    coordinates: FloatArray | None = None
    views: list[Any] = field(default_factory=list)


class Symmetry(Enum):
    """How images may be turned and mirrored without becoming others than the optics would make."""

    NONE, MIRRORS, ALL = range(3)


class Recorder:
    """A pipeline with notes; not for several threads at once, as DeepTrack draws with global random numbers.

    `later` are the features after the microscopes. They can be drawn anew (`draw_again`) if the pipeline
    `is_separable`: none of their properties depends on what the microscopes saw.
    """

    def __init__(self, loaded: Loaded) -> None:
        from deeptrack.optical.scatterers import Scatterer

        self.loaded = loaded
        pipeline = loaded.feature
        self.microscopes = sorted(microscopes_of(pipeline), key=lambda each: str(each.node_name))
        self.scatterers = [
            node
            for microscope in self.microscopes
            for node in microscope.recurse_dependencies()
            if isinstance(node, Scatterer)
        ]
        self.scatterers = list({id(each): each for each in self.scatterers}.values())
        self.scatterers.sort(key=lambda each: (self.name_of(each), str(type(each))))
        self._seen: dict[tuple[Any, ...], Seen] = {}
        self._pixels: list[tuple[float, float]] = []
        self._coordinates: dict[int, tuple[Any, FloatArray | None]] = {}
        self._views: dict[int, Any] = {}
        self._scales: dict[int, Scale] = {}
        self._bent = False
        for number, scatterer in enumerate(self.scatterers):
            self._tag(scatterer, number)
        for number, microscope in enumerate(self.microscopes):
            self._note(microscope, number)
            if _is_given(microscope._objective, "illumination"):
                self._note_light(microscope._objective.illumination)
        before = {id(node) for each in self.microscopes for node in each.recurse_dependencies()}
        self.later = self._after_microscopes(before)
        self.is_separable = not any(self._depends_on(each.properties, before) for each in self.later)
        for each in self.later:
            self._watch(each)

    def name_of(self, feature: Any) -> str:
        """What a feature is called: its own name, the variable that holds it, or its class."""
        named = str(feature.node_name)
        if named != type(feature).__name__:
            return named
        return self.loaded.names.get(id(feature), named)

    def draw(self, seed: int) -> Drawn:
        """Draw a new image; the same one for the same seed. Raises `PipelineError` where the pipeline fails."""
        self._seen, self._pixels, self._views, self._scales = {}, [], {}, {}
        with self._evaluating(seed):
            self.loaded.feature.update()
            answer = self.loaded.feature()
            # those that share a sample no longer know what they saw: each tells it of its own optics
            views = [
                self._views[number] if number in self._views else microscope()
                for number, microscope in enumerate(self.microscopes)
            ]
        pixels = self._pixels[0] if self._pixels else UNKNOWN_PIXELS
        drawn = self._drawn(answer, list(self._seen.values()), pixels)
        drawn.views = views
        return drawn

    def draw_again(self, drawn: Drawn, seed: int) -> Drawn:
        """Draw what comes after the microscopes anew: noise, and whatever moves pixels."""
        with self._evaluating(seed):
            self.loaded.feature.update()
            for microscope, view in zip(self.microscopes, drawn.views, strict=True):
                microscope.set_value(view)
            answer = self.loaded.feature()
        again = self._drawn(answer, drawn.seen, drawn.pixel_size_um)
        again.views = drawn.views
        return again

    @property
    def _place(self) -> str:
        return f"the pipeline {self.loaded.name} of {self.loaded.path}"

    @contextmanager
    def _evaluating(self, seed: int) -> Iterator[None]:
        """Seed, and tell where in the user's file it failed."""
        self._coordinates = {}
        with running(self._place, self.loaded.path, seed):
            yield

    def _drawn(self, answer: Any, seen: list[Seen], pixels: tuple[float, float]) -> Drawn:
        image, array = self._image_of(answer)
        known = self._coordinates.get(id(array))
        return Drawn(image, seen, pixels, None if known is None else known[1])

    def _image_of(self, answer: Any) -> tuple[FloatArray, Any]:
        """The first image in what the pipeline returned, (H, W), and the array itself."""
        parts = list(answer) if isinstance(answer, list | tuple) else [answer]
        for part in parts:
            array = array_of(part)
            flat = np.squeeze(array)
            if array.ndim < 2 or min(flat.shape, default=0) < 3:
                continue
            if flat.ndim != 2:
                raise PipelineError(
                    f"{self._place} gives images of shape {array.shape}; a camera's have one channel"
                )
            if np.iscomplexobj(flat):
                flat = np.square(np.abs(flat))  # what a camera sees of a field
            image = flat.astype(np.float64)
            if not np.isfinite(image).all():
                raise PipelineError(f"{self._place} gives images with values that are not finite")
            return image, getattr(part, "array", part)
        raise PipelineError(f"{self._place} returns no image, but {type(answer).__name__}")

    def _after_microscopes(self, seen_by_them: set[int]) -> list[Any]:
        """The features that get what the microscopes give, however they are put together."""
        from deeptrack.features import Feature

        return [
            node
            for node in self.loaded.feature.recurse_dependencies()
            if isinstance(node, Feature) and id(node) not in seen_by_them
        ]

    def _depends_on(self, node: Any, before: set[int]) -> bool:
        """Whether a node depends on what microscopes depend on, in another way than through their images."""
        images, stack, known = {id(each) for each in self.microscopes}, [node], set()
        while stack:
            each = stack.pop()
            if id(each) in known or id(each) in images:
                continue
            if id(each) in before:
                return True
            known.add(id(each))
            stack.extend(each.dependencies)
        return False

    @property
    def symmetry(self) -> Symmetry:
        """What the optics make of a turned or mirrored sample: a turned or mirrored image, where nothing is odd.

        As far as the images drawn so far tell. Light that is uneven, but not tilted, may be turned with the sample.
        """
        from deeptrack.optical.scatterers import FieldScatterer

        if self._bent or any(_is_given(each._objective, "pupil") for each in self.microscopes):
            return Symmetry.NONE
        # the fields of Mie scatterers are those of linearly polarised light
        polarised = any(isinstance(each, FieldScatterer) for each in self.scatterers)
        return Symmetry.MIRRORS if polarised else Symmetry.ALL

    def _tag(self, scatterer: Any, number: int) -> None:
        wrap = scatterer._wrap_output

        def tagged(array: Any, properties: Any) -> Any:
            out = wrap(array, properties)
            out.properties[SOURCE] = number
            return out

        scatterer._wrap_output = tagged

    def _note(self, microscope: Any, number: int) -> None:
        validate, store = microscope._validate_input, microscope.store

        def noted(scattered: Any) -> Any:
            if number not in self._scales:  # DeepTrack takes ms to say them
                self._scales[number] = Scale.of(microscope)
                self._pixels.append(self._scales[number].pixels_um)
            self._add(scattered, self._scales[number])
            return validate(scattered)

        def stored(view: Any, _ID: tuple[int, ...] = ()) -> Any:  # noqa: N803 - as DeepTrack names it
            self._scales.pop(number, None)
            if not _ID:
                self._views[number] = view
            return store(view, _ID=_ID)

        microscope._validate_input, microscope.store = noted, stored

    def _note_light(self, illumination: Any) -> None:
        """Note whether an illumination changes more than the amplitude of the light, which then comes aslant."""
        resolve = illumination.resolve

        def noted(light: Any, *more: Any, **named: Any) -> Any:
            lit = resolve(light, *more, **named)
            before, after = np.squeeze(array_of(light)), np.squeeze(array_of(lit))
            turned = np.abs(np.imag(after * np.conj(before)))
            self._bent |= bool((turned > BENT * np.abs(after * before).max()).any())
            return lit

        illumination.resolve = noted

    def _add(self, scattered: Any, scale: Scale) -> None:
        properties = scattered.properties
        if properties.get("position") is None:
            return
        place = np.asarray(array_of(properties["position"]), float).ravel()
        z = place[2] if place.size > 2 else float(np.ravel(array_of(properties.get("z", 0.0)))[0])
        source = int(properties.get(SOURCE, -1))
        # a sample that several microscopes image, one for each wavelength, is there once
        key = (source, *np.round(place, 9).tolist(), round(float(z), 9))
        self._seen.setdefault(
            key, Seen(source, properties, place[:2] - scale.first_px, float(z) * scale.z_step_um)
        )

    def _watch(self, feature: Any) -> None:
        work = feature._process_and_get

        def watched(inputs: list[Any], **properties: Any) -> Any:
            state = random_state()
            outputs = work(inputs, **properties)
            for before, after in zip(
                inputs, outputs if isinstance(outputs, list) else [outputs], strict=False
            ):
                self._track(feature, partial(work, **properties), state, before, after)
            return outputs

        feature._process_and_get = watched

    def _track(self, feature: Any, work: Any, state: tuple[Any, Any], before: Any, after: Any) -> None:
        """Note where the pixels of `after` come from."""
        from deeptrack.optical.augmentations import Augmentation

        first, then = getattr(before, "array", before), getattr(after, "array", after)
        if then is first or np.ndim(first) < 2 or np.ndim(then) < 2:
            return
        known = self._coordinates.get(id(first))
        coordinates = None if known is None else known[1]
        shape, new_shape = np.shape(first)[:2], np.shape(then)[:2]
        if isinstance(feature, Augmentation) or shape != new_shape:
            given = own_coordinates(shape) if coordinates is None else coordinates
            coordinates = moved(given, lambda plane: work([plane])[0], state, self.name_of(feature))
        # the array is kept with them, so that no other one gets its number
        self._coordinates[id(then)] = (then, coordinates)


def _is_given(optics: Any, name: str) -> bool:
    """Whether optics have a pupil or an illumination that is not DeepTrack's own."""
    from deeptrack.features import DummyFeature

    return not isinstance(getattr(optics, name, None), DummyFeature)


def random_seed(rng: np.random.Generator) -> int:
    """A seed for `Recorder.draw`."""
    return int(rng.integers(2**31))
