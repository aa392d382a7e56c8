"""From a focus scan to a calibration, automatically: the order of the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from acquisition.references import read_reference
from calibration.ambiguity import find_ambiguity
from calibration.cautions import corner_warning, warnings_for
from calibration.curves import feature_curves
from calibration.errors import CalibrationError
from calibration.field.cross_validation import Validation, cross_validate
from calibration.field.misfit_map import misfit_of
from calibration.field.named import name_terms
from calibration.field.surface_choice import Surface, choose_surface
from calibration.focus_check import check_focus
from calibration.particles.jumps import without_jumps
from calibration.particles.labels import label, merged, misfit_limit, neighbour_limit_px
from calibration.particles.lone import FEWEST, first_positions, lone
from calibration.particles.parts import Camera, Part, divided, further_part, noise_of_mean, part_of
from calibration.particles.seen import Seen, align_members, misfit_of_members
from calibration.preparation import (
    Options,
    Prepared,
    at_most,
    find_spots,
    measure_noise,
    prepare,
    tidy,
    which_polarity,
)
from calibration.psf_model import PsfModel
from calibration.result import Calibration, ParticleTable
from calibration.scan.contrast import Background, add_up, make_background
from calibration.scan.cutouts import cut_out, size_of_images
from calibration.scan.planes import FocusScan
from calibration.surface import FocalSurface, fit_surface
from engines.refine.field import FieldModel

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]
Progress = Callable[[str, float], None]

MOST_TRACES = 300
"""Most particles that are aligned; the matrices grow with the square of their number, the error of the PSF falls
with its root."""
PERCENTILES = (1, 99)
"""Depth range of the PSF model, as percentiles of all labels (Franchini & Krevor 2020, section 2.1.2)."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """A calibration, and what is needed to cut its particles' images out of the scan again.

    `stage_px` (M, K, 2) is how far the stage had moved sideways (x, y) in each plane, as each of M kinds of
    particles shows it.
    """

    calibration: Calibration
    background: Background
    prepared: Prepared
    half_px: int
    stage_px: FloatArray


def calibrate(
    scan: FocusScan, options: Options, on_progress: Progress = lambda _what, _part: None
) -> Calibrated:
    """Calibrate from a scan.

    Raises `CalibrationError`, with the reason, where no depth can be had from it.
    """
    bright, of_bright = (None, ()) if options.bright is None else read_reference(options.bright, "bright")
    dark, of_dark = (None, ()) if options.dark is None else read_reference(options.dark, "dark")
    prepared = prepare(scan)
    sums = add_up(scan, prepared.images, prepared.gains, lambda part: on_progress("adding up", part))
    polarity = options.polarity or which_polarity(sums)
    background = make_background(sums.mean, polarity, bright=bright, dark=dark)
    mean = background.contrast(sums.mean[None].astype(np.float32))
    found = find_spots(mean)
    if len(found) < FEWEST:
        raise CalibrationError(
            f"only {len(found)} particles stand out from the noise, and {FEWEST} are needed; check --polarity, the "
            "light and the concentration"
        )
    half = size_of_images(mean**2 + background.contrast_variance(sums.change), found)
    noise = measure_noise(scan, sums, background, found, prepared, half)
    everything = len(found)
    found = at_most(found, MOST_TRACES)
    traces = cut_out(
        scan,
        prepared.images,
        prepared.gains,
        background,
        found,
        half,
        lambda part: on_progress("cutting out", part),
    )
    tidy(traces)
    repeats = float(np.median([len(images) for images in prepared.images]))
    focus_um = prepared.focus_um
    seen = Seen(
        traces=traces,
        found=found,
        focus_um=focus_um,
        plane_used=np.ones(focus_um.size, np.bool_),
        noise_variance=noise.contrast_sd**2 / repeats,
        pixel_size_um=scan.pixel_size_um,
        step_um=float(np.median(np.diff(np.unique(focus_um)))),
        shape=scan.shape,
    )
    on_progress("aligning", 0.0)
    members = lone(seen, options)
    aligned = align_members(seen, members, first_positions(seen, members))
    groups = divided(seen, members, aligned, options)
    if len(groups) > 1:
        members = groups[0][0]
        aligned = align_members(seen, *groups[0])
    on_progress("aligning", 0.4)
    seen, aligned, misfit, jumps = without_jumps(seen, members, aligned)
    checked = check_focus(aligned, seen.focus_um, seen.step_um)
    good = misfit <= misfit_limit(misfit)
    if good.sum() < FEWEST:
        good[:] = True
    if checked.faults or not good.all():
        seen = replace(seen, focus_um=checked.focus_um, plane_used=checked.used)
        members, start = members[good], aligned.positions.take(good)
        aligned = align_members(seen, members, start)
        misfit = misfit_of_members(seen, members, aligned)
    on_progress("aligning", 0.6)
    camera = Camera(noise.contrast_sd, scan.pixel_size_um, polarity, noise_of_mean(noise, repeats))
    parts, remarks = [part_of(seen, members, aligned, misfit, camera, on_progress)], []
    for number, start in groups[1:]:
        try:
            parts.append(further_part(seen, number, start, camera, on_progress))
        except CalibrationError as error:
            if options.kinds is not None:
                raise
            remarks.append(
                f"{len(number)} particles look alike, but unlike the others, and are left out: {error}"
            )
    made = parts[0].made
    limit_px = options.neighbour_px or neighbour_limit_px(found.neighbour_px(), _radius_px(parts))
    tables = []
    for part in parts:
        of_others = [other.members for other in parts if other is not part]
        others = np.concatenate([*of_others, np.empty(0, np.intp)])
        tables.append(label(seen, part.aligned, part.members, part.misfit, part.made, limit_px, others))
    table = merged(tables, [part.members for part in parts])
    for kind in range(len(parts)):
        _check_enough(table.of(kind))
    models = [_within_percentiles(part.made.model, table.of(kind), seen) for kind, part in enumerate(parts)]
    level = _level(table)
    surface = _surface(level, scan, models[0])
    validations = []
    for kind, part in enumerate(parts):
        model, slide = _with_surface(models[kind], level, surface, options, scan.shape)
        validation = cross_validate(
            part.field,
            part.members,
            table.used[part.members] & (table.kind[part.members] == kind),
            camera.noise,
            model,
            partial(_validating, on_progress, kind, len(parts)),
        )
        models[kind] = replace(model, misfit=misfit_of(validation, model, slide, scan.shape, camera.noise))
        validations.append(validation)
        if kind == 0:
            named = name_terms(part.field, slide, models[0])
    ambiguity = find_ambiguity(made.images, made.z_um, noise.contrast_sd)
    calibration = Calibration(
        model=models[0],
        focal_planes=made.focal_planes,
        particles=table,
        noise=noise,
        curves=feature_curves(
            traces, made, table.of(0), seen.focus_um, scan.pixel_size_um, seen.noise_variance
        ),
        ambiguity=ambiguity,
        surface=surface,
        focus_um=seen.focus_um,
        apparent_focus_um=checked.apparent_um,
        plane_used=seen.plane_used,
        repeats=scan.repeats,
        shape=scan.shape,
        named=named,
        validation=Validation.together(validations),
        faults=sorted(prepared.faults + jumps + checked.faults, key=lambda fault: fault.plane),
        warnings=[
            *of_bright,
            *of_dark,
            *remarks,
            *warnings_for(made, ambiguity, seen.step_um, everything, len(found)),
            *_in_a_corner(model, table, scan),
        ],
        provenance={"neighbour_limit_px": limit_px, "background": background.source},
        kinds=tuple(models) if len(parts) > 1 else (),
        kind_planes=tuple(part.made.focal_planes for part in parts) if len(parts) > 1 else (),
    )
    stage_px = np.zeros((len(parts), focus_um.size, 2))
    for kind, part in enumerate(parts):
        for axis in (0, 1):
            moved = part.field.stage_px[:, axis]
            stage_px[kind, :, axis] = np.interp(seen.focus_um, seen.focus_um[seen.plane_used], moved)
    return Calibrated(calibration, background, prepared, half, stage_px)


def _validating(on_progress: Progress, kind: int, kinds: int, done: float) -> None:
    on_progress("validating", (kind + done) / kinds)


def _radius_px(parts: list[Part]) -> float:
    return max(part.made.radius_px for part in parts)


def _level(table: ParticleTable) -> ParticleTable:
    """The table with the heights of all kinds about that of the first: larger ones lie higher on a slide."""
    z_um = table.z_um.copy()
    first = np.median(z_um[table.used & (table.kind == 0)])
    for kind in range(1, int(table.kind.max()) + 1):
        mine = table.kind == kind
        z_um[mine] -= np.median(z_um[mine & table.used]) - first
    return replace(table, z_um=z_um)


def _with_surface(
    model: PsfModel,
    table: ParticleTable,
    surface: FocalSurface | None,
    options: Options,
    shape: tuple[int, int],
) -> tuple[PsfModel, Surface | None]:
    """The model with the focal surface, where the particles lie on one; and that surface."""
    if surface is None or not surface.is_surface:
        return model, None
    used, pixel = table.used, model.pixel_size_um
    field = model.field or FieldModel.flat(shape, model.coefficients.shape)
    u, v = field.place(table.x_um[used] / pixel, table.y_um[used] / pixel)
    found = choose_surface(u, v, table.z_um[used], tilted=options.slide == "tilted")
    if not found.surface_um.any():
        return model, found
    return replace(model, field=replace(field, surface_um=found.surface_um)), found


def _in_a_corner(model: PsfModel, table: ParticleTable, scan: FocusScan) -> list[str]:
    if model.field is None:
        return []
    height, width = (size * scan.pixel_size_um for size in scan.shape)
    return corner_warning(table.x_um[table.used], table.y_um[table.used], (width, height))


def _check_enough(table: ParticleTable) -> None:
    used = int(table.used.sum())
    if used < FEWEST:
        why = ", ".join(f"{count}: {reason}" for reason, count in table.left_out().items())
        raise CalibrationError(
            f"only {used} of {len(table)} particles can be labelled ({why}), and {FEWEST} are needed; scan a "
            "larger field or a longer range, or dilute the suspension"
        )


def _within_percentiles(model: PsfModel, table: ParticleTable, seen: Seen) -> PsfModel:
    """The model for depths between the 1st and the 99th percentile of all labels, as in the paper."""
    depth = (table.z_um[table.used, None] - seen.focus_um[seen.plane_used]).ravel()
    inside = depth[(depth >= model.z_min_um) & (depth <= model.z_max_um)]
    low_um, high_um = np.percentile(inside, PERCENTILES)
    return replace(model, z_min_um=float(low_um), z_max_um=float(high_um))


def _surface(table: ParticleTable, scan: FocusScan, model: PsfModel) -> FocalSurface | None:
    height, width = scan.shape
    used, pixel = table.used, scan.pixel_size_um
    return fit_surface(
        table.x_um[used],
        table.y_um[used],
        table.z_um[used],
        (width * pixel, height * pixel),
        depth_um=model.z_max_um - model.z_min_um,
    )
