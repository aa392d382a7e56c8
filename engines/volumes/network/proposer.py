"""The network as a proposer of places for the fit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.engine import BackEndError, WrongNumbersError
from engines.network.model import Network
from engines.settings import DetectorSettings
from engines.volumes.model import VolumeModel
from engines.volumes.network.decode import decode
from engines.volumes.network.layout import LOGIT
from engines.volumes.network.model import VolumeOnnxModel
from engines.volumes.network.preparation import VolumePreparation
from engines.volumes.network.running import Running, open_running
from engines.volumes.proposal import Proposals
from engines.volumes.proposing.bands import at
from engines.volumes.proposing.filters import gaussian_half, worth
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

log = logging.getLogger(__name__)

LEAST_PROBABILITY = 0.08
"""Probability from which a place is proposed: the fit decides by the voxels. Lower costs the fit time."""
KEPT_INPUTS = 16
"""Inputs kept for further volumes, one a thread: 10 MB each for 512 x 512 x 10 voxels."""


class NetworkProposer:
    """Proposes what the network of a `.onnx` file finds, with its probability. Any thread may call.

    `running` says which back end runs it. Where that fails in the run, ONNX Runtime takes over, unless the settings
    say otherwise; `say` gets a line then. Raises `ConfigurationError` for a file that is no volume network.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        path: Path,
        workers: int = 1,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        self.model = VolumeOnnxModel(path)
        self.running: Running = open_running(settings, self.model, workers)
        self._network: Network = self.running.network
        self._falls_back, self._say = settings.on_failure == "fall_back", say
        self._lock = threading.Lock()
        self._free: list[VolumePreparation] = []
        self._halves = [gaussian_half(sigma) for sigma in self.volume_model.psf.sigma_voxels]

    @property
    def volume_model(self) -> VolumeModel:
        """PSF and noise for the fit."""
        return self.model.volume_model

    @property
    def back_end(self) -> tuple[str, str, str]:
        """Library, device and precision that run it now."""
        return self._network.backend, self._network.device, self._network.precision

    def propose(
        self,
        image: npt.NDArray[Any],
        missing: npt.NDArray[np.bool_],
        background: Background,
        noise: Noise,
    ) -> Proposals:
        """The places in a volume (Z, H, W) where the network sees particles; see `Proposer`."""
        if bool(missing.all()):
            return Proposals.none()
        preparation = self._take(image.shape)
        try:
            preparation.fill(image, missing, background, noise)
            rows = decode(self._planes(preparation.input))
        finally:
            self._give_back(preparation)
        return self._proposals(rows, image.shape, missing, background, noise)

    def _proposals(
        self,
        rows: npt.NDArray[np.float64],
        shape: tuple[int, ...],
        missing: npt.NDArray[np.bool_],
        background: Background,
        noise: Noise,
    ) -> Proposals:
        depth, height, width = shape
        x, y, z = rows[:, 0], rows[:, 1], rows[:, 2]
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        inside &= (z >= -0.5) & (z < depth - 0.5) & (rows[:, -1] >= LEAST_PROBABILITY)
        x, y, z, brightness = rows[inside, :4].T
        ratio = np.exp(brightness)
        spread = np.sqrt(noise.variance(background.at(x, y, z)))
        present = (~missing, np.ones(height, np.bool_), np.ones(width, np.bool_))
        seen = [
            at(worth(half, there), place)
            for half, there, place in zip(self._halves, present, (z, y, x), strict=True)
        ]
        strength = ratio * np.sqrt(np.prod(seen, axis=0))
        order = np.argsort(-strength, kind="stable")
        columns = (x, y, z, ratio * spread, strength, rows[inside, -1])
        return Proposals(*(np.ascontiguousarray(column[order]) for column in columns))

    def _planes(self, given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        network = self._network
        try:
            return _sound(network, given)
        except BackEndError as error:
            if network is self.model or not self._falls_back:
                raise
            with self._lock:
                if self._network is network:
                    self._network = self.model
                    self._say(f"{error}; onnxruntime continues")
            return _sound(self.model, given)

    def _take(self, shape: tuple[int, ...]) -> VolumePreparation:
        with self._lock:
            for index, one in enumerate(self._free):
                if one.shape == shape:
                    return self._free.pop(index)
        return VolumePreparation(shape)

    def _give_back(self, preparation: VolumePreparation) -> None:
        with self._lock:
            self._free = [one for one in self._free if one.shape == preparation.shape][: KEPT_INPUTS - 1]
            self._free.append(preparation)


def _sound(network: Network, given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Planes (D, values, H/4, W/4). Raises `BackEndError` where the network fails or cannot be right."""
    try:
        planes = network(given)[0]
    except BackEndError:
        raise
    except Exception as error:  # those of ONNX Runtime and the others have no common class but this one
        raise BackEndError(f"{network.backend} failed: {' '.join(str(error).split())}") from error
    logits = planes[:, LOGIT]
    if not np.isfinite(logits).all():
        raise WrongNumbersError(f"{network.backend} gave values that are not finite numbers")
    if logits.size > 1 and float(logits.min()) == float(logits.max()):
        raise WrongNumbersError(f"{network.backend} gave the same value everywhere")
    return planes
