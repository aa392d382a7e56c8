"""Finds spheres in an in-line hologram without a network: matched filtering in three dimensions, then the fit.

What a typical sphere scatters is drawn at depths through the range; its correlation with the image, over what noise
gives, is largest at a sphere's place (the image is refocused, as light that is propagated back would be). Spheres
found are fitted, their waves are taken out, and what is left of the image is searched again. Two that were taken
for one are fitted as two (`two_for_one`). Spheres a little outside of the image are found by the rings inside: left
out, they would disturb those near the edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.ndimage import maximum_filter

from acquisition.physics.hologram import HologramModel
from calibration.holograms.fit import RADIUS, SEEK_STEP, FittedSpheres, Z, fit_spheres
from calibration.holograms.two_for_one import split

FloatArray = npt.NDArray[np.float64]
_Template = tuple[npt.NDArray[np.complex128], npt.NDArray[np.float32]]

_NEAREST_PX = 6
"""Of two places as near as this to one another, and within a fringe's depth, the better is taken."""
_SEARCHES = 6
"""Most searches of what is left."""
_LEAST_SEEN = 0.1
"""Where less than this part of a sphere's contrast (squared) lies in the image, it counts as this much."""
_DISTURBED = 2
"""Searches in which spheres whose fit does not end are kept, as others nearby may be the reason."""
_MOST_AT_ONCE = 8
"""Most places taken from one search, the surest; the next one finds the others. It bounds the time of a fit."""
_LARGER = (0.2, 3.0)
"""Least and largest volume of a start, over that of the typical sphere."""
_SIDE_LOBE = 0.35
"""Of the largest correlation found in one search: smaller ones may be the side lobes of other spheres, and are left
to the next search."""


