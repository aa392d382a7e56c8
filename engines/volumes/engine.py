"""The detector for volumes as an `Engine`: threads propose and fit, results come in order."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engines.detection_pool import FrameWork, Outcome
from engines.engine import DetectionError, EngineInfo, readable, working_dtype
from engines.file_hash import file_hash
from engines.fit_budget import COSTS_KEPT, FrameCost
from engines.frame_tasks import FrameTask, FrameTasks
from engines.ordered_threads import default_workers
from engines.particle_limit import strongest
from engines.refine.turns import NOTHING, Allowance
from engines.settings import DetectorSettings
from engines.volumes.detector import VolumeDetector, Voxel, unchangeable
from engines.volumes.first_look import FirstLook, look
from engines.volumes.first_volume import FirstVolume
from engines.volumes.limited_fit import VolumeFits, VolumeLimit
from engines.volumes.model import VolumeModel, load_volume_model
from engines.volumes.psf import VolumePsf
from engines.volumes.spot_shape import LEAST_SIGMA
from engines.watched_engine import NO_SIZE
from stream.errors import ConfigurationError
from stream.messages import DetectionFlag, Detections, FitDecision, Frame, Predictions

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
    Where there is no model, that volume is also asked whether particles are dark, and large ones whether they are
    balls. That may take seconds: volumes wait for it, and `while_waiting` is called meanwhile; or with
    `size_may_join` nothing is looked for in them until it is known. Small spots of a given size always wait, as
    their look is short.

    `allow_fit` sets how much of the fit may be done, as in `NetworkEngine`; what is not fitted whole has the short
    fit. Of the decisions that a volume comes with, or is returned with, `learnt_from` is the volume that
    the size was estimated from (-1: not during the run); it is this volume's own number, or that of an earlier
    one that is still looked at, where `fit` is `NOT_COMPILED`.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        pixel_size_um: float,
        model_file: Path | None = None,
        *,
        say: Callable[[str], None],
        size_may_join: bool = False,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        _check(settings, model_file)
        self._size_may_join, self._while_waiting = size_may_join, while_waiting
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
        self._first: FirstVolume[FirstLook] = FirstVolume()
        self._fits = VolumeFits()
        self._tasks = FrameTasks(self._fits)
        self._allowed = 1.0, math.inf
        self._costs: deque[FrameCost] = deque(maxlen=COSTS_KEPT)
        self._shape: tuple[int, ...] = ()
        self._z_step_um = math.nan
        self._heights_um = 0.0, 0.0
        self._work = FrameWork(self._workers, "volumes")

    @property
    def info(self) -> EngineInfo:
        """What this engine is; `details` are complete once it has seen a volume with particles."""
        details: dict[str, Any] = {
            "polarity": "auto" if self._dark is None else "dark" if self._dark else "bright",
            "workers": self._workers,
            "refine": False if self._laplacian else self._fits.counts(),
        }
        if self._detector is not None:
            details |= self._detector.details
        if self._heights_um[0] < self._heights_um[1]:
            details["z_um"] = list(self._heights_um)
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
        heights_um, detector = np.arange(size[0], dtype=np.float64), self._make(psf, voxel)
        for limit in (None, VolumeLimit(VolumeFits(), 0, NOTHING)):
            detector.detect(image, missing, heights_um, np.zeros(size[0]), limit)

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while twice as many frames as there are workers are pending."""
        frame = readable(frame, self._shape, READER, volumes=True)
        voxel = self._voxel(frame)
        missing = self._missing(frame)
        self._shape = frame.image.shape
        if self._detector is None:
            self._detector = self._open(frame, missing, voxel)
        task = self._tasks.next(
            frame.info.frame,
            *self._allowed,
            is_compiled=self._detector is not None,
            given=frame.info.decisions,
        )
        given = frame.info.decisions
        mine = self._first.frame if self._size_may_join else -1
        task.learnt_from = mine if given is None else given.learnt_from
        self._work.give(partial(self._carry_out, self._detector, frame, missing, task))

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
            self._heights_um = float(volume.z_um[0]), float(volume.z_um[-1])
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

    def _open(self, frame: Frame, missing: npt.NDArray[np.bool_], voxel: Voxel) -> VolumeDetector | None:
        """The detector for these voxels; None while the size of a spot is not known."""
        psf = self._psf(voxel)
        if self._model is not None and psf is not None:
            return self._make(psf, voxel)
        found = self._look(frame, missing, voxel, psf)
        if found is None:
            # with a given size, one volume without particles is enough to begin with it
            return self._make(psf, voxel) if psf is not None and self._first.has_looked else None
        if found.dark and self._dark is None:
            self._say('the particles are darker than what surrounds them (detector.polarity = "dark")')
        self._dark = found.dark
        if psf is None or found.radius_um > 0:
            self._say(found.in_words())
        return self._make(found.psf, voxel)

    def _look(
        self, frame: Frame, missing: npt.NDArray[np.bool_], voxel: Voxel, psf: VolumePsf | None
    ) -> FirstLook | None:
        """What is seen of the particles; None if nothing is yet, or was not in the run that is replayed."""
        first, number, given = self._first, frame.info.frame, frame.info.decisions
        sigma = None if psf is None else psf.sigma_voxels
        looked = partial(look, missing=missing, voxel_um=voxel.zyx_um, sigma_voxels=sigma, dark=self._dark)
        if given is not None and given.fit is FitDecision.NOT_COMPILED:
            if given.learnt_from == number:
                first.wait(self._while_waiting)
                first.seek(number, frame.image, looked)
            return None
        if given is not None and given.learnt_from == first.frame >= 0:
            return first.wait(self._while_waiting)
        if first.is_seeking:
            return None
        if first.found is None and not (psf is not None and first.has_looked):
            first.seek(number, frame.image, looked)
        return first.found if self._may_join(psf) else first.wait(self._while_waiting)

    def _may_join(self, psf: VolumePsf | None) -> bool:
        """Whether volumes need not wait for the look; one at small spots of a given size is over soon."""
        return self._size_may_join and (psf is None or min(psf.sigma_voxels[1:]) >= LEAST_SIGMA)

    def _make(self, psf: VolumePsf, voxel: Voxel) -> VolumeDetector:
        noise = None if self._model is None else self._model.noise
        return VolumeDetector(psf, voxel, self._settings, noise, network=self._network, dark=bool(self._dark))

    def _carry_out(
        self,
        detector: VolumeDetector | None,
        frame: Frame,
        missing: npt.NDArray[np.bool_],
        task: FrameTask,
    ) -> Outcome:
        try:
            if detector is None:
                found, left_out = Detections.empty(frame.info), Counter({NO_SIZE: 1})
            else:
                found, left_out = self._detect(detector, frame, missing, task.allowed)
        finally:
            self._tasks.finished(task)
        return task.signed(found), left_out

    def _detect(
        self,
        detector: VolumeDetector,
        frame: Frame,
        missing: npt.NDArray[np.bool_],
        allowed: Allowance,
    ) -> Outcome:
        begun_s = time.perf_counter()
        volume, number = frame.info.volume, frame.info.frame
        assert volume is not None
        times_s = np.array(volume.time_s or [np.nan] * volume.slices)
        limit = None if allowed.is_all else VolumeLimit(self._fits, number, allowed)
        try:
            table, left_out = detector.detect(frame.image, missing, np.array(volume.z_um), times_s, limit)
        except (ArithmeticError, ValueError, IndexError) as error:
            raise DetectionError(f"frame {number} could not be processed: {error}") from error
        table, left_out["too_many"] = strongest(table, self._settings.max_particles)
        found = Detections(frame.info, np.ascontiguousarray(table))
        reduced = int((found.flags.astype(np.int64) & DetectionFlag.REDUCED > 0).sum())
        self._fits.count(len(found), reduced)
        took_ms, fit_ms = 1e3 * (time.perf_counter() - begun_s), 0.0 if limit is None else limit.fit_ms
        self._costs.append(FrameCost(number, took_ms - fit_ms, fit_ms, len(found), reduced))
        return found, left_out

    def allow_fit(self, share: float, ms: float) -> None:
        """Set how much of the fit, and for how long, may be done in the volumes submitted from now on."""
        self._allowed = share, ms

    def costs(self) -> list[FrameCost]:
        """What the volumes cost that were finished since the last call, the last `COSTS_KEPT` at most."""
        found = []
        while self._costs:
            found.append(self._costs.popleft())
        return found

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
