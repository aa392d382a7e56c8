"""From a focus scan to a calibration, automatically: the order of the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from acquisition.references import read_reference
from calibration.alignment.aligned import Aligned, Positions
from calibration.alignment.joint import align
from calibration.alignment.misfit import central_misfit
from calibration.alignment.neighbours import replace_neighbours, without_neighbours
from calibration.alignment.plane_check import apparent_focus
from calibration.alignment.start import binned, start_shifts
from calibration.ambiguity import find_ambiguity
from calibration.assemble import Assembled, assemble
from calibration.cautions import corner_warning, warnings_for
from calibration.curves import feature_curves
from calibration.errors import CalibrationError
from calibration.field.cross_validation import Validation, cross_validate
from calibration.field.estimate import FieldFit, Scene, expected_images, fit_field
from calibration.field.misfit_map import misfit_of
from calibration.field.named import name_terms
from calibration.field.surface_choice import Surface, choose_surface
from calibration.focus_check import JUMP_STEPS, REACH_STEPS, check_focus, largest_jump
from calibration.kinds.finding import find_kinds
from calibration.labels import Seen, label, merged, misfit_limit, neighbour_limit_px
from calibration.noise import NoiseModel
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
from calibration.scan.contrast import Background, Polarity, add_up, make_background
from calibration.scan.cutouts import cut_out, size_of_images
from calibration.scan.faults import Fault
from calibration.scan.planes import FocusScan
from calibration.surface import FocalSurface, fit_surface
from engines.refine.field import FieldModel

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]
Progress = Callable[[str, float], None]

FEWEST = 5
"""Fewest particles of a calibration: their mean is then their PSF rather than one particle's."""
MOST_TRACES = 300
"""Most particles that are aligned; the matrices grow with the square of their number, the error of the PSF falls
with its root."""
LONE_PARTS = (0.9, 0.7, 0.5)
"""Least distance of lone particles' neighbours over the half width of the cut-outs, relaxed in this order."""
ENOUGH_PART = 0.3
"""Part of the particles that is enough to align. 20 % more or less changes nothing in a small simulated scan (rms
depth error 0.082 um)."""
ALIKE = 0.3
"""Median correlation of traces below which they are not of one kind of particle; good scans have 0.8 or more."""
NEAR_GRID = 0.75
"""Distance from an even grid of planes, in steps, up to which a plane is used for the start."""
PERCENTILES = (1, 99)
"""Depth range of the PSF model, as percentiles of all labels (Franchini & Krevor 2020, section 2.1.2)."""
MOST_JUMPS = 3
"""Most jumps that are corrected; a scan with more is not worth it."""
JUMP_ROUNDS = 6
"""Most measurements of one jump."""
SAME_JUMP = 3
"""Planes within which a jump is the same one."""
SETTLED_STEPS = 0.15
"""Remaining jump, in steps, that is left."""
FITS_BETTER = 0.8
"""Median misfit after over before, below which a correction is accepted."""
NEIGHBOUR_ROUNDS = 2
"""Rounds of removing neighbours. One or four change nothing in a small simulated scan (rms depth error 0.082
um)."""
FIELD_ROUNDS = 1
"""Times that neighbours are removed and the field is fitted again with the images that the field model expects. At
first those of one image for all are expected, and where the optics vary much, what differs far from a particle is
taken for neighbours: images far out of focus then walk a fifth less than they do."""
NEIGHBOUR_STEPS = 2
"""Median correlation of the traces below which they are not of one kind of particle."""


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
    members = _lone(seen, options)
    aligned = _align(seen, members, _start(seen, members))
    groups = _groups(seen, members, aligned, options)
    if len(groups) > 1:
        members = groups[0][0]
        aligned = _align(seen, *groups[0])
    on_progress("aligning", 0.4)
    seen, aligned, misfit, jumps = _undo_jumps(seen, members, aligned)
    checked = check_focus(aligned, seen.focus_um, seen.step_um)
    good = misfit <= misfit_limit(misfit)
    if good.sum() < FEWEST:
        good[:] = True
    if checked.faults or not good.all():
        seen = replace(seen, focus_um=checked.focus_um, plane_used=checked.used)
        members, start = members[good], aligned.positions.take(good)
        aligned = _align(seen, members, start)
        misfit = _misfit(seen, members, aligned)
    on_progress("aligning", 0.6)
    camera = _Camera(noise.contrast_sd, scan.pixel_size_um, polarity, _noise_of(noise, repeats))
    parts, remarks = [_kind(seen, members, aligned, misfit, camera, on_progress)], []
    for number, start in groups[1:]:
        try:
            parts.append(_further_kind(seen, number, start, camera, on_progress))
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
        models[kind] = replace(model, misfit=misfit_of(validation, model, slide, scan.shape))
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


