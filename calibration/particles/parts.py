"""The particles of each kind, with their PSF and what changes over the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from calibration.alignment.aligned import Aligned, Positions
from calibration.alignment.joint import align
from calibration.alignment.neighbours import replace_neighbours, without_neighbours
from calibration.assemble import Assembled, assemble
from calibration.field.estimate import FieldFit, Scene, expected_images, fit_field
from calibration.kinds.finding import find_kinds
from calibration.noise import NoiseModel
from calibration.particles.labels import misfit_limit
from calibration.particles.lone import FEWEST
from calibration.particles.seen import Seen, align_members, images_of, misfit_of_members
from calibration.preparation import Options
from calibration.scan.contrast import Polarity

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]
Progress = Callable[[str, float], None]

NEIGHBOUR_ROUNDS = 2
"""Rounds of removing neighbours. One or four change nothing in a small simulated scan (rms depth error 0.082
um)."""
FIELD_ROUNDS = 1
"""Times that neighbours are removed and the field is fitted again with the images that the field model expects. At
first those of one image for all are expected, and where the optics vary much, what differs far from a particle is
taken for neighbours: images far out of focus then walk a fifth less than they do."""
NEIGHBOUR_STEPS = 2
"""Steps of each alignment without neighbours: it begins where the last one ended."""


@dataclass(frozen=True, slots=True)
class Camera:
    """Standard deviation of one image's contrast, pixel size, polarity, and `noise_of_mean`."""

    noise_sd: float
    pixel_size_um: float
    polarity: Polarity
    noise: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The particles of one kind: which candidates they are, their alignment and misfit, PSF and field."""

    members: IndexArray
    misfit: FloatArray
    aligned: Aligned
    made: Assembled
    field: FieldFit


def divided(
    seen: Seen, members: IndexArray, aligned: Aligned, options: Options
) -> list[tuple[IndexArray, Positions]]:
    """The members of each kind, and where they are; the most frequent kind first."""
    if options.kinds == 1:
        return [(members, aligned.positions)]
    found = find_kinds(
        seen.traces.contrast[members],
        aligned.positions,
        seen.focus_um,
        seen.step_um,
        fewest=FEWEST,
        wanted=options.kinds,
    )
    now = replace(aligned.positions, z_um=found.z_um, brightness=found.brightness)
    of_kind = [np.flatnonzero(found.kind == kind) for kind in range(found.count)]
    return [(members[mine], now.take(mine)) for mine in of_kind]


def further_part(
    seen: Seen, members: IndexArray, start: Positions, camera: Camera, on_progress: Progress
) -> Part:
    """The second or third kind, once the first one has shown where the planes are."""
    aligned = align_members(seen, members, start)
    misfit = misfit_of_members(seen, members, aligned)
    good = misfit <= misfit_limit(misfit)
    if good.sum() >= FEWEST and not good.all():
        members = members[good]
        aligned = align_members(seen, members, aligned.positions.take(good))
        misfit = misfit_of_members(seen, members, aligned)
    return part_of(seen, members, aligned, misfit, camera, on_progress)


def part_of(
    seen: Seen,
    members: IndexArray,
    aligned: Aligned,
    misfit: FloatArray,
    camera: Camera,
    on_progress: Progress,
) -> Part:
    """PSF and field of aligned particles."""
    aligned, clean = _without_neighbours(seen, members, aligned)
    on_progress("aligning", 0.8)
    made = assemble(
        aligned, noise_sd=camera.noise_sd, pixel_size_um=camera.pixel_size_um, polarity=camera.polarity
    )
    on_progress("field", 0.0)
    field = _field(seen, members, aligned, made, clean)
    made, aligned = replace(made, model=field.model), _at_places(aligned, made, field)
    on_progress("field", 0.5)
    return Part(members, misfit, aligned, made, field)


def _without_neighbours(
    seen: Seen, members: IndexArray, aligned: Aligned
) -> tuple[Aligned, npt.NDArray[np.float32]]:
    """The same traces, aligned again without the neighbours in the corners of their images; and these images."""
    focus_um, images = seen.focus_um[seen.plane_used], images_of(seen, members)
    for _ in range(NEIGHBOUR_ROUNDS):
        clean = without_neighbours(images, aligned, focus_um, seen.noise_variance)
        aligned = align(clean, focus_um, aligned.positions, z_step_um=seen.step_um, max_steps=NEIGHBOUR_STEPS)
    return aligned, clean


def _field(
    seen: Seen, members: IndexArray, aligned: Aligned, made: Assembled, clean: npt.NDArray[np.float32]
) -> FieldFit:
    """What changes over the field, and the particles' places with it, in the coordinates of the PSF model."""
    now = aligned.positions
    start = Positions(
        now.brightness, now.z_um + made.z_shift_um, now.dx_px + made.x_shift_px, now.dy_px + made.y_shift_px
    )
    column, row = (part[members].astype(np.float64) for part in (seen.traces.column, seen.traces.row))
    scene = Scene(seen.focus_um[seen.plane_used], column, row, seen.shape)
    found = fit_field(clean, start, scene, made.model, seen.noise_variance)
    for _ in range(FIELD_ROUNDS if found.model.field is not None else 0):
        clean, splines = images_of(seen, members), found.left_out_splines(np.empty(0, np.intp))
        for index, images in enumerate(clean):
            expected = expected_images(found, splines, index)
            replace_neighbours(images, expected, found.traces.seen[index], seen.noise_variance)
        found = fit_field(clean, start, scene, made.model, seen.noise_variance)
    return found


def _at_places(aligned: Aligned, made: Assembled, field: FieldFit) -> Aligned:
    """The alignment with the places that the field model found, in its own coordinates."""
    now = field.positions
    return replace(
        aligned,
        positions=Positions(
            now.brightness,
            now.z_um - made.z_shift_um,
            now.dx_px - made.x_shift_px,
            now.dy_px - made.y_shift_px,
        ),
    )


def noise_of_mean(noise: NoiseModel, repeats: float) -> tuple[float, float]:
    """Variance of the contrast, (read, shot), of the mean image of a plane."""
    read, shot = noise.read_variance / noise.background_grey**2, noise.gain / noise.background_grey
    level = noise.contrast_sd**2 / max(read + shot, 1e-30) / repeats
    return read * level, shot * level
