"""Detections of any engine, measured again by the fit; where it fails, the detector's result stays."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engines.pixel_noise import pixel_noise
from engines.refine.arguments import BoolArray, Float32Array, FloatArray, Noise
from engines.refine.compiling import compile_fit
from engines.refine.contrast import fill_contrast, level_of, median_of
from engines.refine.fit_notes import FitNotes, Learnt
from engines.refine.fitting import LEAST_SEARCH_UM, FitFrame, fit_particles
from engines.refine.frame import fit_frame
from engines.refine.partial import Part, PartialFit
from engines.refine.psf import FitModel
from engines.refine.rendering import A, Z
from engines.refine.sample import add_misfit, with_misfit
from engines.refine.turns import ALL, Allowance
from engines.refine.typical import Sample
from engines.settings import DetectorSettings
from stream.messages import Detections

NETWORK_SEARCH_UM = 8.0
"""um around a network's depth over which the fit searches at least, beside three of its standard errors: about one
step of the search."""
EVEN_CHANCE_SIGMAS = 4.0
"""Standard errors of the brightness at which the confidence of an added particle is 0.5: as likely noise as not,
among the many places where one may be added. Changes that confidence and nothing else."""
MEDIAN_STRIDE = 7
"""Every so many-th row and column is used for the median of an image: 75,000 of 3.7 million pixels, whose median is
good to 0.5 % of the noise."""
MEDIAN_SAMPLES = 2000
"""Pixels of a small image that its median is taken of at least."""
NOISE_SAMPLES = 20_000
"""Differences of 2 x 2 pixels that the noise is measured on: good to 0.5 %."""
PREPARING_WEIGHT = 0.1
"""Weight of a frame in the mean time that the image takes to be prepared: ten frames."""
PIXEL_SIZE_TOLERANCE = 0.02
"""Relative difference in pixel size up to which a PSF model is used: what two people round off."""


def open_refiner(
    model: FitModel | None,
    settings: DetectorSettings,
    pixel_size_um: float,
    search_um: float = LEAST_SEARCH_UM,
) -> Refiner | None:
    """The fit; None without a PSF model, where the settings forbid it, or for other pixels or another polarity."""
    if model is None or not settings.refine or settings.polarity not in ("auto", model.polarity):
        return None
    alike = abs(model.pixel_size_um / pixel_size_um - 1) <= PIXEL_SIZE_TOLERANCE
    return Refiner(model, pixel_size_um, search_um) if alike else None


class Fitted(NamedTuple):
    """Fitted particles (N): `theta` and `sigma` (N, 4), `chi_square` (N,), `other` (N, 2), as in `Refined`."""

    theta: FloatArray
    sigma: FloatArray
    chi_square: FloatArray
    other: FloatArray


def confidence_of(sure: FloatArray) -> FloatArray:
    """Confidence (N,) of particles that no network has seen, from their brightnesses in standard errors (N,)."""
    found: FloatArray = sure**2 / (sure**2 + EVEN_CHANCE_SIGMAS**2)
    return found


class Refiner:
    """Measures the detections of frames again; several threads may use it at once, one frame each."""

    def __init__(self, model: FitModel, pixel_size_um: float, search_um: float = LEAST_SEARCH_UM) -> None:
        self.model = model
        self.fit_all: FitFrame = fit_frame
        self._search_um = search_um
        self._pixel_size_um = pixel_size_um
        self._buffers = threading.local()
        self._lock = threading.Lock()
        self.forget()

    def counts(self) -> dict[str, int]:
        """Detections so far: `refined`, `not_refined` (left as the detector gave them), `added` and `not_there`.

        Where there was not always time to fit: `reduced`, which were left out for that.
        """
        with self._lock:
            return dict(self._counts)

    def stated(self) -> dict[str, object]:
        """By how much the network's standard errors are off, as `StatedErrors.facts` has it."""
        return self._partial.errors.facts()

    def notes(self) -> FitNotes:
        """Notes for a frame, which goes by what the fits so far have shown."""
        return FitNotes(self._partial.remembered())

    def begins(self, frame: int) -> None:
        """A frame is being worked on."""
        self._partial.turns.begins(frame)

    def ends(self, frame: int) -> None:
        """A frame is finished: no other need wait for it."""
        self._partial.turns.ends(frame)

    def learn(self, learnt: Learnt) -> None:
        """Take what a frame's notes say it has shown; in the order of frames."""
        self._partial.learn(learnt)

    def forget(self) -> None:
        """Forget all frames so far; no thread may be at work."""
        self._counts: Counter[str] = Counter(refined=0, not_refined=0, added=0, not_there=0)
        self._partial = PartialFit(self.model)
        self._preparing_ms = 0.0

    def warmup(self, height: int, width: int) -> None:
        """Compile the fit, so that no frame of a live run waits for it."""
        compile_fit()
        nothing = np.random.default_rng(0).normal(0.0, 0.01, (height, width)).astype(np.float32)
        start = np.array([[width / 2.0, height / 2.0, np.nan], [width / 2.0 + 2, height / 2.0, np.nan]])
        fit_particles(nothing, self.model, start, np.full(2, np.nan), (0.0, 1e-4))

    def refine(
        self,
        image: npt.NDArray[Any],
        table: FloatArray,
        full_light: float | None = None,
        proposals: FloatArray | None = None,
        allowed: Allowance = ALL,
        frame: int = 0,
    ) -> FloatArray:
        """The table of a `Detections` (9, N), measured again wherever the fit is accepted; all in local
        coordinates.

        `image` (H, W) comes from the camera, or, with the grey values `full_light` of a flat field, from
        `FlatField.correct`. The brightness of a fitted particle is the peak of its image in grey values,
        in the median's light where light multiplies particles.
        Detections that the images of others explain are removed, and missing particles are added, also from
        `proposals` (9, P), a table of detections that were too unlikely to be reported. Where less than all is
        `allowed`, the groups of this `frame` that gain most are fitted, and the other particles flagged as reduced.
        """
        if not table.shape[1]:
            return table
        if allowed.is_all:
            out, present = self._fit(image, table, full_light, proposals)
            return np.ascontiguousarray(out[:, present])
        return self._fit_some(image, table, full_light, proposals, allowed, frame)

    def reduce(
        self,
        table: FloatArray,
        shape: tuple[int, ...],
        *,
        compiles: bool = False,
        notes: FitNotes | None = None,
    ) -> FloatArray:
        """The table (9, N) of a `Detections` in an image of `shape` (H, W), none of which is fitted.

        `compiles`: because the fit is still being compiled, not for want of time. `notes` as in `Allowance`.
        """
        with self._lock:
            self._counts["reduced"] += table.shape[1]
            if compiles:
                self._counts["not_compiled"] += table.shape[1]
        return self._partial.reduced(table, self.start(table), shape, notes)

    def _fit_some(
        self,
        image: npt.NDArray[Any],
        table: FloatArray,
        full_light: float | None,
        proposals: FloatArray | None,
        allowed: Allowance,
        frame: int,
    ) -> FloatArray:
        """The table (9, M) of which only what is `allowed` was fitted."""
        more = np.empty((0, 3)) if proposals is None else self.start(proposals)
        notes = allowed.notes
        rest = Allowance(allowed.share, allowed.ms - self._preparing_ms, notes)
        start = self.start(table)
        part = self._partial.part(frame, table, start, more, image.shape, rest)
        if not part.chosen.any():
            return self.reduce(table, image.shape, notes=notes)
        begun_s = time.perf_counter()
        some = np.ascontiguousarray(table[:, part.rows])
        out, present = self._fit(image, some, full_light, proposals, part, notes)
        took_ms = 1e3 * (time.perf_counter() - begun_s)
        self._partial.turns.spent(part.units, took_ms - self._preparing_ms)
        before = table.copy()
        self._partial.flag(before, ~part.chosen, part.overlapped, start, image.shape, notes)
        given = len(part.rows)
        before[:, part.chosen] = out[:, :given][:, ~part.drawn]
        there = np.ones(table.shape[1], np.bool_)
        there[part.chosen] = present[:given][~part.drawn]
        with self._lock:
            self._counts["reduced"] += int((~part.chosen).sum())
        return np.ascontiguousarray(np.hstack([before[:, there], out[:, given:][:, present[given:]]]))

    def _fit(
        self,
        image: npt.NDArray[Any],
        table: FloatArray,
        full_light: float | None,
        proposals: FloatArray | None,
        part: Part | None = None,
        notes: FitNotes | None = None,
    ) -> tuple[FloatArray, BoolArray]:
        """The table (9, M) of particles given (9, N) and, behind them, new ones; which of them are there (M,)."""
        begun_s = time.perf_counter()
        contrast, total, light, noise = self.prepare(image, full_light)
        preparing_ms = 1e3 * (time.perf_counter() - begun_s)
        self._preparing_ms += PREPARING_WEIGHT * (preparing_ms - self._preparing_ms)
        row = Detections.COLUMNS.index
        start, sigma_z_um = self.start(table), table[row("sigma_z_um")]
        more = None if proposals is None else self.start(proposals)
        drawn, known = (None, None) if part is None else (part.drawn, self._partial.known(notes))
        found = fit_particles(
            contrast,
            self.model,
            start,
            sigma_z_um,
            noise,
            total,
            more,
            self._search_um,
            self.fit_all,
            drawn,
            known,
            # a flat field has taken the camera's offset off
            self.model.light_gain(light if full_light is None else math.inf),
        )
        good, given = found.accepted, table.shape[1]
        out = np.full((table.shape[0], len(good)), np.nan)
        out[:, :given] = with_misfit(table, self.model, self._pixel_size_um, image.shape)
        self.put_fitted(
            out, good, Fitted(found.theta, found.sigma, found.chi_square, found.other), light, image.shape
        )
        out[row("confidence"), given:] = confidence_of(found.theta[given:, A] / found.sigma[given:, A])
        out[row("flags"), given:] = 0.0
        mine = np.ones(given, np.bool_) if drawn is None else ~drawn
        if part is not None:
            fitted = np.flatnonzero(good[:given])
            sample = Sample(*(part_of[fitted] for part_of in found.sample))
            learnt = Learnt(table[:, fitted], out[:, fitted], sample, part.overlapped[part.rows[fitted]])
            self._partial.learn(learnt, notes)
        added = int(found.present[given:].sum())
        gone = int((~found.present[:given]).sum())
        with self._lock:
            self._counts.update(
                refined=int(good[:given].sum()),
                not_refined=int((~good & found.present)[:given][mine].sum()),
                added=added,
                not_there=gone,
            )
        return out, found.present

    def put_fitted(
        self, table: FloatArray, which: BoolArray, fitted: Fitted, light: float, shape: tuple[int, ...]
    ) -> None:
        """Fill in the columns of a `table` (columns, N) that a fit measures, for `which` (N,) of its particles.

        `light` is the background in grey values, `shape` (H, W) that of the image.
        """
        row = Detections.COLUMNS.index
        theta, sigma, chi_square, other = fitted
        scale = np.array([self._pixel_size_um, self._pixel_size_um, 1.0])
        sigma_um = self._sigma_um(theta[which], sigma[which, :3] * scale, shape)
        for axis, name in enumerate("xyz"):
            table[row(f"{name}_um"), which] = theta[which, axis] * scale[axis]
            table[row(f"sigma_{name}_um"), which] = sigma_um[:, axis]
        table[row("brightness"), which] = theta[which, A] * self.model.peak_at(theta[which, Z]) * light
        table[row("chi_square"), which] = chi_square[which]
        for axis, name in enumerate(("z_other_um", "p_other")):
            table[row(name), which] = other[which, axis]

    def noise_of(self, noise: tuple[float, float]) -> Noise:
        """The variance of the contrast, (read, shot), as the kernels take it."""
        return Noise(float(noise[0]), float(noise[1]), -1.0 if self.model.polarity == "dark" else 1.0)

    def _sigma_um(self, theta: FloatArray, sigma_um: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        """Standard errors (N, 3) of fitted particles `theta` (N, 4) that are stated, from those of noise alone."""
        if self.model.misfit is None:
            return np.asarray(sigma_um * np.array(self.model.sigma_scale), np.float64)
        stated: FloatArray = np.sqrt(add_misfit(sigma_um**2, self.model, theta[:, :2], theta[:, Z], shape))
        return stated

    def start(self, table: FloatArray) -> FloatArray:
        """Places (N, 3) of a table (9, N): px, px, um."""
        pixel = self._pixel_size_um
        return np.column_stack([table[0] / pixel, table[1] / pixel, table[2]])

    def prepare(
        self, image: npt.NDArray[Any], full_light: float | None
    ) -> tuple[Float32Array, Float32Array, float, tuple[float, float]]:
        """Contrast, a work image, the background in grey values, and the variance of the contrast.

        The level of the noise is measured on the frame; how it grows with the light comes from the calibration.
        """
        if getattr(self._buffers, "shape", None) != image.shape:
            self._buffers.shape = image.shape
            self._buffers.pair = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
        contrast, total = self._buffers.pair
        if self.model.quantity is None:
            background = max(median_of(image[::MEDIAN_STRIDE, ::MEDIAN_STRIDE]), 1e-6)
        else:
            step = max(1, min(MEDIAN_STRIDE, int(np.sqrt(image.size / MEDIAN_SAMPLES))))
            background = max(level_of(image[::step, ::step]), 1e-6)
        sign = -1.0 if self.model.polarity == "dark" else 1.0
        if full_light is None:
            light, relative = background, background
        else:  # corrected images are 1 less the relative brightness
            relative = max(1.0 - background, 1e-6)
            light, sign = relative * full_light, -sign
        seen = image.view()
        seen.flags.writeable = False  # one kernel for images that may be changed and that may not
        fill_contrast(seen, sign / relative, sign * background / relative, contrast)
        measured = pixel_noise(contrast, max(1, contrast.size // 4 // NOISE_SAMPLES)) ** 2
        # rounding to whole grey values adds a variance of 1/12 at least
        return contrast, total, light, self.model.variance_of(max(measured, 1.0 / 12.0 / light**2))
