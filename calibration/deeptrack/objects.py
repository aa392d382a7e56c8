"""Draws the objects of a DeepTrack pipeline where somebody else says that they are, frame after frame.

The pipeline's own draws only say which objects there are (radius, index, orientation, which of several kinds, in
which shares). Each object is kept as long as it exists. Its place is put into what its scatterer gives, between the
sample and the optics, so that the optics image all objects at once, as holograms need. What is drawn at random in
the optics and after them is drawn once and stays, as in one experiment; noise is drawn for each frame.

The shape of a volume does not depend on its place, so it is made once (exact); the field of a Mie sphere is made
for each frame.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from calibration.deeptrack.errors import PipelineError, running
from calibration.deeptrack.following import FloatArray, array_of
from calibration.deeptrack.labels import ENDINGS, SAME_PX, unit_of
from calibration.deeptrack.loading import Loaded, load_pipeline, microscopes_of, split_name
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
RESTORED = ("output_region", "padding", "voxel_size")
"""What a microscope changes in its optics when it draws (DeepTrack 2.0.2), and would change again."""
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
    """An object: scatterers at one place, such as core and shell of a cell; `kind` numbers its first feature."""

    parts: list[Part]
    kind: int
    values: dict[str, float] = field(default_factory=dict)


class PipelineObjects:
    """The objects of a pipeline, drawn at given places; not for several threads at once.

    `shape` is that of the images, `pixel_size_um` in object space, `names` what describes an object, with units.
    """

    def __init__(self, pipeline: str, seed: int = 0) -> None:
        """Load `pipeline.py[:NAME]` and draw it once.

        Raises `PipelineError` for a pipeline that fails, or that cannot be drawn at given places: one with several
        microscopes, with features between objects and optics, or that moves pixels after them.
        """
        self._loaded: Loaded = load_pipeline(*split_name(pipeline))
        self._feature = self._loaded.feature
        microscopes = microscopes_of(self._feature)
        if len(microscopes) != 1:
            raise self._unfit(f"it has {len(microscopes)} microscopes, and objects are placed in one")
        self._microscope = microscopes[0]
        self._sample = self._microscope._sample
        self._mode: Mode = "pipeline"
        self._found: list[Part] = []
        self._given: dict[int, Any] = {}
        self._placed: list[tuple[Part, float, float, float]] = []
        self._waiting: list[PipelineObject] = []
        self._own: dict[int, PipelineObject] = {}
        self.pixel_size_um = self._z_step_um = 1.0
        self._first_px = np.zeros(2)
        self._scatterers = self._watch_scatterers()
        self._refuse_moved()
        self._microscope._sample = _Sample(self)
        with self._drawing(seed):
            self._feature.update()
            objective = self._microscope._objective
            self._optics = {name: objective.properties[name]() for name in RESTORED}
            view = array_of(self._microscope())
            first = self._image(self._feature())
        if first.shape != np.squeeze(view).shape:
            raise self._unfit("it changes the size of images after the optics, which are not followed here")
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
        row, column = y_um / self.pixel_size_um, x_um / self.pixel_size_um
        self._placed = [
            (part, float(r) + self._first_px[0], float(c) + self._first_px[1], float(z) / self._z_step_um)
            for each, r, c, z in zip(self._objects_of(identity), row, column, z_um, strict=True)
            for part in each.parts
        ]
        self._mode = "place"
        with self._drawing():
            self._begin_again()
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
            self._mode, self._found, self._given = "objects", [], {}
            with self._drawing():
                self._sample.update()
                self._begin_again()
                try:
                    self._microscope()
                except _Enough:
                    self._waiting += self._as_objects()
        raise self._unfit(f"{MOST_DRAWS} of its draws have no object")

    def _begin_again(self) -> None:
        """Let the microscope, and what comes after it, be evaluated anew with the properties that they have."""
        for name, value in self._optics.items():
            self._microscope._objective.properties[name].set_value(value)
        self._microscope.invalidate()

    def sample(self) -> list[Any]:
        """What the microscope images, in the middle of its evaluation."""
        if self._mode == "place":
            return [self._scattered(*placed) for placed in self._placed]
        self._note_scales()
        answer = self._sample()
        there = answer if isinstance(answer, list) else [answer]
        if any(id(each) not in self._given for each in there):
            raise self._unfit(
                "something changes its objects between scatterers and optics, which is not repeated at other places"
            )
        self._found = [self._given[id(each)] for each in there]
        if self._mode == "objects":
            raise _Enough
        return there

    def _note_scales(self) -> None:
        from deeptrack.backend.units import get_active_scale, get_active_voxel_size

        scale = np.asarray(get_active_scale(), float)
        voxel_um = 1e6 * np.asarray(get_active_voxel_size(), float) * scale
        if abs(voxel_um[0] / voxel_um[1] - 1.0) > 1e-6:
            raise self._unfit(f"its pixels are not square ({voxel_um[0]:g} x {voxel_um[1]:g} um)")
        region = np.asarray(self._microscope._objective.output_region(), float)[:2] / scale[:2]
        self._first_px = np.nan_to_num(region)
        self.pixel_size_um = self._loaded.pixel_size_um or float(voxel_um[0])
        self._z_step_um = float(voxel_um[2])

    def _scattered(self, part: Part, row: float, column: float, z_px: float) -> Any:
        properties = {**part.properties, "position": np.array([row, column]), "z": z_px}
        if part.shape is not None:
            return part.scatterer._wrap_output(part.shape, properties)
        return part.scatterer.liveptv_work([], **properties)[0]

    def _watch_scatterers(self) -> list[Any]:
        from deeptrack.optical.scatterers import FieldScatterer, Scatterer

        found = {
            id(node): node for node in self._microscope.recurse_dependencies() if isinstance(node, Scatterer)
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
                self._given[id(each)] = part
            return given

        return work

    def _as_objects(self) -> list[PipelineObject]:
        """The parts found in a draw, put together by their places."""
        groups: list[list[Part]] = []
        for part in self._found:
            place = _place_of(part)
            near = (g for g in groups if np.abs(_place_of(g[0]) - place).max() < SAME_PX)
            group = next(near, None)
            if group is None:
                groups.append([part])
            else:
                group.append(part)
        objects = []
        for group in groups:
            kind = next(i for i, each in enumerate(self._scatterers) if each is group[0].scatterer)
            values: dict[str, float] = {}
            for part in reversed(group):  # of a property that several parts have, the first one's counts
                values |= _described(part)
            objects.append(PipelineObject(group, kind, values))
        return objects

    def _refuse_moved(self) -> None:
        from deeptrack.optical.augmentations import Augmentation

        before = {id(node) for node in self._microscope.recurse_dependencies()}
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

    def __init__(self, objects: PipelineObjects) -> None:
        self._objects = objects

    def recurse_dependencies(self) -> Any:
        return self._objects._sample.recurse_dependencies()

    def __call__(self) -> list[Any]:
        return self._objects.sample()


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