@dataclass(frozen=True)
class SphereSearch:
    """What is looked for: depths (lowest, highest), um, and what a typical sphere is.

    A place counts from a correlation of `least_snr` standard deviations of its noise. A 128 x 128 image has some
    1e5 independent places and depths, of which noise alone passes 5.5 once in 500 images. Where images are not
    exactly the model's, faint ones may be what is left of the surest sphere, so less than `least_of_surest` of its
    correlation does not count: from 0.025 to 0.08 the same spheres were found in 12 exact images. Spheres up to
    `border_um` outside of the image are looked for as well.
    """

    model: HologramModel
    depth_um: tuple[float, float]
    typical_radius_um: float = 0.2
    typical_index: float = 1.58
    noise: float = 0.01
    least_snr: float = 5.5
    least_of_surest: float = 0.04
    border_um: float = 2.0

    def find(self, image: npt.NDArray[np.floating]) -> FittedSpheres:
        """The spheres of an image (H, W) whose background is 1 within a few percent."""
        shape = (int(image.shape[0]), int(image.shape[1]))
        found, surest = fit_spheres(self.model, image, np.empty((0, 5)), self.noise), 0.0
        for _ in range(_SEARCHES):
            left = image - self.model.image(found.spheres, shape)
            places, snr = self._places(left - np.median(left), surest)
            surest = max(surest, snr)
            more = self._more(image, found, places, surest)
            if more is None:
                break
            found = more
        return split(self.model, image, found, self.noise, self.typical_index)

    def _more(
        self, image: npt.NDArray[np.floating], found: FittedSpheres, places: FloatArray, surest: float
    ) -> FittedSpheres | None:
        """A fit with more spheres than those `found`, begun at `places` (N, 5); None where there is none."""
        if not len(places):
            return None
        for some in (places, places[:1])[: len(places)]:
            more = self._settled(image, np.concatenate([found.spheres, some]))
            if len(more.spheres) > len(found.spheres):
                return more
        # each is disturbed by others that are still to be found: all stay until these have been looked for
        shape, held = (int(image.shape[0]), int(image.shape[1])), np.concatenate([found.spheres, places])
        for _ in range(_DISTURBED):
            held = fit_spheres(self.model, image, held, self.noise).spheres
            left = image - self.model.image(held, shape)
            places, _ = self._places(left - np.median(left), surest)
            if not len(places):
                return None
            held = np.concatenate([held, places])
            more = self._settled(image, held)
            if len(more.spheres) > len(found.spheres):
                return more
        return None

    def _settled(self, image: npt.NDArray[np.floating], spheres: FloatArray) -> FittedSpheres:
        """The fit of spheres (N, 5); where it does not end, the least sure are left out, half of them at a time."""
        found = fit_spheres(self.model, image, spheres, self.noise)
        while not found.ended.all() or len(self._apart(found.spheres)) < len(found.spheres):
            unsure = np.where(found.ended, 0.0, found.errors[:, RADIUS] / found.spheres[:, RADIUS])
            dropped = np.argsort(-unsure)[: (int((~found.ended).sum()) + 1) // 2]
            kept = self._apart(np.delete(found.spheres, dropped, axis=0))
            found = fit_spheres(self.model, image, kept, self.noise)
        return found

    def _places(self, left: FloatArray, surest: float) -> tuple[FloatArray, float]:
        """Starts (N, 5) by the correlation of what is left (H, W), and the largest one in standard deviations.

        `surest` is that of the spheres found before.
        """
        border, padded = self._border_px, self._padded(left.shape)
        spectrum = fft.rfft2(np.pad(left, border), s=padded)
        height, width = left.shape[0] + 2 * border, left.shape[1] + 2 * border
        templates = self._templates(left.shape)
        volume = np.empty((len(templates), height, width), np.float32)
        for plane, (template, scale) in zip(volume, templates, strict=True):
            plane[:] = fft.irfft2(spectrum * template, s=padded)[:height, :width] / scale
        window = (round(2 / SEEK_STEP) + 1, 2 * _NEAREST_PX + 1, 2 * _NEAREST_PX + 1)
        largest = float(volume.max())
        least = max(self.least_snr, _SIDE_LOBE * largest, self.least_of_surest * surest)
        peaks = np.argwhere((volume == maximum_filter(volume, size=window)) & (volume >= least))
        surest_first = np.argsort(-volume[tuple(peaks.T)])[:_MOST_AT_ONCE]
        starts = []
        for plane, row, column in peaks[surest_first]:
            typical_snr = templates[plane][1][row, column] / self.noise**2
            larger = np.clip(volume[plane, row, column] / typical_snr, *_LARGER) ** (
                1 / 3
            )  # waves go by volume
            place = (column - border, row - border, self._depths_um[plane])
            starts.append((*place, larger * self.typical_radius_um, self.typical_index))
        return np.array(starts, float).reshape(-1, 5), largest

    @cached_property
    def _depths_um(self) -> FloatArray:
        low, high = self.depth_um
        depths: FloatArray = np.linspace(low, high, round((high - low) / self._nearest_um / SEEK_STEP) + 1)
        return depths

    @property
    def _nearest_um(self) -> float:
        return self.model.optics.fringe_depth_um

    @property
    def _half_px(self) -> int:
        return int(self.model.reach_um / self.model.optics.pixel_size_um)

    @property
    def _border_px(self) -> int:
        return min(round(self.border_um / self.model.optics.pixel_size_um), self._half_px)

    def _padded(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Size of the transforms: what leaves the image at one side must not come in at the other."""
        more = 2 * (self._border_px + self._half_px) + 1
        return fft.next_fast_len(shape[0] + more, real=True), fft.next_fast_len(shape[1] + more, real=True)

    def _templates(self, shape: tuple[int, ...]) -> list[_Template]:
        """For each depth the spectrum to multiply with, the conjugate of a sphere's, and the noise of the result.

        The noise (H + 2 B, W + 2 B) is that of as much of the sphere's contrast as lies in the image.
        """
        kept: dict[tuple[int, ...], list[_Template]] = self._kept
        if shape not in kept:
            half, border, padded = self._half_px, self._border_px, self._padded(shape)
            height, width = shape[0] + 2 * border, shape[1] + 2 * border
            inside = fft.rfft2(np.pad(np.ones(shape), border), s=padded)
            kept.clear()
            kept[shape] = []
            for z_um in self._depths_um:
                sphere = np.array([half, half, z_um, self.typical_radius_um, self.typical_index])
                placed = np.zeros(padded)
                side = (2 * half + 1, 2 * half + 1)
                placed[: side[0], : side[1]] = 2 * self.model.wave(sphere, side).real
                centred = np.roll(placed, (-half, -half), axis=(0, 1))
                seen = fft.irfft2(inside * np.conj(fft.rfft2(centred**2)), s=padded)[:height, :width]
                scale = self.noise * np.sqrt(np.maximum(seen, _LEAST_SEEN * float((placed**2).sum())))
                kept[shape].append((np.conj(fft.rfft2(centred)), scale.astype(np.float32)))
        return kept[shape]

    @cached_property
    def _kept(self) -> dict[tuple[int, ...], list[_Template]]:
        return {}

    def _apart(self, spheres: FloatArray) -> FloatArray:
        """The spheres (K, 5), without those that came to the place of an earlier one."""
        kept: list[FloatArray] = []
        for sphere in spheres:
            near = (
                np.hypot(*(sphere[:2] - other[:2])) < _NEAREST_PX
                and abs(sphere[Z] - other[Z]) < self._nearest_um
                for other in kept
            )
            if not any(near):
                kept.append(sphere)
        return np.array(kept).reshape(-1, 5)
