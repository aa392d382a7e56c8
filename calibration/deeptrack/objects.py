"""Draws the objects of a DeepTrack pipeline where somebody else says that they are, frame after frame.

The pipeline's own draws only say which objects there are (radius, index, orientation, which of several kinds, in
which shares). Each object is kept as long as it exists. Its place is put into what its scatterer gives, between the
sample and the optics, so that the optics image all objects at once, as holograms need. What is drawn at random in
the optics and after them is drawn once and stays, as in one experiment; noise is drawn for each frame.

The shape of a volume does not depend on its place, so it is made once (exact); the field of a Mie sphere is made
for each frame. Several microscopes may image one sample, as one for each wavelength of white light: each gets the
objects as its own optics see them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from calibration.deeptrack.errors import PipelineError, running
from calibration.deeptrack.following import FloatArray, array_of
from calibration.deeptrack.labels import ENDINGS, SAME_PX, unit_of
from calibration.deeptrack.loading import Loaded, load_pipeline, microscopes_of, split_name
from calibration.deeptrack.sight import Scale, Sight
from calibration.deeptrack.survey import unit_scale

IntArray = npt.NDArray[np.int64]
NOT_DESCRIBING = {
    "position", "z", "position_unit", "upsample", "voxel_size", "pixel_size", "name", "value", "transpose",
}  # fmt: skip
"""Arguments of scatterers that do not describe the object."""
OF_ANY = ("intensity", "refractive_index")
"""Properties of volumes that their classes do not name, but the optics read."""
MOST_DRAWS = 1000
"""Draws of the pipeline in search of one object; one that gives none so often never gives any."""
SAME_PIXEL = 1e-6
"""Relative difference below which sizes of pixels are the same; they are computed from the same numbers."""
Mode = Literal["pipeline", "objects", "place"]


class _Enough(Exception):  # noqa: N818 - it ends a draw once the sample is known, and is no error
    """The sample is known; its image is not needed."""


@dataclass(slots=True, eq=False)
class Part:
    """A scatterer of an object: its feature, its properties, and the shape of a volume (None for a field)."""

    scatterer: Any
    properties: Mapping[str, Any]
    shape: Any = None


@dataclass(slots=True, eq=False)
class PipelineObject:
    """An object: scatterers at one place, such as core and shell of a cell; `kind` numbers its first feature.

    Each of `parts` is there once for each microscope, whose optics its properties and its shape depend on.
    """

    parts: list[tuple[Part, ...]]
    kind: int
    values: dict[str, float] = field(default_factory=dict)


class PipelineObjects:
    """The objects of a pipeline, drawn at given places; not for several threads at once.

    `shape` is that of the images, `pixel_size_um` in object space, `names` what describes an object, with units.
    """

    def __init__(self, pipeline: str, seed: int = 0) -> None:
        """Load `pipeline.py[:NAME]` and draw it once.

        Raises `PipelineError` for a pipeline that fails, or that cannot be drawn at given places: one with
        microscopes for several samples, with features between objects and optics, or that moves pixels after them.
        """
        self._loaded: Loaded = load_pipeline(*split_name(pipeline))
        self._feature = self._loaded.feature
        self._sights = [Sight(each) for each in microscopes_of(self._feature)]
        self._sample = self._sights[0].microscope._sample
        if any(each.microscope._sample is not self._sample for each in self._sights):
            raise self._unfit(
                f"its {len(self._sights)} microscopes image several samples, and objects are placed in one"
            )
        self._mode: Mode = "pipeline"
        self._found: list[list[Part]] = [[] for _ in self._sights]
        self._given: dict[int, tuple[Any, Part]] = {}
        self._placed: list[tuple[tuple[Part, ...], FloatArray, float]] = []
        self._waiting: list[PipelineObject] = []
        self._own: dict[int, PipelineObject] = {}
        self._scatterers = self._watch_scatterers()
        self._refuse_moved()
        for number, sight in enumerate(self._sights):
            sight.microscope._sample = _Sample(self, number)
        with self._drawing(seed):
            self._feature.update()
            for sight in self._sights:
                sight.note_optics()
            views = [np.squeeze(array_of(sight.microscope())) for sight in self._sights]
            first = self._image(self._feature())
        if any(first.shape != view.shape for view in views):
            raise self._unfit("it changes the size of images after the optics, which are not followed here")
        self.pixel_size_um: float = self._loaded.pixel_size_um or self._pixel_sizes_um()[0]
        self.shape: tuple[int, int] = (first.shape[0], first.shape[1])
        self.first_image = first
        self._waiting += self._as_objects()
        self._more_objects(1)
        seen = self._waiting
        self.names = tuple(dict.fromkeys(name for each in seen for name in each.values))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The features of which objects are, in the order of their numbers."""
        return tuple(self._name_of(each) for each in self._scatterers)

    def keep(self, identity: IntArray) -> None:
        """Forget all objects but those of these particles."""
        there = set(identity.tolist())
        self._own = {number: each for number, each in self._own.items() if number in there}

    def properties(self, identity: IntArray) -> dict[str, FloatArray]:
        """What describes the objects of these particles, (N,) each: `kind`, and `names`; NaN where it has none."""
        objects = self._objects_of(identity)
        kind = np.array([each.kind for each in objects], np.float64)
        values = {
            name: np.array([each.values.get(name, np.nan) for each in objects], np.float64)
            for name in self.names
        }
        return {"kind": kind} | values if len(self._scatterers) > 1 else values

    def draw(self, identity: IntArray, x_um: FloatArray, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """An image (H, W) of the objects of particles (N,), in the pipeline's units.

        x and y count from the centre of the first pixel, z from the focus. A particle keeps its object.
        """
        places = np.column_stack([y_um, x_um]) / self.pixel_size_um
        self._placed = [
            (part, place, float(z))
            for each, place, z in zip(self._objects_of(identity), places, z_um, strict=True)
            for part in each.parts
        ]
        self._mode = "place"
        with self._drawing():
            for sight in self._sights:
                sight.begin_again()
            return self._image(self._feature())

    def _objects_of(self, identity: IntArray) -> list[PipelineObject]:
        numbers = identity.tolist()
        for number in numbers:
            if number not in self._own:
                self._more_objects(1)
                self._own[number] = self._waiting.pop(0)
        return [self._own[number] for number in numbers]

    def _more_objects(self, wanted: int) -> None:
        """Draw objects of the pipeline until so many wait."""
        for _ in range(MOST_DRAWS):
            if len(self._waiting) >= wanted:
                return
            self._mode, self._given = "objects", {}
            with self._drawing():
                self._sample.update()
                for sight in self._sights:
                    sight.begin_again()
                    with suppress(_Enough):
                        sight.microscope()
            self._waiting += self._as_objects()
        raise self._unfit(f"{MOST_DRAWS} of its draws have no object")

    def sample(self, number: int) -> list[Any]:
        """What a microscope images, in the middle of its evaluation."""
        sight = self._sights[number]
        if self._mode == "place":
            assert sight.scale is not None  # since it was first drawn
            return [
                self._scattered(parts[number], place + sight.scale.first_px, z_um / sight.scale.z_step_um)
                for parts, place, z_um in self._placed
            ]
        sight.scale = Scale.of(sight.microscope)
        self._check(sight.scale)
        answer = self._sample()
        there = answer if isinstance(answer, list) else [answer]
        if any(id(each) not in self._given for each in there):
            raise self._unfit(
                "something changes its objects between scatterers and optics, which is not repeated at other places"
            )
        self._found[number] = [self._given[id(each)][1] for each in there]
        if self._mode == "objects":
            raise _Enough
        return there

    def _check(self, scale: Scale) -> None:
        down_um, across_um = scale.pixels_um
        if abs(down_um / across_um - 1.0) > SAME_PIXEL:
            raise self._unfit(f"its pixels are not square ({down_um:g} x {across_um:g} um)")
        known = self._pixel_sizes_um()
        if max(known) / min(known) - 1.0 > SAME_PIXEL:
            raise self._unfit(f"its microscopes have pixels of {min(known):g} and {max(known):g} um")

    def _pixel_sizes_um(self) -> list[float]:
        """Those of the microscopes that were evaluated."""
        return [each.scale.pixels_um[0] for each in self._sights if each.scale is not None]

    def _scattered(self, part: Part, place_px: FloatArray, z_px: float) -> Any:
        properties = {**part.properties, "position": place_px, "z": z_px}
        if part.shape is not None:
            return part.scatterer._wrap_output(part.shape, properties)
        return part.scatterer.liveptv_work([], **properties)[0]

    def _watch_scatterers(self) -> list[Any]:
        from deeptrack.optical.scatterers import FieldScatterer, Scatterer

        found = {
            id(node): node
            for sight in self._sights
            for node in sight.microscope.recurse_dependencies()
            if isinstance(node, Scatterer)
        }
        scatterers = sorted(found.values(), key=lambda each: (self._name_of(each), str(type(each))))
        if not scatterers:
            raise self._unfit("its optics image no scatterer")
        for scatterer in scatterers:
            scatterer.liveptv_work = scatterer._process_and_get
            scatterer._process_and_get = self._watched(scatterer, isinstance(scatterer, FieldScatterer))
        return scatterers

    def _watched(self, scatterer: Any, is_field: bool) -> Any:
        def work(inputs: list[Any], **properties: Any) -> list[Any]:
            if is_field and self._mode == "objects":  # only its properties are wanted
                given = [scatterer._wrap_output(np.zeros((1, 1, 1), complex), properties)]
            else:
                given = scatterer.liveptv_work(inputs, **properties)
            for each in given:
                part = Part(scatterer, properties, None if is_field else each.array)
                self._given[id(each)] = (each, part)  # kept with it, so that no other one gets its number
            return given

        return work

    def _as_objects(self) -> list[PipelineObject]:
        """The parts found in a draw, put together by their places."""
        groups: list[list[tuple[Part, ...]]] = []
        for parts in zip(*self._found, strict=True):
            place = _place_of(parts[0])
            near = (g for g in groups if np.abs(_place_of(g[0][0]) - place).max() < SAME_PX)
            group = next(near, None)
            if group is None:
                groups.append([parts])
            else:
                group.append(parts)
        objects = []
        for group in groups:
            kind = next(i for i, each in enumerate(self._scatterers) if each is group[0][0].scatterer)
            values: dict[str, float] = {}
            for parts in reversed(group):  # of a property that several parts have, the first one's counts
                values |= _described(parts[0])
            objects.append(PipelineObject(group, kind, values))
        return objects

    def _refuse_moved(self) -> None:
        from deeptrack.optical.augmentations import Augmentation

        before = {id(node) for each in self._sights for node in each.microscope.recurse_dependencies()}
        for node in self._feature.recurse_dependencies():
            if isinstance(node, Augmentation) and id(node) not in before:
                raise self._unfit(f"{self._name_of(node)} moves pixels after the optics; leave it out")

    def _image(self, answer: Any) -> FloatArray:
        array = np.squeeze(array_of(answer[0] if isinstance(answer, list | tuple) else answer))
        if array.ndim != 2:
            raise self._unfit(f"it gives images of shape {array.shape}; a camera's have one channel")
        image = np.square(np.abs(array)) if np.iscomplexobj(array) else array
        image = image.astype(np.float64)
        if not np.isfinite(image).all():
            raise self._unfit("it gives images with values that are not finite")
        return image

    def _name_of(self, feature: Any) -> str:
        named = str(feature.node_name)
        return named if named != type(feature).__name__ else self._loaded.names.get(id(feature), named)

    def _drawing(self, seed: int | None = None) -> AbstractContextManager[None]:
        loaded = self._loaded
        return running(f"the pipeline {loaded.name} of {loaded.path}", loaded.path, seed)

    def _unfit(self, why: str) -> PipelineError:
        return PipelineError(
            f"the pipeline {self._loaded.name} of {self._loaded.path} cannot be drawn at given places: {why}"
        )


class _Sample:
    """Stands between sample and optics; what the optics tell the sample reaches it."""

    def __init__(self, objects: PipelineObjects, number: int) -> None:
        self._objects, self._number = objects, number

    def recurse_dependencies(self) -> Any:
        return self._objects._sample.recurse_dependencies()

    def __call__(self) -> list[Any]:
        return self._objects.sample(self._number)


def _place_of(part: Part) -> FloatArray:
    place = np.asarray(array_of(part.properties["position"]), float).ravel()
    z = place[2] if place.size > 2 else float(np.ravel(array_of(part.properties.get("z", 0.0)))[0])
    return np.array([place[0], place[1], z])


def _described(part: Part) -> dict[str, float]:
    """The numbers among a scatterer's own properties, with their units in the names."""
    found: dict[str, float] = {}
    own = [key for base in type(part.scatterer).__mro__ for key in _asked_for(base)] + [*OF_ANY]
    for key in dict.fromkeys(own):
        if key in NOT_DESCRIBING or part.properties.get(key) is None:
            continue
        try:
            numbers = np.ravel(array_of(part.properties[key])).astype(np.complex128)
        except (TypeError, ValueError):
            continue
        if not 1 <= numbers.size <= 3:
            continue
        unit = unit_of(part.scatterer, key)
        ending = ENDINGS.get(unit, "")
        values = unit_scale(unit) * numbers.real
        if np.ptp(values) == 0:
            found[key + ending] = float(values[0])
        else:
            found |= {f"{key}_{i}{ending}": float(value) for i, value in enumerate(values)}
    return found


def _asked_for(base: type) -> list[str]:
    """The arguments of a scatterer's class that describe its objects."""
    if "__init__" not in vars(base) or base.__name__ in {
        "Feature",
        "DeepTrackNode",
        "object",
        "MieScatterer",
    }:
        return []
    return [
        name
        for name, each in inspect.signature(vars(base)["__init__"]).parameters.items()
        if name != "self" and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
