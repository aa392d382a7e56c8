"""From an experiment file to what a plan needs; what is missing is asked for by the names of the settings."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.classical.widths import WIDTH_SCATTER, WidthCurve
from liveptv.config import Experiment
from liveptv.config.plan_settings import PlanSettings
from liveptv.planning.earlier_run import EarlierRun, earlier_run
from stream.errors import ConfigurationError
from tracking.control.protocol_settings import Foci
from tracking.physics.channel.derived import UM3_PER_UL
from tracking.physics.channel.parameters import (
    CENTER,
    FLOOR,
    PARAMETERS,
    UNKNOWN,
    VELOCITY,
    Known,
    Prior,
    prior_of,
)
from tracking.physics.diffusion.settings import DiffusionSettings
from tracking.physics.diffusion.stokes_einstein import diffusion_um2_s, water_viscosity_mpa_s
from tracking.physics.planning.camera import Camera
from tracking.physics.planning.view import Localisation, View
from tracking.physics.planning.widths import errors_from_widths
from tracking.physics.sections.shapes import Rectangle, Section
from tracking.physics.tracks.velocities import MIN_LENGTH

UM3_PER_ML = 1e12
PASCAL_SECONDS = 1e-3  # of 1 mPa s
BYTES_A_PIXEL = 2
STEADY_UM_S = 1e-9
"""In place of no flow, which has no direction."""


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Everything that a plan is made from; `consistency_error` is the viscosity's standard error, relative."""

    view: View
    section: Section
    theta: np.ndarray
    prior: Prior
    wanted: dict[str, float]
    camera: Camera
    settings: PlanSettings
    viscosity_pa_s: float | None
    consistency_error: float
    reach_um: tuple[float, float]
    flow_ul_s: float | None


def inputs_of(experiment: Experiment) -> Inputs:
    """Raises `ConfigurationError` with the names of all settings that are missing, in one line."""
    plan = experiment.plan
    like = None if plan.like is None else earlier_run(plan.like)
    missing: list[str] = []

    def needed(value: object, setting: str) -> bool:
        if value is None:
            missing.append(setting)
        return value is not None

    wanted = plan.wanted.given()
    if not wanted:
        missing.append("plan.wanted (such as wanted = { flow_rate = 0.01, floor_um = 0.5 })")
    of_flow = [name for name in wanted if name != "diffusion"]
    channel = experiment.channel
    if of_flow:
        needed(channel, "channel.width_um and channel.depth_um")
        if plan.flow_ul_s is None and plan.velocity_um_s is None:
            missing.append("plan.flow_ul_s (or plan.velocity_um_s)")
    rate = plan.frame_rate_hz or (like.frame_rate_hz if like else None)
    needed(rate, "plan.frame_rate_hz")
    pixels = plan.image_px or (like.image_px if like else None)
    needed(pixels, "plan.image_px")
    pixel = _pixel(experiment, like)
    needed(pixel, "plan.pixel_size_um")
    localisation = _localisation(experiment, like, pixel, missing)
    d, viscosity, viscosity_error = _liquid(experiment, missing)
    if {"wall_shear", "pressure_gradient"} & set(wanted) and viscosity is None:
        missing.append("diffusion.viscosity_mpa_s (or diffusion.water and temperature_c)")
    if plan.particles_per_ml is None and plan.particles_in_image is None and like is None:
        missing.append("plan.particles_per_ml (or plan.particles_in_image)")
    if missing or rate is None or pixels is None or pixel is None or localisation is None or d is None:
        raise ConfigurationError(f"the plan needs {'; '.join(dict.fromkeys(missing))}")

    factor = experiment.optics.refraction_factor
    size = (pixels[0] * pixel, pixels[1] * pixel)
    depth = factor * float(np.ptp(localisation.z_um))
    width, height, floor = size[1], depth, factor * float(localisation.z_um[0])
    middle = 0.0
    if channel is not None:
        width, height, floor = channel.width_um, channel.depth_um, factor * channel.floor_um
        centre = channel.center_y_um
        middle = 0.0 if centre is None else (size[1] - pixel) / 2.0 - centre
    section = Rectangle(width, height)
    seen = size[0] * min(size[1], width) * min(depth, height)
    density = _density(plan, like, seen)
    view = View(
        size, middle, rate, localisation, density, d, factor,
        experiment.tracker.detection_probability, MIN_LENGTH,
    )  # fmt: skip
    speed = _mean_velocity(plan, section)
    theta = np.zeros(len(PARAMETERS))
    begin = {"slip_um": 0.0, "flow_index": 1.0, "width_um": width, "depth_um": height}
    known = {str(name): Known(begin[name], UNKNOWN) for name in plan.unknown}
    prior = prior_of(section, known)
    theta[:] = np.nan_to_num(prior.value)
    theta[VELOCITY], theta[FLOOR], theta[CENTER] = speed, floor, (size[1] - pixel) / 2.0 - middle
    limits = experiment.limits
    reach = (
        -math.inf if limits.min_focus_um is None else limits.min_focus_um,
        math.inf if limits.max_focus_um is None else limits.max_focus_um,
    )
    return Inputs(
        view, section, theta, prior, wanted, _camera(experiment, pixels), plan, viscosity, viscosity_error, reach,
        plan.flow_ul_s,
    )  # fmt: skip


def _pixel(experiment: Experiment, like: EarlierRun | None) -> float | None:
    sources = (experiment.microscope, experiment.recording, experiment.source)
    given = [experiment.plan.pixel_size_um, *(one.pixel_size_um for one in sources if one is not None)]
    return next((one for one in given if one is not None), None if like is None else like.pixel_size_um)


