"""When a run's own particles show that its model should be changed: the change is proposed, and never applied.

The estimate and its test are those of `liveptv recalibrate`. A run is looked at again and again, so the change must
also be beyond the limit for that look (`stream.evidence`); otherwise a long run would find one by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from calibration.recalibration.estimate import Known, Recalibrated, RecalibrationError, recalibrate
from calibration.recalibration.model_file import ModelFile
from calibration.recalibration.terms import Term
from engines.flatfield import load_flat_field
from liveptv.recalibration.contrast import Contrasts
from liveptv.recalibration.sample import Sample
from liveptv.recalibration.subject import Subject
from liveptv.recalibration.words import in_short
from stream.errors import ConfigurationError
from stream.evidence import limit

SAME_PIXELS = 0.02
"""Relative difference in pixel size up to which the model is for these images, as by the fit."""
OTHER_SIGMAS = 3.0
"""Standard errors of the difference by which a term must differ from what has been proposed, to be told anew."""
MOST_VERSIONS = 1000  # names tried beside the run's file


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the sample gave: a line for the user ("" for none) and JSON-able facts.

    `is_proposal`: a new version of the model has been written.
    """

    text: str
    facts: dict[str, Any]
    is_proposal: bool = False


class Proposer:
    """Looks at a sample of the run; each look may propose a new version of the model.

    `estimate` is that of the command. Raises `ConfigurationError` for a model that cannot be recalibrated.
    """

    def __init__(self, subject: Subject, estimate: Callable[..., Recalibrated] = recalibrate) -> None:
        self._subject = subject
        self._estimate = estimate
        self._model = ModelFile(subject.model)
        flat = None if subject.bright is None else load_flat_field(subject.bright, subject.dark)
        self._flat = flat
        self._contrasts = Contrasts(self._model, flat)
        self._known = Known(subject.wall_distance_um, subject.wall_focus_um, subject.refraction_factor)
        self._looks = 0
        self._proposed: tuple[Term, ...] = ()
        self._facts: dict[str, Any] = {}

    def look(self, sample: Sample) -> Look:
        """Estimate all terms. Errors of the estimate that are not about missing particles are raised."""
        self._looks += 1
        try:
            found = self._found(sample)
        except RecalibrationError as error:
            return self._nothing(str(error))
        before, after = found.chi_square
        self._facts |= {"chi_square": [before, after], "images": found.particles}
        sure = [term for term in found.changed if is_sure(term, self._looks, len(found.terms))]
        if not sure:
            return self._nothing("no term changes")
        if not any(self._is_new(term) for term in sure):
            return self._nothing("as proposed before")
        self._proposed = tuple(found.changed)
        path = self._write(found)
        text = (
            f"recalibration proposed: {in_short(found)}. The run goes on with its model; to use the new version "
            f"from the next run on, set detector.model to {path.name}"
        )
        terms = [term.to_dict() for term in found.changed]
        self._facts |= {"proposed": path.name, "proposal": text, "terms": terms}
        return Look(text, self._all_facts("proposed"), is_proposal=True)

    def _found(self, sample: Sample) -> Recalibrated:
        pixel_um = sample.pixel_size_um
        if not abs(self._model.psf.pixel_size_um / pixel_um - 1) <= SAME_PIXELS:
            raise RecalibrationError(f"no images with pixels of {self._model.psf.pixel_size_um:g} um yet")
        if self._flat is not None:
            self._flat.check(sample.shape)
        images = sample.images(self._contrasts)
        return self._estimate(
            self._model.psf, sample.recorded(), sample.shape, images, self._known, seed=self._looks
        )

    def _is_new(self, term: Term) -> bool:
        """Whether a term differs from what has been proposed."""
        for other in self._proposed:
            if other.name == term.name and len(other.after) == len(term.after):
                apart = np.abs(np.subtract(term.after, other.after))
                return bool((apart > OTHER_SIGMAS * np.hypot(term.sd, other.sd)).any())
        return True

    def _write(self, found: Recalibrated) -> Path:
        output = self._subject.output
        for number in range(1, MOST_VERSIONS):
            path = output.with_name(f"{output.stem}.recalibrated-{number}.onnx")
            if not path.exists():
                entry = {
                    "when": datetime.now(UTC).isoformat(timespec="seconds"),
                    "from": self._subject.model.name,
                    "tracks": output.name,
                    "run_id": self._subject.run_id,
                    "images": "taken during the run",
                    "wall_distance_um": self._known.wall_distance_um,
                    "wall_focus_um": self._known.wall_focus_um,
                }
                self._model.write(path, found, entry, overwrite=False)
                return path
        raise ConfigurationError(f"there are {MOST_VERSIONS} proposals beside {output}; remove some")

    def _nothing(self, why: str) -> Look:
        return Look("", self._all_facts(why))

    def _all_facts(self, last: str) -> dict[str, Any]:
        return {"looks": self._looks, "last": last, **self._facts}


def is_sure(term: Term, look: int, terms: int) -> bool:
    """Whether a term that has changed is beyond the limit of this look, one of `terms` that are estimated."""
    moved, sd = np.abs(np.subtract(term.after, term.before)), np.asarray(term.sd)
    known = np.isfinite(sd) & (sd > 0)
    return bool((moved[known] > limit(look, terms) * sd[known]).any())
