"""Detection in one volume: background and noise, proposals, the joint fit, and what is kept of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.settings import DetectorSettings
from engines.volumes.confidence.false_alarms import LAPLACIAN_ROUGHNESS, MATCHED_ROUGHNESS, FalseAlarms
from engines.volumes.fit.spots import Fitted, fit_spots
from engines.volumes.kept import fitted_probability, prospects
from engines.volumes.limited_fit import VolumeLimit
from engines.volumes.polarity import inverted
from engines.volumes.proposal import Proposals, Proposer
from engines.volumes.proposing.bands import BandFilter
from engines.volumes.proposing.matched_filter import LEAST_STRENGTH, MatchedFilter
from engines.volumes.proposing.sef3d import LaplacianOfGaussian
from engines.volumes.psf import VolumePsf
from engines.volumes.slice_times import times_of
from engines.volumes.spot_shape import NARROWER
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.estimate import estimate_surroundings
from engines.volumes.surroundings.noise import Noise
from engines.volumes.surroundings.structure import with_structure
from stream.messages import DetectionFlag, Detections

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
COLUMNS = {name: index for index, name in enumerate(Detections.COLUMNS)}
LEAST_CONFIDENCE = 0.25
"""Probability from which particles are kept where `detector.min_confidence` is not given. The score F1 is
largest if
those above half of it are kept (Lipton et al. 2014, ECML PKDD, 225): a third where noise hides half of the
particles. From 0.33 to 0.25 it rose by 0.01 at SNR 1; where noise hides no particle, no number in between changes
what is kept."""
LEAST_SEF3D = 3.0
"""Answer of the Laplacian, in standard deviations, from which maxima are looked at."""


@dataclass(frozen=True, slots=True)
class Voxel:
    """Size of a voxel."""

    step_um: float
    pixel_um: float

    @property
    def zyx_um(self) -> tuple[float, float, float]:
        """Along z, y and x."""
        return self.step_um, self.pixel_um, self.pixel_um


class VolumeDetector:
    """Detects in volumes of one voxel size. Several threads may use it at a time."""

    def __init__(
        self,
        psf: VolumePsf,
        voxel: Voxel,
        settings: DetectorSettings,
        noise: Noise | None = None,
        network: Proposer | None = None,
        *,
        dark: bool = False,
    ) -> None:
        """Particles are darker than the background where they are `dark`."""
        self._psf, self._voxel, self._settings, self._noise = psf, voxel, settings, noise
        self._dark = dark
        self._network = network
        self._laplacian = laplacian = settings.engine == "sef3d"
        sigma = psf.sigma_voxels
        self._filter: BandFilter = (
            LaplacianOfGaussian(sigma, settings.threshold or LEAST_SEF3D)
            if laplacian
            else MatchedFilter(sigma, LEAST_STRENGTH)
        )
        z, y, x = (NARROWER * s for s in sigma)
        self._narrow: BandFilter = self._filter if laplacian else MatchedFilter((z, y, x), LEAST_STRENGTH)
        asked = settings.min_confidence
        self._least_confidence = LEAST_CONFIDENCE if asked is None else asked
        self._roughness = LAPLACIAN_ROUGHNESS if laplacian else MATCHED_ROUGHNESS

    @property
    def details(self) -> dict[str, Any]:
        """What is looked for."""
        z, y, x = self._psf.sigma_um
        return {
            "spot_um": [round(x, 4), round(y, 4), round(z, 4)],
            "psf": "measured" if self._psf.is_measured else "gaussian",
            "polarity": "dark" if self._dark else "bright",
        }

    def surroundings(self, image: npt.NDArray[Any], missing: BoolArray) -> tuple[Background, Noise]:
        """Background and noise of a volume; noise that neighbours share counts as much more noise."""
        sigma = max(self._psf.sigma_voxels[1:])
        background, noise = estimate_surroundings(image, missing, sigma, self._noise, even_noise=self._dark)
        if background.crowded:  # what is seen between the particles is theirs as well
            return background, noise
        background = with_structure(image, missing, background, noise, self._psf.sigma_voxels)
        scale = self._filter.noise_scale(image, missing, background, noise)
        return background, noise.times(max(scale, 1.0) ** 2)

    def detect(
        self,
        image: npt.NDArray[Any],
        missing: BoolArray,
        heights_um: FloatArray,
        times_s: FloatArray,
        limit: VolumeLimit | None = None,
    ) -> tuple[FloatArray, Counter[str]]:
        """Return the rows of a `Detections` table (columns, N), and counts of what was left out, by reason.

        `image` is (Z, H, W); `missing`, `heights_um` and `times_s` (Z,) are the slices'. `limit` says what is
        fitted whole; the rest has the short fit and is flagged as reduced.
        """
        image = inverted(image) if self._dark else unchangeable(image)
        background, noise = self.surroundings(image, missing)
        # the noise of a calibration holds for the errors; light of a spot's size makes places more doubtful only
        of_voxels = noise if self._noise is None else self._noise
        used = self._narrow if background.crowded else self._filter
        places = used.propose(image, missing, background, noise)
        false_alarms = FalseAlarms.of(image.shape, used.sigma_voxels, self._roughness)
        skewness = used.skewness if isinstance(used, MatchedFilter) else 0.0
        found = prospects(places, used.least_strength, false_alarms, skewness, background, noise)
        left_out = Counter({"noise": found.left_out})
        if self._network is not None:
            found = found.with_those_of(
                self._network.propose(image, missing, background, noise), self._psf.sigma_voxels
            )
        if self._laplacian:
            table = self._unfitted(found.proposals, found.probability, heights_um)
        else:
            fitted = fit_spots(
                image, missing, found.proposals, self._psf, of_voxels, background,
                heights_um=heights_um if heights_um.size > 1 else None,
                background_sd=background.sd,
                limit=limit,
            )  # fmt: skip
            if limit is not None:
                limit.ended()
            left_out["no_fit"] = max(0, len(found.proposals) - int((fitted.source >= 0).sum()))
            sure = fitted_probability(fitted, found, of_voxels, noise, self._psf.sigma_voxels)
            table = self._rows(fitted, sure)
        z_um = table[COLUMNS["z_um"]]
        table[COLUMNS["time_offset_s"]] = times_of(z_um, heights_um, times_s, missing, self._psf.sigma_z_um)
        if heights_um.size == 1:
            table[COLUMNS["z_um"]] = table[COLUMNS["sigma_z_um"]] = np.nan
        kept = table[COLUMNS["confidence"]] >= self._least_confidence
        left_out["doubtful"] = int((~kept).sum())
        return np.ascontiguousarray(table[:, kept]), left_out

    def _rows(self, fitted: Fitted, probability: FloatArray) -> FloatArray:
        step_um, pixel_um = self._voxel.step_um, self._voxel.pixel_um
        return _table(
            len(fitted),
            x_um=fitted.x * pixel_um,
            y_um=fitted.y * pixel_um,
            z_um=fitted.z * step_um,
            sigma_x_um=fitted.sigma_x * pixel_um,
            sigma_y_um=fitted.sigma_y * pixel_um,
            sigma_z_um=fitted.sigma_z * step_um,
            brightness=fitted.amplitude,
            confidence=probability,
            chi_square=fitted.chi_square,
            flags=float(DetectionFlag.AT_END) * fitted.at_end + float(DetectionFlag.REDUCED) * fitted.short,
        )

    def _unfitted(self, places: Proposals, probability: FloatArray, heights_um: FloatArray) -> FloatArray:
        steps = np.arange(heights_um.size, dtype=np.float64)
        z_um = np.interp(places.z, steps, heights_um)
        near = (z_um < heights_um[0] + self._psf.sigma_z_um) | (z_um > heights_um[-1] - self._psf.sigma_z_um)
        return _table(
            len(places),
            x_um=places.x * self._voxel.pixel_um,
            y_um=places.y * self._voxel.pixel_um,
            z_um=z_um,
            brightness=places.amplitude,
            confidence=probability,
            flags=np.where(near, float(DetectionFlag.AT_END), 0.0),
        )


def unchangeable(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same image, read-only, as those of a shared ring are: kernels are compiled for one kind of array."""
    seen = image.view()
    seen.flags.writeable = False
    return seen


def _table(count: int, **columns: FloatArray) -> FloatArray:
    table = np.full((len(Detections.COLUMNS), count), np.nan)
    for name, values in columns.items():
        table[COLUMNS[name]] = values
    return table
