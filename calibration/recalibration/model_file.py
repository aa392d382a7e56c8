"""The PSF model in a model file, and a new version of that file with updated terms: never in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.psf_model import PsfModel
from calibration.recalibration.estimate import Recalibrated
from engines.bounded_reading import MOST_MODEL_BYTES, read_file
from engines.file_hash import file_hash
from engines.network.card_text import KEY
from engines.network.model import OnnxModel
from engines.network.properties import with_properties
from engines.refine import psf_text as packed
from engines.refine.misfit import Misfit
from engines.refine.psf import FitModel
from stream.errors import ConfigurationError
from stream.unfinished_files import written_beside


class ModelFile:
    """A network with its PSF model, opened to be recalibrated.

    Raises `ConfigurationError` for a file that is no network, has no PSF model, or has several.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() != ".onnx":
            raise ConfigurationError(
                f"{path} is no network (.onnx); recalibrate one, or take a new scan and run `liveptv calibrate`"
            )
        self.path = path
        self._onnx = OnnxModel(path)
        kinds = self._onnx.card.kinds
        if kinds > 1:
            raise ConfigurationError(
                f"{path} tells {kinds} kinds of particles, and only one can be recalibrated; take a new scan"
            )
        fit = self._onnx.psf()
        if fit is None:
            raise ConfigurationError(f"{path} has no PSF model; train it again from a calibration")
        self._fit: FitModel = fit
        self.psf: PsfModel = PsfModel.of_fit(fit)
        self.sha256: str = file_hash(path)

    @property
    def noise(self) -> tuple[float, float]:
        """Variance of the contrast from reading and from light, of the calibration; their ratio counts."""
        return self._fit.read, self._fit.shot

    def write(self, target: Path, found: Recalibrated, entry: dict[str, Any], *, overwrite: bool) -> None:
        """Write the network with the new PSF model and the history of its terms.

        Raises `OutputError` where it cannot be written.
        """
        before, after = self.psf, found.model
        scale = after.z_step_um / before.z_step_um
        offset_um = after.z_min_um - scale * before.z_min_um
        card = self._onnx.card
        history = [*card.recalibrated, {**entry, "from_sha256": self.sha256, **_facts(found)}]
        card = card.model_copy(
            update={
                "middle_um": scale * card.middle_um + offset_um,
                "half_range_um": scale * card.half_range_um,
                "recalibrated": history,
            }
        )
        fit = self._fit
        new = replace(after, misfit=_misfit(found, fit)).for_fit(
            read=fit.read,
            shot=fit.shot,
            brightness_sd=fit.brightness_sd,
            sigma_scale=fit.sigma_scale,
        )
        changed = {KEY: card.model_dump_json(), packed.KEY: packed.pack(new)}
        content = with_properties(read_file(self.path, MOST_MODEL_BYTES), changed)
        with written_beside(target, overwrite=overwrite) as part:
            part.write_bytes(content)
            OnnxModel(part).psf()  # as a run will read it


def _misfit(found: Recalibrated, fit: FitModel) -> Misfit | None:
    """The variances beyond those of noise: what was known before, and in depth the doubt about the focal lines."""
    model, doubt_um = found.model, found.doubt_um
    if not doubt_um:
        return model.misfit
    known = model.misfit
    if known is None:  # then standard errors were scaled
        beyond = np.maximum(np.array(fit.sigma_scale) ** 2 - 1, 0.0) * found.sigma_um**2
        depths = np.array([model.z_min_um, model.z_max_um])
        known = Misfit(found.shape, depths, np.broadcast_to(beyond, (1, 1, 2, 3)))
    return replace(known, variance=known.variance + np.array([0.0, 0.0, doubt_um**2]))


def _facts(found: Recalibrated) -> dict[str, Any]:
    return {
        "terms": [term.to_dict() for term in found.changed],
        "chi_square": list(found.chi_square),
        "images": found.particles,
        "particles_at_rest": found.at_rest,
    }
