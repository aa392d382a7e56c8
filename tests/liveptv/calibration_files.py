"""Small calibrations with a known truth: astigmatic Gaussian particles in a scan that is drawn, not recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.ambiguity import find_ambiguity
from calibration.calibration_file import write_calibration
from calibration.features import local_variance, make_masks, masked_signal
from calibration.field.cross_validation import Validation
from calibration.field.named import NamedTerms
from calibration.focal_planes import FocalPlanes
from calibration.noise import NoiseModel
from calibration.pipeline import Calibrated
from calibration.preparation import Prepared
from calibration.psf_model import PsfModel
from calibration.result import Calibration, FeatureCurves, ParticleTable
from calibration.scan.contrast import Background
from calibration.scan.planes import ScanPlane
from calibration.surface import fit_surface
from engines.refine.field import FieldModel
from engines.refine.misfit import Misfit

GREY, NOISE_SD, PIXEL_UM, STEP_UM, HALF_PX, REPEATS = 200.0, 0.005, 0.8, 4.0, 16, 2
Z_UM = np.arange(-60.0, 61.0, STEP_UM)
FOCUS_UM = np.arange(-100.0, 101.0, STEP_UM)
SHAPE = (120, 200)


def particle_images(focal_um=30.0):
    """Contrast (J, P, P) at depths `Z_UM`, sharpest along x at `focal_um` and along y at the opposite depth."""
    y, x = np.mgrid[-HALF_PX : HALF_PX + 1, -HALF_PX : HALF_PX + 1]
    sx, sy = (np.hypot(1.5, 0.05 * (Z_UM + sign * focal_um))[:, None, None] for sign in (-1, 1))
    return 0.1 * 2.25 / (sx * sy) * np.exp(-(x**2) / (2 * sx**2) - y**2 / (2 * sy**2))


def particle_table(reasons=(), height_um=lambda x_um, _y_um: 0 * x_um):
    """Eighteen particles on a grid; the first ones are left out for these reasons."""
    x, y = (a.ravel() * PIXEL_UM for a in np.meshgrid(20.0 + 32 * np.arange(6), 20.0 + 38 * np.arange(3)))
    n = x.size
    return ParticleTable(
        x_um=x, y_um=y, z_um=height_um(x, y), sigma_x_um=np.full(n, 0.01), sigma_y_um=np.full(n, 0.02),
        sigma_z_um=np.full(n, 0.1), brightness=np.linspace(0.9, 1.1, n), misfit=np.linspace(0, 0.01, n),
        neighbour_px=np.full(n, 32.0), complete=(x > 16 * PIXEL_UM) & (x < 180 * PIXEL_UM),
        reason=np.array([*reasons, *[""] * (n - len(reasons))], dtype="<U80"),
    )  # fmt: skip


def small_calibration(table=None, *, astigmatic=True, polarity="dark", seed=0, **changes):
    """A calibration as `calibrate` would find it from a faultless scan of these particles."""
    table = particle_table() if table is None else table
    images = particle_images(30.0 if astigmatic else 0.0)
    rng = np.random.default_rng(seed)
    masks = make_masks(images)
    model = PsfModel.from_images(
        images, Z_UM[0], STEP_UM, pixel_size_um=PIXEL_UM, polarity=polarity,
        z_range_um=(Z_UM[1], Z_UM[-2]),
    )  # fmt: skip
    used = np.flatnonzero(table.used & table.complete)
    trace_z_um = table.z_um[used, None] - FOCUS_UM
    traces = [
        table.brightness[used, None] ** power
        * np.interp(trace_z_um, Z_UM, feature)
        * (1 + rng.normal(0, 0.01))
        for power, feature in ((1, masked_signal(images, masks)), (2, local_variance(images)))
    ]
    sigmas = (np.hypot(1.5, 0.05 * (Z_UM + sign * 30)) * PIXEL_UM for sign in (-1, 1))
    surface = fit_surface(
        table.x_um[table.used], table.y_um[table.used], table.z_um[table.used],
        (SHAPE[1] * PIXEL_UM, SHAPE[0] * PIXEL_UM), depth_um=120,
    )  # fmt: skip
    facts = {
        "model": model,
        "focal_planes": FocalPlanes(30.0, -30.0, 0.0, True) if astigmatic else FocalPlanes(0.0, 0.0, 0.0, False),
        "particles": table,
        "noise": NoiseModel(1.0, 0.1, NOISE_SD, 0.0, GREY, 0.0, 0.0, 0.0, 0.0),
        "curves": FeatureCurves(
            Z_UM, masked_signal(images, masks), local_variance(images), *sigmas,
            np.full(Z_UM.size, 2.0), np.full(Z_UM.size, 2.0), trace_z_um, *traces,
        ),
        "ambiguity": find_ambiguity(images, Z_UM, NOISE_SD),
        "surface": surface,
        "focus_um": FOCUS_UM,
        "apparent_focus_um": FOCUS_UM + rng.normal(0, 0.2, FOCUS_UM.size),
        "plane_used": np.ones(FOCUS_UM.size, bool),
        "repeats": REPEATS,
        "shape": SHAPE,
        "provenance": {"scan": "drawn.ome.tif"},
    }  # fmt: skip
    return Calibration(**facts | changes)


def named_terms(**changes):
    terms = {
        "tilt_um": (3.0, -1.0), "tilt_sigma_um": (0.1, 0.1), "curve_um": (2.0, 1.0), "curve_sigma_um": (0.1, 0.1),
        "surface_applied": True, "surface_scatter_um": 0.2, "walk_percent": 1.0, "walk_sigma_percent": 0.1,
        "walk_applied": True, "stage_um": (np.nan, np.nan), "stage_removed": False, "modes": 1, "degree": 1,
        "brightness_degree": 0,
        "scores": (("one image for the whole field", 1.0), ("place to the power of 1", 0.5)),
        "astigmatism": ((0.0, 0.0, 60.0, 1.0),),
    }  # fmt: skip
    return NamedTerms(**terms | changes)


def varying(**changes):
    """A calibration of which everything is known that changes over the field."""
    plain = small_calibration()
    modes = 0.1 * plain.model.coefficients[None]
    field = FieldModel(
        SHAPE, np.array([0, 1.5, -0.8, 2.0, 0, 2.8]), 1e-4 * np.eye(2), modes, np.array([[0, 1.0, 0.5]]), 1
    )
    misfit = Misfit(SHAPE, np.array([-50.0, 0.0, 50.0]), np.full((1, 1, 3, 3), 0.01))
    particle = np.repeat(np.arange(18), 10)
    rng = np.random.default_rng(0)
    columns = [plain.particles.x_um[particle], plain.particles.y_um[particle], rng.uniform(-50, 50, 180)]
    rows = Validation(
        particle,
        *columns,
        *rng.normal(0, 0.2, (3, 180)),
        *np.full((3, 180), 0.1),
        np.ones(180),
    )
    model = replace(plain.model, field=field, misfit=misfit)
    return small_calibration(**{"named": named_terms(), "validation": rows} | changes | {"model": model})


class DrawnScan:
    """Stands for the recorded scan: draws the images that are asked for."""

    pixel_size_um = PIXEL_UM

    def __init__(self, found, seed=1):
        self._found, self._rng = found, np.random.default_rng(seed)

    def read(self, images):
        found, table = self._found, self._found.particles
        contrast = np.zeros((SHAPE[0] + 2 * HALF_PX, SHAPE[1] + 2 * HALF_PX))
        depth_um = table.z_um - found.focus_um[images[0] // REPEATS]
        x_px, y_px = table.x_um / PIXEL_UM, table.y_um / PIXEL_UM
        column, row = np.rint(x_px).astype(int), np.rint(y_px).astype(int)
        drawn = found.model.images(depth_um, x_px - column, y_px - row)
        for image, brightness, r, c in zip(drawn, table.brightness, row, column, strict=True):
            contrast[r : r + 2 * HALF_PX + 1, c : c + 2 * HALF_PX + 1] += brightness * image
        inner = contrast[HALF_PX:-HALF_PX, HALF_PX:-HALF_PX]
        noise = self._rng.normal(0, NOISE_SD, (len(images), *SHAPE))
        sign = -1 if found.model.polarity == "dark" else 1
        return GREY * (1 + sign * inner + noise)


def write_small(path, found):
    """Write it with its particles' images."""
    planes = [
        ScanPlane(float(focus), tuple(range(REPEATS * k, REPEATS * (k + 1))))
        for k, focus in enumerate(found.focus_um)
    ]
    light = np.full(SHAPE, GREY, np.float32)
    background = Background(light, np.zeros_like(light), found.model.polarity, GREY, "drawn")
    prepared = Prepared(planes, [plane.images for plane in planes], np.ones(len(planes)), [])
    calibrated = Calibrated(
        found, background, prepared, HALF_PX, np.zeros((len(found.models), len(planes), 2))
    )
    write_calibration(path, calibrated, DrawnScan(found))
    return path
