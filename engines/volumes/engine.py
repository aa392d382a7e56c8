"""The detector for volumes as an `Engine`: threads propose and fit, results come in order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engines.detection_pool import FrameWork, Outcome
from engines.engine import DetectionError, EngineInfo, readable, working_dtype
from engines.file_hash import file_hash
from engines.ordered_threads import default_workers
from engines.particle_limit import strongest
from engines.settings import DetectorSettings
from engines.volumes.detector import VolumeDetector, Voxel, unchangeable
from engines.volumes.first_look import look
from engines.volumes.model import VolumeModel, load_volume_model
from engines.volumes.psf import VolumePsf
from stream.errors import ConfigurationError
from stream.messages import Detections, Frame, Predictions

if TYPE_CHECKING:
    from engines.volumes.network.proposer import NetworkProposer

NETWORK_SUFFIX = ".onnx"
READER = "the detector for volumes"
WARMUP_SPOTS = 3
WARMUP_SIGMA = 1.5
WARMUP_LIGHT = 100


class VolumeEngine:
    """Finds particles in volumes: places from a matched filter, and from a network where one is given, then the
    joint fit; or SEF3D.

    The spot's size is that of the `model_file`, a calibration (.h5) or a network (.onnx), or of `detector.spot_um`;
    without both it is estimated from the first volume that shows enough particles, and `say` gets a line with it.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        pixel_size_um: float,
        model_file: Path | None = None,
        *,
        say: Callable[[str], None],
    ) -> None:
        _check(settings, model_file)
        self._settings = settings
        self._pixel_size_um = pixel_size_um
        self._say = say
        self._laplacian = settings.engine == "sef3d"
        self._workers = settings.workers or default_workers()
        self._network: NetworkProposer | None = None
        self._model: VolumeModel | None = None
        if model_file is not None and model_file.suffix.lower() == NETWORK_SUFFIX:
            from engines.volumes.network.proposer import NetworkProposer

            self._network = NetworkProposer(settings, model_file, self._workers, say)
            self._model = self._network.volume_model
        elif model_file is not None:
            self._model = load_volume_model(model_file)
        self._model_file = model_file
        self._hash = "" if model_file is None else file_hash(model_file)
        self._dark: bool | None = {"dark": True, "bright": False}.get(settings.polarity)
        if self._model is not None:
            self._dark = False
        self._detector: VolumeDetector | None = None
        self._shape: tuple[int, ...] = ()
        self._z_step_um = math.nan
        self._work = FrameWork(self._workers, "volumes")

    @property
    def info(self) -> EngineInfo:
        """What this engine is; `details` are complete once it has seen a volume with particles."""
        details: dict[str, Any] = {
            "polarity": "auto" if self._dark is None else "dark" if self._dark else "bright",
            "workers": self._workers,
            "refine": not self._laplacian,
        }
        if self._detector is not None:
            details |= self._detector.details
        backend, device = "numba", "cpu"
        if self._network is not None:
            backend, device, details["precision"] = self._network.back_end
        return EngineInfo(
            name="sef3d" if self._laplacian else "volumes",
            backend=backend,
            device=device,
            model="" if self._model_file is None else str(self._model_file),
            hash=self._hash,
            depth=True,
            details=details,
        )

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        return len(self._work)

    def counts(self) -> dict[str, int]:
        """What was left out so far.

        `noise`: places that were not fitted because noise alone shows such; `doubtful`: fitted ones below the least
        confidence; `no_fit`; `too_many`; `no_size`: volumes in which nothing was looked for because the size of
        a spot was not known yet.
        """
        return dict(self._work.left_out)

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Compile everything for volumes of this type."""
        dtype = working_dtype(dtype)
        size = (min(depth, 6), min(height, 40), min(width, 40))
        rng = np.random.default_rng(0)
        light = np.full(size, float(WARMUP_LIGHT))
        for place in rng.uniform(0, size, (WARMUP_SPOTS, 3)):
            part = [
                np.exp(-0.5 * ((np.arange(n) - c) / WARMUP_SIGMA) ** 2)
                for n, c in zip(size, place, strict=True)
            ]
            light += WARMUP_LIGHT * part[0][:, None, None] * part[1][:, None] * part[2]
        image = np.minimum(rng.poisson(light), np.iinfo(dtype).max).astype(dtype)
        missing = np.zeros(size[0], np.bool_)
        voxel = Voxel(1.0, self._pixel_size_um)
        if self._model is None:
            look(unchangeable(image), missing, voxel.zyx_um, None, None)
        psf = self._psf(voxel) or VolumePsf.gaussian(
            WARMUP_SIGMA * voxel.pixel_um, WARMUP_SIGMA * voxel.pixel_um, WARMUP_SIGMA, voxel.zyx_um
        )
        heights_um = np.arange(size[0], dtype=np.float64)
        self._make(psf, voxel).detect(image, missing, heights_um, np.zeros(size[0]))

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while twice as many frames as there are workers are pending."""
        frame = readable(frame, self._shape, READER, volumes=True)
        voxel = self._voxel(frame)
        missing = self._missing(frame)
        self._shape = frame.image.shape
        if self._detector is None:
            self._detector = self._open(frame.image, missing, voxel)
        self._work.give(partial(self._detect, self._detector, frame, missing))

    def _voxel(self, frame: Frame) -> Voxel:
        """The size of a voxel, which does not change during a run."""
        volume, number = frame.info.volume, frame.info.frame
        depth = frame.image.shape[0]
        if volume is None:
            raise DetectionError(
                f"the heights of the {depth} slices of frame {number} are not known; give their distance (--z-step)"
            )
        if volume.slices != depth:
            raise DetectionError(f"frame {number} has {depth} slices, but heights of {volume.slices}")
        step_um = volume.z_step_um if depth > 1 else 1.0
        if math.isnan(self._z_step_um):
            self._z_step_um = step_um
        return Voxel(self._z_step_um, self._pixel_size_um)

    def _missing(self, frame: Frame) -> npt.NDArray[np.bool_]:
        missing = np.zeros(frame.image.shape[0], np.bool_)
        if frame.info.volume is not None:
            missing[list(frame.info.volume.missing)] = True
        return missing

    def _psf(self, voxel: Voxel) -> VolumePsf | None:
        """The PSF that was given, for these voxels; None if there is none."""
        if self._model is not None:
            return self._model.psf.with_voxel(voxel.zyx_um)
        if self._settings.spot_um is not None:
            return VolumePsf.gaussian(*self._settings.spot_um, voxel.zyx_um)
        return None

    def _open(
        self, image: npt.NDArray[Any], missing: npt.NDArray[np.bool_], voxel: Voxel
    ) -> VolumeDetector | None:
        """The detector for these voxels; None while the size of a spot is not known."""
        psf = self._psf(voxel)
        if self._model is not None and psf is not None:
            return self._make(psf, voxel)
        found = look(
            unchangeable(image), missing, voxel.zyx_um, None if psf is None else psf.sigma_voxels, self._dark
        )
        if found is None:
            return None if psf is None else self._make(psf, voxel)
        if found.dark and self._dark is None:
            self._say('the particles are darker than what surrounds them (detector.polarity = "dark")')
        self._dark = found.dark
        if psf is None or found.radius_um > 0:
            self._say(found.in_words())
        return self._make(found.psf, voxel)

    def _make(self, psf: VolumePsf, voxel: Voxel) -> VolumeDetector:
        noise = None if self._model is None else self._model.noise
        return VolumeDetector(psf, voxel, self._settings, noise, network=self._network, dark=bool(self._dark))

    def _detect(
        self, detector: VolumeDetector | None, frame: Frame, missing: npt.NDArray[np.bool_]
    ) -> Outcome:
        if detector is None:
            return Detections.empty(frame.info), Counter({"no_size": 1})
        volume = frame.info.volume
        assert volume is not None
        times_s = np.array(volume.time_s or [np.nan] * volume.slices)
        try:
            table, left_out = detector.detect(frame.image, missing, np.array(volume.z_um), times_s)
        except (ArithmeticError, ValueError, IndexError) as error:
            raise DetectionError(f"frame {frame.info.frame} could not be processed: {error}") from error
        table, left_out["too_many"] = strongest(table, self._settings.max_particles)
        return Detections(frame.info, np.ascontiguousarray(table)), left_out

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called, from any thread, when there may be results. Returns True."""
        self._work.announce(call)
        return True

    def results(self, timeout_s: float) -> list[Detections]:
        """Return what is ready, in order; waits up to `timeout_s` for the first."""
        return self._work.results(timeout_s)

    def close(self) -> None:
        """Wait for the frames in progress and stop the threads. Idempotent."""
        self._work.close()


def _check(settings: DetectorSettings, model_file: Path | None) -> None:
    """Raise `ConfigurationError` for settings that detection in volumes does not have."""
    if settings.polarity == "dark" and model_file is not None:
        raise ConfigurationError(
            'detector.polarity is "dark", but calibrations and networks for volumes are of bright particles; leave '
            "the model out, or invert the images"
        )
    if settings.bright is not None:
        raise ConfigurationError(
            "detector.bright is a flat field for images, and volumes have none; leave it out: the background is "
            "estimated in each slice"
        )
