"""Cut-out particle images in a calibration file: every repeat of every labelled particle in every plane.

Training images are pasted together from them (Franchini & Krevor 2020, section 2.1.3).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationError
from calibration.features import background_variance, make_masks
from calibration.pipeline import Calibrated
from calibration.result import Calibration
from calibration.scan.cutouts import corners, window
from calibration.scan.planes import FocusScan
from calibration.synthesis.from_optics import background_for
from calibration.synthesis.inputs import BackgroundModel, Cutouts, Distribution
from calibration.synthesis.inputs import NoiseModel as ImageNoise
from stream.hdf5_reading import check_file, open_hdf5

FloatArray = npt.NDArray[np.float64]

LEVELS_A_SIGMA = 8.0
MOST_BYTES = 1_000_000_000
DIRTY_PERCENTILE = 95.0


class CutoutWriter:
    """Cuts the used, complete particles out of a scan again, this time every repeat separately."""

    def __init__(self, group: h5py.Group, calibrated: Calibrated, scan: FocusScan) -> None:
        self._group, self._calibrated, self._scan = group, calibrated, scan
        found, prepared = calibrated.calibration, calibrated.prepared
        table = found.particles
        self._repeats = max(1, min(found.repeats, int(np.median([len(i) for i in prepared.images]))))
        chosen = np.flatnonzero(table.used & table.complete)
        planes = np.arange(found.focus_um.size)
        seen = self._seen(np.repeat(chosen, planes.size), np.tile(planes, chosen.size))
        depth = seen[:, 2].reshape(chosen.size, planes.size)
        low_um, high_um = (
            np.array([getattr(model, name) for model in found.models])[table.kind[chosen], None]
            for name in ("z_min_um", "z_max_um")
        )
        inside = (depth >= low_um) & (depth <= high_um)
        enough = np.array([len(images) >= self._repeats for images in prepared.images])
        inside &= (enough & found.plane_used)[None, :]
        size = 2 * calibrated.half_px + 1
        most = max(1, MOST_BYTES // (2 * self._repeats * size**2))
        self._every = int(np.ceil(inside.sum() / most)) if inside.any() else 1
        # with too many images every n-th plane is kept, another one for each particle
        place = np.arange(chosen.size)[:, None] + np.arange(inside.shape[1])
        inside &= place % self._every == 0
        self._chosen, self._inside, self._depth, self._size = chosen, inside, depth, size

    def _seen(self, particle: npt.NDArray[np.int64], plane: npt.NDArray[np.int64]) -> FloatArray:
        """Where particles (N,) are seen in planes (N,), in local coordinates: x px, y px, z um (N, 3)."""
        found, pixel = self._calibrated.calibration, self._scan.pixel_size_um
        table = found.particles
        x_px, y_px = table.x_um[particle] / pixel, table.y_um[particle] / pixel
        depth = table.z_um[particle] - found.focus_um[plane]
        places = np.stack([x_px, y_px, depth], axis=1)
        kind = table.kind[particle]
        for number, model in enumerate(found.models):
            mine = kind == number
            if model.field is not None and mine.any():
                places[mine, :2] += model.field.walked(places[mine, :2], depth[mine])
        places[:, :2] += self._calibrated.stage_px[kind, plane]
        return places

    def write(self, on_progress: Callable[[float], None]) -> None:
        """Write all images, plane by plane."""
        found = self._calibrated.calibration
        scale = found.noise.contrast_sd / LEVELS_A_SIGMA
        count, size = int(self._inside.sum()), self._size
        contrast = self._group.create_dataset(
            "contrast",
            (count, self._repeats, size, size),
            np.int16,
            maxshape=(None, self._repeats, size, size),
            chunks=(1, self._repeats, size, size),
            compression="lzf",
            shuffle=True,
        )
        contrast.attrs.update(scale=scale, meaning="contrast / scale of each repeat")
        masks = [make_masks(m.images(np.linspace(m.z_min_um, m.z_max_um, 41))) for m in found.models]
        particle, plane = np.zeros((2, count), np.int64)
        dirt = np.zeros(count)
        row, kind = 0, found.particles.kind[self._chosen]
        for number in range(len(self._calibrated.prepared.images)):
            here = np.flatnonzero(self._inside[:, number])
            if here.size:
                for index, images in zip(here, self._cut(number, here), strict=True):
                    contrast[row] = np.clip(np.rint(images / scale), -32768, 32767).astype(np.int16)
                    dirt[row] = background_variance(images.mean(axis=0), masks[kind[index]])
                    particle[row], plane[row] = self._chosen[index], number
                    row += 1
            on_progress((number + 1) / len(self._calibrated.prepared.images))
        self._label(particle, plane, dirt)

    def _cut(self, number: int, here: npt.NDArray[np.intp]) -> list[npt.NDArray[np.float32]]:
        done, half = self._calibrated, self._calibrated.half_px
        corner = corners(half)
        raw = self._scan.read(done.prepared.images[number][: self._repeats])
        gain = float(done.prepared.gains[number])
        planes = [done.background.contrast(image[None], gain) for image in raw]
        cut = []
        for x_px, y_px, _ in self._seen(self._chosen[here], np.full(here.size, number)):
            images = np.stack([window(plane, round(y_px), round(x_px), half)[0] for plane in planes])
            cut.append(images - np.median(images[:, corner]))
        return cut

    def _label(self, particle: npt.NDArray[np.int64], plane: npt.NDArray[np.int64], dirt: FloatArray) -> None:
        table = self._calibrated.calibration.particles
        x_px, y_px, z_um = self._seen(particle, plane).T
        columns = {
            "particle": particle,
            "plane": plane,
            "x_um": table.x_um[particle],
            "y_um": table.y_um[particle],
            "z_um": z_um,
            "dx_px": x_px - np.round(x_px),
            "dy_px": y_px - np.round(y_px),
            "brightness": table.brightness[particle],
            "background_variance": dirt,
            "clean": dirt <= np.percentile(dirt, DIRTY_PERCENTILE) if dirt.size else np.zeros(0, bool),
        }
        if len(self._calibrated.calibration.models) > 1:
            columns["kind"] = table.kind[particle]
        for name, values in columns.items():
            data = self._group.create_dataset(name, data=values)
            unit = name.rpartition("_")[2]
            if unit in {"um", "px"}:
                data.attrs["unit"] = unit


def read_cutouts(path: Path, *, only_clean: bool = True) -> Cutouts:
    """The particles' images of a calibration file, those with something in the background left out.

    Raises `CalibrationError` if there are none, or if they cannot be read.
    """
    try:
        return _read(path, only_clean)
    except CalibrationError:
        raise
    except (KeyError, ValueError, TypeError, OSError) as error:
        detail = " ".join(str(error).strip("'\"").split())
        raise CalibrationError(
            f"the particle images of {path} are damaged or missing ({detail}); calibrate again"
        ) from error


def _read(path: Path, only_clean: bool) -> Cutouts:
    with open_hdf5(path) as file:
        check_file(file)
        group = file["traces"]
        kept = group["clean"][:].astype(bool) if only_clean else np.ones(len(group["z_um"]), bool)
        # after rounding a particle may lie just beyond half a pixel
        kept &= (np.abs(group["dx_px"][:]) <= 0.5) & (np.abs(group["dy_px"][:]) <= 0.5)
        if not kept.any():
            raise CalibrationError(f"{path} has no images of whole particles; scan a larger field")
        contrast = group["contrast"][:][kept] if not kept.all() else group["contrast"][:]
        return Cutouts(
            contrast=contrast,
            scale=float(group["contrast"].attrs["scale"]),
            z_um=group["z_um"][:][kept],
            dx_px=group["dx_px"][:][kept],
            dy_px=group["dy_px"][:][kept],
            trace=group["particle"][:][kept],
            brightness=group["brightness"][:][kept],
            pixel_size_um=float(file.attrs["pixel_size_um"]),
            polarity=file.attrs["polarity"],
            place_px=_places(file)[kept] if "model/field" in file else None,
            kind=_kinds(file)[kept],
        )


def _places(file: h5py.File) -> FloatArray:
    """Where in the field of view the images were taken, x and y in px (M, 2)."""
    x_um, y_um = file["traces/x_um"][:], file["traces/y_um"][:]
    places: FloatArray = np.stack([x_um, y_um], axis=1) / float(file.attrs["pixel_size_um"])
    return places


def _kinds(file: h5py.File) -> npt.NDArray[np.int64]:
    """The kind of particle that each image shows (M,); 0 where the calibration tells no kinds apart."""
    particle = file["traces/particle"][:]
    if "particles/kind" not in file:
        return np.zeros(particle.size, np.int64)
    kinds: npt.NDArray[np.int64] = file["particles/kind"][:].astype(np.int64)[particle]
    return kinds


def image_noise(found: Calibration) -> ImageNoise:
    """The noise of training images: as measured in the scan."""
    noise = found.noise
    grey = max(noise.background_grey, 1.0)
    read, shot = noise.read_variance / grey**2, noise.gain / grey
    measured = noise.contrast_sd**2
    share = measured / max(read + shot, 1e-30)
    spread = max(noise.background_sd, 1e-4)
    return ImageNoise(
        read=read * share,
        shot=shot * share,
        grey=grey,
        background=Distribution.uniform(1 - 2 * spread, 1 + 2 * spread),
        level=Distribution.uniform(0.95, 1.05),
    )


def image_background(found: Calibration) -> BackgroundModel:
    """The far out-of-focus particles in the background of training images."""
    return background_for(found.model)
