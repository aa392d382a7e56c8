"""The paper's detector on camera images: reads and writes its weights, detects particles in an image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engines.comparison.layout import REGION_PX
from engines.comparison.stitching import read
from engines.comparison.tensorbox import PaperNet
from engines.network.preparation import Preparation
from stream.errors import ConfigurationError, OutputError

SIGNS = {"bright": 1.0, "dark": -1.0}


@dataclass(frozen=True, slots=True)
class Units:
    """Units of the network's numbers, as in `engines.network.model_card.ModelCard`."""

    pixel_size_um: float
    polarity: str
    middle_um: float
    half_range_um: float
    noise_contrast: float
    made_from: str


def save_detector(path: Path, weights: dict[str, Any], units: Units) -> None:
    """Write a trained detector. Raises `OutputError` if the file cannot be written."""
    part = path.with_name(path.name + ".part")
    try:
        torch.save({"units": asdict(units), "weights": weights}, part)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where a folder is missing
        raise OutputError(f"cannot write {path}: {error}; check permission and disk space") from error
    finally:
        part.unlink(missing_ok=True)


class PaperDetector:
    """The detector of Franchini & Krevor (2020) with the weights of a file; belongs to one thread.

    Raises `ConfigurationError` for a file that is missing or holds no such detector.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        if not path.is_file():
            raise ConfigurationError(f"no detector file {path}; train one with benchmarks/paper_detector.py")
        try:
            data = torch.load(path, map_location=device, weights_only=True)
            self.units = Units(**data["units"])
            self._network = PaperNet().eval()
            self._network.load_state_dict(data["weights"])
        except Exception as error:  # torch raises whatever the damaged pickle makes it raise
            detail = " ".join(str(error).split())
            raise ConfigurationError(
                f"{path} is not a file of the paper's detector, or damaged ({detail}); train it again"
            ) from error
        self._network.to(device)
        self._device = device
        self._preparation: Preparation | None = None
        self._shape: tuple[int, ...] = ()

    @torch.no_grad()
    def answers(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map contrast (B, 1, H, W) in standard deviations of the noise to the outputs of all regions."""
        given = torch.from_numpy(images).to(self._device)
        found: npt.NDArray[np.float32] = self._network(given).float().cpu().numpy()
        return found

    def detect(self, image: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
        """The particles of a uint8 or uint16 image: columns `x_um, y_um, z_um, confidence`, (N,) each.

        An image without light has none.
        """
        if self._preparation is None or image.shape != self._shape:
            height, width = self._shape = image.shape
            sign = SIGNS[self.units.polarity]
            self._preparation = Preparation((height, width), sign, self.units.noise_contrast, None)
        found = np.empty((0, 8))
        if self._preparation.fill(image) > 0:
            found = read(self.answers(_padded(self._preparation.input))[0])
        height, width = self._shape
        x, y, z, confidence = found[:, 0], found[:, 1], found[:, 2], found[:, -1]
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        units = self.units
        columns = {
            "x_um": x * units.pixel_size_um,
            "y_um": y * units.pixel_size_um,
            "z_um": units.middle_um + z * units.half_range_um,
            "confidence": confidence,
        }
        return {name: column[inside] for name, column in columns.items()}


def _padded(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Images (B, 1, H, W) with zeros at the end, to whole regions."""
    height, width = images.shape[2:]
    return np.pad(images, ((0, 0), (0, 0), (0, -height % REGION_PX), (0, -width % REGION_PX)))
