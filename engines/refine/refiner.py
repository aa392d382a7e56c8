"""Detections of any engine, measured again by the fit; where that fails, the detector's answer stays."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engines.pixel_noise import pixel_noise
from engines.refine.alternatives import FAINT_SIGMAS
from engines.refine.block import CONVERGED
from engines.refine.frame import LARGEST_MOVE_PX, UNTRIED, begin_frame, fit_frame, take_back
from engines.refine.particle_count import settle_frame
from engines.refine.psf import FitModel
from engines.refine.rendering import A, X, Y, Z
from engines.settings import DetectorSettings
from stream.messages import Detections

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FitFrame = Callable[..., None]
"""`refine.frame.fit_frame`, or what does the same elsewhere."""

SEARCH_SIGMAS = 3.0
# How far from a detector's depth the fit looks at least: a network knows it, widths of images do not quite.
LEAST_SEARCH_UM = 30.0
NETWORK_SEARCH_UM = 8.0
SEARCH_STEP_UM = 7.5
LARGEST_MOVE_UM = 60.0
LARGEST_MOVE_SIGMAS = 6.0
LEAST_BRIGHTNESS_SIGMAS = 3.0
# Reduced chi-square, over the usual one, from which an image is not that of the calibrated particle.
WORST_FIT = 4.0
# Two particles nearer than this in all directions are one that was fitted twice.
SAME_PX = 0.5
SAME_UM = 5.0
# A chi-square within so many of its standard deviations of 1 does not widen the standard errors.
CHANCE_SIGMAS = 3.0
MEDIAN_STRIDE = 7
# The brightness of particles scatters as in the calibration, or more.
SPREAD_FACTOR, LEAST_SPREAD, UNSURE_SPREAD = 1.5, 0.08, 0.15
BRIGHT_SIGMAS, BRIGHT_SPREADS = 3.0, 3.0
NORMAL_MAD = 1.4826
# How many standard errors the brightness of an added particle has where its confidence is a half.
EVEN_CHANCE_SIGMAS = 4.0
# Below so many particles a frame says nothing of what is usual.
FEWEST = 20
LEAST_CHI_SQUARE, FEW_WORST, WORST_SIGMAS = 0.5, 1.2, 4.0
NOISE_SAMPLES = 20_000
PIXEL_SIZE_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """What the fit found: the detections (N,) that it was given, and after them those that it added, M in all.

    `theta` (M, 4): x, y in px, z in um, brightness relative to the model's particle; `sigma` (M, 4) their
    standard errors; `chi_square` (M,) reduced, NaN where nothing was fitted; `accepted` (M,) says where the
    fit is to be believed, elsewhere the detector is. `present` (M,) is False where there is no particle after all.
    """

    theta: FloatArray
    sigma: FloatArray
    chi_square: FloatArray
    accepted: BoolArray
    present: BoolArray


def fit_particles(
    contrast: Float32Array,
    model: FitModel,
    start: FloatArray,
    sigma_z_um: FloatArray,
    noise: tuple[float, float],
    total: Float32Array | None = None,
    proposals: FloatArray | None = None,
    search_um: float = LEAST_SEARCH_UM,
    fit_all: FitFrame = fit_frame,
) -> Refined:
    """Fit particles that start at `start` (N, 3: x px, y px, z um; z may be NaN) to a frame.

    `contrast` (H, W) is positive where particles are, with any slowly varying background; `sigma_z_um` (N,) how
    far off the start may be, `search_um` at least; `noise` the variance of the contrast, (read, shot x relative
    brightness). `total`, a work image of the frame's size, comes back with the image of all fitted particles.
    `proposals` (P, 3) are places where there may be more. `fit_all` is what fits the blocks.
    """
    n = len(start)
    more = np.empty((0, 3)) if proposals is None else proposals
    room = 2 * n + len(more)
    theta = np.zeros((room, 4))
    theta[:n, :3] = start
    blind = np.zeros(room, np.bool_)
    blind[:n] = ~np.isfinite(theta[:n, Z])
    theta[blind, Z] = 0.5 * (model.z_min_um + model.z_max_um)
    span = np.maximum(SEARCH_SIGMAS * np.where(np.isfinite(sigma_z_um), sigma_z_um, 0.0), search_um)
    span = np.minimum(span, LARGEST_MOVE_UM)
    span[blind[:n]] = 0.5 * (model.z_max_um - model.z_min_um)
    theta[:n, Z] = np.clip(theta[:n, Z], model.z_min_um, model.z_max_um)
    height, width = contrast.shape
    usable = np.zeros(room, np.bool_)
    usable[:n] = np.isfinite(theta[:n]).all(axis=1) & _within(theta[:n], height, width)
    given = usable.copy()
    covariance, fit = np.full((room, 4, 4), np.nan), np.full((room, 2), np.nan)
    state = np.full(room, UNTRIED)
    if total is None:
        total = np.zeros_like(contrast)
    else:
        total.fill(0)
    sign = -1.0 if model.polarity == "dark" else 1.0
    depths = np.array([model.z_first_um, model.z_step_um, model.z_min_um, model.z_max_um])
    image = (model.coefficients, depths, model.extent_px, np.array([*noise, sign]))
    begin_frame(contrast, total, theta[:n], span, SEARCH_STEP_UM, *image, usable[:n])
    fitted = (covariance, fit, state)
    alone = theta[:n].copy()
    fit_all(contrast, total, theta, *image, np.zeros(2), usable, usable, *fitted)
    usual = _usual(theta, covariance, fit, usable & (state == CONVERGED), model)
    thought = np.column_stack([more, np.full(len(more), usual.brightness)])
    thought = thought[np.isfinite(thought).all(axis=1) & _within(thought, height, width)]
    thought[:, Z] = np.clip(thought[:, Z], model.z_min_um, model.z_max_um)
    bright = usual.spread * BRIGHT_SPREADS
    with np.errstate(invalid="ignore"):
        unsure = np.sqrt(usual.spread**2 + np.fmax(covariance[:, A, A], 0.0))
        noticed = usable & ~(theta[:, A] <= usual.brightness + BRIGHT_SIGMAS * unsure)
        noticed |= usable & ~(fit[:, 0] <= usual.worst_chi_square)
        faint = usable & ~(theta[:, A] > FAINT_SIGMAS * np.sqrt(covariance[:, A, A]))
        faint |= usable & ~(theta[:, A] > usual.brightness - bright)
    noticed |= take_back(total, theta, alone, usable, *image[:3])
    changed = np.zeros(room, np.bool_)
    count = settle_frame(
        contrast,
        total,
        theta,
        n,
        thought,
        noticed,
        faint,
        usable,
        usual.chi_square,
        usual.worst_chi_square,
        usual.brightness,
        usual.spread,
        *image,
        *fitted,
        changed,
    )
    prior = np.array([usual.brightness, usual.spread**-2])
    fit_all(contrast, total, theta, *image, prior, usable, changed & usable, *fitted)
    theta, usable, fit, state = theta[:count], usable[:count], fit[:count], state[:count]
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = np.sqrt(np.diagonal(covariance[:count], axis1=1, axis2=2))
        misfit = fit[:, 0] > 1 + CHANCE_SIGMAS * np.sqrt(2 / fit[:, 1])
        sigma = sigma * np.sqrt(np.where(misfit, fit[:, 0], 1.0))[:, None]
        alike = fit[:, 0] < WORST_FIT * max(1.0, usual.chi_square)
        accepted = usable & (state == CONVERGED) & alike & np.isfinite(sigma).all(axis=1)
        accepted &= theta[:, A] > LEAST_BRIGHTNESS_SIGMAS * sigma[:, A]
    moved = np.hypot(theta[:n, X] - start[:, X], theta[:n, Y] - start[:, Y])
    accepted[:n] &= moved <= LARGEST_MOVE_PX
    allowed = np.fmax(LARGEST_MOVE_UM, LARGEST_MOVE_SIGMAS * sigma_z_um)
    near = np.abs(theta[:n, Z] - start[:, Z]) <= allowed
    accepted[:n] &= blind[:n] | near | (fit[:n, 0] <= usual.worst_chi_square)
    accepted &= (theta[:, Z] > model.z_min_um) & (theta[:, Z] < model.z_max_um)
    accepted &= ~_same(theta, accepted)
    added = accepted & _within(theta, height, width)
    present = np.where(np.arange(count) < n, usable | ~given[:count], added)
    return Refined(theta, sigma, fit[:, 0], accepted, present)


class _Usual(NamedTuple):
    """What is usual on a frame: reduced chi-square, brightness and its scatter; and the worst chi-square."""

    chi_square: float
    brightness: float
    spread: float
    worst_chi_square: float


def _usual(
    theta: FloatArray, covariance: FloatArray, fit: FloatArray, good: BoolArray, model: FitModel
) -> _Usual:
    spread = max(SPREAD_FACTOR * model.brightness_sd, LEAST_SPREAD)
    good = good & np.isfinite(fit[:, 0])
    if good.sum() < FEWEST:
        return _Usual(1.0, 1.0, max(spread, UNSURE_SPREAD), FEW_WORST)
    chi = fit[good, 0]
    middle = max(float(np.median(chi)), LEAST_CHI_SQUARE)
    chance = np.sqrt(2.0 / float(np.median(fit[good, 1])))
    scatter = max(NORMAL_MAD * float(np.median(np.abs(chi - middle))), middle * float(chance))
    brightness = float(np.median(theta[good, A]))
    apart = NORMAL_MAD * float(np.median(np.abs(theta[good, A] - brightness)))
    return _Usual(middle, brightness, max(spread, apart), middle + WORST_SIGMAS * scatter)


def _within(points: FloatArray, height: int, width: int) -> BoolArray:
    x, y = points[:, X], points[:, Y]
    inside: BoolArray = (np.abs(x - (width - 1) / 2) <= width / 2) & (
        np.abs(y - (height - 1) / 2) <= height / 2
    )
    return inside


def _same(theta: FloatArray, accepted: BoolArray) -> BoolArray:
    """Whether a particle (N,) has come to lie on another one."""
    on_another = np.zeros(len(theta), np.bool_)
    index = np.flatnonzero(accepted)
    order = index[np.argsort(theta[index, X])]
    for p, i in enumerate(order):
        for j in order[p + 1 :]:
            if theta[j, X] - theta[i, X] > SAME_PX:
                break
            if abs(theta[j, Y] - theta[i, Y]) < SAME_PX and abs(theta[j, Z] - theta[i, Z]) < SAME_UM:
                on_another[[i, j]] = True
    return on_another


def open_refiner(
    model: FitModel | None,
    settings: DetectorSettings,
    pixel_size_um: float,
    search_um: float = LEAST_SEARCH_UM,
) -> Refiner | None:
    """The fit, where there is a particle image, the settings want it, and it is of such pixels and particles."""
    if model is None or not settings.refine or settings.polarity not in ("auto", model.polarity):
        return None
    alike = abs(model.pixel_size_um / pixel_size_um - 1) <= PIXEL_SIZE_TOLERANCE
    return Refiner(model, pixel_size_um, search_um) if alike else None


class Refiner:
    """Measures the detections of frames again; frames may be worked on in several threads at once."""

    def __init__(self, model: FitModel, pixel_size_um: float, search_um: float = LEAST_SEARCH_UM) -> None:
        self.model = model
        self.fit_all: FitFrame = fit_frame
        self._search_um = search_um
        self._pixel_size_um = pixel_size_um
        self._buffers = threading.local()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(refined=0, not_refined=0, added=0, not_there=0)

    def counts(self) -> dict[str, int]:
        """So far: `refined`, and `not_refined`, which are as the detector gave them; `added` and `not_there`."""
        with self._lock:
            return dict(self._counts)

    def warmup(self, height: int, width: int) -> None:
        """Compile the fit, so that no frame of a live run has to wait for it."""
        nothing = np.random.default_rng(0).normal(0.0, 0.01, (height, width)).astype(np.float32)
        start = np.array([[width / 2.0, height / 2.0, np.nan], [width / 2.0 + 2, height / 2.0, np.nan]])
        fit_particles(nothing, self.model, start, np.full(2, np.nan), (0.0, 1e-4))

    def refine(
        self,
        image: npt.NDArray[Any],
        table: FloatArray,
        full_light: float | None = None,
        proposals: FloatArray | None = None,
    ) -> FloatArray:
        """The table of a `Detections` (8, N), measured again where the fit is to be believed.

        `image` (H, W) is as the camera gave it; with `full_light`, the grey values of a flat field, it is as
        `FlatField.correct` gave it. The brightness is then the peak of the particle's image in grey values.
        Detections that the image of the others explains are left out, particles that it lacks are added, also
        from `proposals` (8, P), a table of what the detector did not quite believe.
        """
        if not table.shape[1]:
            return table
        contrast, total, light, noise = self._prepare(image, full_light)
        row = Detections.COLUMNS.index
        start, sigma_z_um = self._start(table), table[row("sigma_z_um")]
        more = None if proposals is None else self._start(proposals)
        found = fit_particles(
            contrast, self.model, start, sigma_z_um, noise, total, more, self._search_um, self.fit_all
        )
        good, given = found.accepted, table.shape[1]
        out = np.full((table.shape[0], len(good)), np.nan)
        out[:, :given] = table
        scale = np.array([self._pixel_size_um, self._pixel_size_um, 1.0])
        for axis, name in enumerate("xyz"):
            out[row(f"{name}_um"), good] = found.theta[good, axis] * scale[axis]
            stated = found.sigma[good, axis] * scale[axis]
            out[row(f"sigma_{name}_um"), good] = stated * self.model.sigma_scale[axis]
        peak = self.model.peak_at(found.theta[good, Z])
        out[row("brightness"), good] = found.theta[good, A] * peak * light
        sure2 = (found.theta[given:, A] / found.sigma[given:, A]) ** 2
        out[row("confidence"), given:] = sure2 / (sure2 + EVEN_CHANCE_SIGMAS**2)
        added = int(found.present[given:].sum())
        gone = int((~found.present[:given]).sum())
        with self._lock:
            self._counts.update(
                refined=int(good[:given].sum()),
                not_refined=int((~good & found.present)[:given].sum()),
                added=added,
                not_there=gone,
            )
        return np.ascontiguousarray(out[:, found.present])

    def _start(self, table: FloatArray) -> FloatArray:
        """Places (N, 3) of a table (8, N): px, px, um."""
        pixel = self._pixel_size_um
        return np.column_stack([table[0] / pixel, table[1] / pixel, table[2]])

    def _prepare(
        self, image: npt.NDArray[Any], full_light: float | None
    ) -> tuple[Float32Array, Float32Array, float, tuple[float, float]]:
        """Contrast, a work image, the background in grey values, and the variance of the contrast.

        Its level is measured on the frame, how it goes with the light is the calibration's.
        """
        if getattr(self._buffers, "shape", None) != image.shape:
            self._buffers.shape = image.shape
            self._buffers.pair = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
        contrast, total = self._buffers.pair
        background = max(float(np.median(image[::MEDIAN_STRIDE, ::MEDIAN_STRIDE])), 1e-6)
        sign = -1.0 if self.model.polarity == "dark" else 1.0
        if full_light is None:
            light, relative = background, background
        else:  # corrected images are 1 less the relative brightness
            relative = max(1.0 - background, 1e-6)
            light, sign = relative * full_light, -sign
        np.multiply(image, np.float32(sign / relative), out=contrast, casting="unsafe", dtype=np.float32)
        contrast -= np.float32(sign * background / relative)
        measured = pixel_noise(contrast, max(1, contrast.size // 4 // NOISE_SAMPLES)) ** 2
        usual = self.model.read + self.model.shot
        # rounding to whole grey values is the least that there is
        level = max(measured, 1.0 / 12.0 / light**2) / usual
        return contrast, total, light, (self.model.read * level, self.model.shot * level)