def _localisation(
    experiment: Experiment, like: EarlierRun | None, pixel: float | None, missing: list[str]
) -> Localisation | None:
    """Given, of an earlier run, or of the widths of the model's particle images."""
    plan, model = experiment.plan, experiment.detector.model
    given = plan.localisation_um
    if given is not None:
        is_table = isinstance(given[0], list) if given else False
        span = plan.depth_range_um
        return _given(given, span if span is not None or is_table else _range_of(model, missing))
    if like is not None:
        return _within(like.localisation, plan.depth_range_um)
    if model is not None and model.suffix.lower() == ".h5" and plan.snr is not None:
        if pixel is None:
            return None
        curve = WidthCurve.load(model)
        found = errors_from_widths(
            curve.z_um, curve.sigma_x_um, curve.sigma_y_um, curve.amplitude, plan.snr, pixel, WIDTH_SCATTER
        )
        return _within(found, plan.depth_range_um)
    other = "plan.snr" if model is not None and model.suffix.lower() == ".h5" else "plan.like"
    missing.append(f"plan.localisation_um (or {other})")
    return None


def _given(given: list[float] | list[list[float]], span: tuple[float, float] | None) -> Localisation | None:
    table = np.array(given, np.float64)
    if table.shape == (3,):
        if span is None:
            return None
        return Localisation(np.array(span), np.repeat(table[:, None], 2, axis=1))
    if table.ndim != 2 or table.shape[1] != 4:
        raise ConfigurationError(
            "plan.localisation_um needs three standard errors, or rows of depth and three standard errors"
        )
    return _within(Localisation(table[:, 0], table[:, 1:].T), span)


def _within(localisation: Localisation, span: tuple[float, float] | None) -> Localisation:
    if span is None:
        return localisation
    z = np.unique(np.clip(np.append(localisation.z_um, span), *span))
    return Localisation(z, localisation.at(z))


def _range_of(model: Path | None, missing: list[str]) -> tuple[float, float] | None:
    """The depths that the model reads."""
    if model is not None and model.suffix.lower() == ".onnx":
        from engines.network.model import OnnxModel  # ONNX Runtime takes 0.3 s to import

        return OnnxModel(model).card.z_range_um
    if model is not None and model.suffix.lower() == ".h5":
        z = WidthCurve.load(model).z_um
        return float(z[0]), float(z[-1])
    missing.append("plan.depth_range_um")
    return None


def _liquid(experiment: Experiment, missing: list[str]) -> tuple[float | None, float | None, float]:
    """D, um^2/s, viscosity, Pa s, and its relative standard error."""
    known: DiffusionSettings = experiment.diffusion
    viscosity, error = known.viscosity_mpa_s, known.viscosity_error_mpa_s
    if viscosity is None and known.water and known.temperature_c is not None:
        viscosity = water_viscosity_mpa_s(known.temperature_c)
        off = water_viscosity_mpa_s(known.temperature_c + known.temperature_error_c)
        error = abs(off - viscosity)
    relative = 0.0 if viscosity is None else error / viscosity
    pascal = None if viscosity is None else PASCAL_SECONDS * viscosity
    if experiment.tracker.diffusion_um2_s is not None:
        return experiment.tracker.diffusion_um2_s, pascal, relative
    asked = []
    if known.temperature_c is None:
        asked.append("temperature_c")
    if viscosity is None:
        asked.append("viscosity_mpa_s (or water)")
    if known.particle_diameter_um is None:
        asked.append("particle_diameter_um")
    if asked or known.temperature_c is None or viscosity is None or known.particle_diameter_um is None:
        missing.append(f"diffusion.{', diffusion.'.join(asked)} (or tracker.diffusion_um2_s)")
        return None, pascal, relative
    return diffusion_um2_s(known.temperature_c, viscosity, known.particle_diameter_um), pascal, relative


def _density(plan: PlanSettings, like: EarlierRun | None, seen_um3: float) -> float:
    if plan.particles_per_ml is not None:
        return plan.particles_per_ml / UM3_PER_ML
    if plan.particles_in_image is not None:
        return plan.particles_in_image / seen_um3
    assert like is not None
    return like.particles_per_um3


def _mean_velocity(plan: PlanSettings, section: Section) -> float:
    if plan.velocity_um_s is not None:
        return plan.velocity_um_s
    if plan.flow_ul_s is not None:
        return plan.flow_ul_s * UM3_PER_UL / section.area_um2
    return STEADY_UM_S


def _camera(experiment: Experiment, pixels: tuple[int, int]) -> Camera:
    plan, tracker = experiment.plan, experiment.tracker
    exposure_ms = plan.exposure_ms
    if exposure_ms is None and experiment.microscope is not None:
        exposure_ms = experiment.microscope.exposure_ms
    kept = experiment.record.mode == "all"
    folder = (experiment.record.output or experiment.run.output).absolute().parent
    while kept and not folder.exists():
        folder = folder.parent
    return Camera(
        1e-3 * (exposure_ms or 0.0),
        tracker.max_displacement_um if tracker.mode == "flow" else tracker.max_distance_um,
        tracker.mode == "flow",
        plan.image_diameter_um,
        float(BYTES_A_PIXEL * pixels[0] * pixels[1]) if kept else 0.0,
        float(shutil.disk_usage(folder).free) if kept else math.inf,
    )


def given_foci(slices: object) -> list[float] | None:
    """The focus positions, where the settings list them."""
    if isinstance(slices, Foci):
        return slices.positions_um()
    return list(slices) if isinstance(slices, list) else None