@dataclass(frozen=True, slots=True)
class _Camera:
    """Standard deviation of one image's contrast, pixel size, polarity, and `_noise_of` a plane's mean image."""

    noise_sd: float
    pixel_size_um: float
    polarity: Polarity
    noise: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The particles of one kind: which candidates they are, their alignment and misfit, PSF and field."""

    members: IndexArray
    misfit: FloatArray
    aligned: Aligned
    made: Assembled
    field: FieldFit


def _groups(
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


def _further_kind(
    seen: Seen, members: IndexArray, start: Positions, camera: _Camera, on_progress: Progress
) -> _Part:
    """The second or third kind, once the first one has shown where the planes are."""
    aligned = _align(seen, members, start)
    misfit = _misfit(seen, members, aligned)
    good = misfit <= misfit_limit(misfit)
    if good.sum() >= FEWEST and not good.all():
        members = members[good]
        aligned = _align(seen, members, aligned.positions.take(good))
        misfit = _misfit(seen, members, aligned)
    return _kind(seen, members, aligned, misfit, camera, on_progress)


def _kind(
    seen: Seen,
    members: IndexArray,
    aligned: Aligned,
    misfit: FloatArray,
    camera: _Camera,
    on_progress: Progress,
) -> _Part:
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
    return _Part(members, misfit, aligned, made, field)


def _validating(on_progress: Progress, kind: int, kinds: int, done: float) -> None:
    on_progress("validating", (kind + done) / kinds)


def _radius_px(parts: list[_Part]) -> float:
    return max(part.made.radius_px for part in parts)


def _level(table: ParticleTable) -> ParticleTable:
    """The table with the heights of all kinds about that of the first: larger ones lie higher on a slide."""
    z_um = table.z_um.copy()
    first = np.median(z_um[table.used & (table.kind == 0)])
    for kind in range(1, int(table.kind.max()) + 1):
        mine = table.kind == kind
        z_um[mine] -= np.median(z_um[mine & table.used]) - first
    return replace(table, z_um=z_um)


def _lone(seen: Seen, options: Options) -> IndexArray:
    """Candidates wholly in the image and without a near neighbour; with nearer ones where these are too few."""
    neighbour_px = seen.found.neighbour_px()
    for part in LONE_PARTS:
        limit_px = options.neighbour_px or part * seen.traces.half_px
        lone = np.flatnonzero((neighbour_px > limit_px) & seen.traces.complete)
        if lone.size >= max(FEWEST, ENOUGH_PART * len(seen.found)):
            return lone
    if lone.size < FEWEST:
        raise CalibrationError(
            f"only {lone.size} of {len(seen.found)} particles stand alone, and {FEWEST} are needed; dilute the "
            "suspension or scan a larger field"
        )
    return lone


def _start(seen: Seen, members: IndexArray) -> Positions:
    """First depths, from shifts by whole steps on an evenly spaced grid of planes."""
    focus_um, step_um = seen.focus_um, seen.step_um
    even_um = focus_um[0] + step_um * np.arange(round((focus_um[-1] - focus_um[0]) / step_um) + 1)
    nearest = np.abs(focus_um[None, :] - even_um[:, None]).argmin(axis=1)
    there = np.abs(focus_um[nearest] - even_um) < NEAR_GRID * step_um
    small = binned(seen.traces.contrast[members])[:, nearest] * there[:, None].astype(np.float32)
    shifts, quality = start_shifts(small, seen.noise_variance / 4)
    if float(np.median(quality)) < ALIKE:
        raise CalibrationError(
            "the particles do not change alike with the focus, so their depths cannot be compared; check that "
            "there is one kind of particle, and that the focus really moves"
        )
    return Positions(
        np.ones(members.size),
        shifts * step_um,
        (seen.found.x_px - seen.traces.column)[members],
        (seen.found.y_px - seen.traces.row)[members],
    )


def _undo_jumps(
    seen: Seen, members: IndexArray, aligned: Aligned
) -> tuple[Seen, Aligned, FloatArray, list[Fault]]:
    """Correct the focus of all planes after an unstated jump, where the images then match better.

    At first only a part of a jump is visible, because the PSF adapts to the wrong positions; so it is measured
    again after each correction.
    """
    misfit, faults = _misfit(seen, members, aligned), []
    for _ in range(MOST_JUMPS):
        tried, better, plane, total_um = seen, aligned, -1, 0.0
        for _ in range(JUMP_ROUNDS):
            apparent_um, _ = apparent_focus(better, tried.focus_um, reach_um=REACH_STEPS * seen.step_um)
            least = JUMP_STEPS if plane < 0 else SETTLED_STEPS
            found = largest_jump(apparent_um - tried.focus_um, seen.step_um, least_steps=least)
            if found is None or (plane >= 0 and abs(found[0] - plane) > SAME_JUMP):
                break
            plane, by_um = (found[0] if plane < 0 else plane), found[1]
            focus_um = tried.focus_um.copy()
            focus_um[plane:] += by_um
            total_um += by_um
            tried = replace(tried, focus_um=focus_um)
            better = _align(tried, members, better.positions)
        after = _misfit(tried, members, better) if plane >= 0 else misfit
        if plane < 0 or np.median(after) > FITS_BETTER * np.median(misfit):
            break
        text = f"from plane {plane} (focus {seen.focus_um[plane]:.2f} um) on, the images match a focus "
        text += f"{total_um:+.1f} um from the stated one: a missing plane, or a focus drive that slipped; corrected"
        faults.append(Fault("focus wrong", plane, text))
        seen, aligned, misfit = tried, better, after
    return seen, aligned, misfit, faults


def _images(seen: Seen, members: IndexArray) -> npt.NDArray[np.float32]:
    contrast = seen.traces.contrast[members]
    return contrast if seen.plane_used.all() else np.ascontiguousarray(contrast[:, seen.plane_used])


def _align(seen: Seen, members: IndexArray, start: Positions) -> Aligned:
    return align(_images(seen, members), seen.focus_um[seen.plane_used], start, z_step_um=seen.step_um)


def _without_neighbours(
    seen: Seen, members: IndexArray, aligned: Aligned
) -> tuple[Aligned, npt.NDArray[np.float32]]:
    """The same traces, aligned again without the neighbours in the corners of their images; and these images."""
    focus_um, images = seen.focus_um[seen.plane_used], _images(seen, members)
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
        clean, splines = _images(seen, members), found.left_out_splines(np.empty(0, np.intp))
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


def _noise_of(noise: NoiseModel, repeats: float) -> tuple[float, float]:
    """Variance of the contrast, (read, shot), of the mean image of a plane."""
    read, shot = noise.read_variance / noise.background_grey**2, noise.gain / noise.background_grey
    level = noise.contrast_sd**2 / max(read + shot, 1e-30) / repeats
    return read * level, shot * level


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


def _misfit(seen: Seen, members: IndexArray, aligned: Aligned) -> FloatArray:
    focus_um = seen.focus_um[seen.plane_used]
    return central_misfit(aligned, _images(seen, members), focus_um, seen.noise_variance)


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
