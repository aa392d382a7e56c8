"""Provenance of a trajectory file: settings, model and computer, stored as its attributes."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

from acquisition.recorder.settings import frame_table_of, name_beside
from liveptv.config import Experiment
from liveptv.session.link_rules import frame_rules
from liveptv.session.plan import ImageFormat

LONGEST_TEXT = 100_000
"""Characters of a user's Python file that are kept with the results. A detector or controller has some hundred to
some thousand; what is longer is no file that somebody wrote for one experiment."""


def file_attributes(experiment: Experiment, image_format: ImageFormat | None) -> dict[str, Any]:
    """Attributes of a trajectory file; the writer adds run id, time and versions of the packages."""
    attributes: dict[str, Any] = {
        "configuration": experiment.resolved(),
        "model": describe_model(experiment.detector.model, experiment.detector.file),
        "inputs": describe_inputs(experiment),
        "refraction_factor": experiment.optics.refraction_factor,
        "refraction": experiment.optics.in_words(),
        "computer": f"{platform.node()}, {platform.platform()}, {os.cpu_count()} CPUs",
        "user": _user(),
        "notes": experiment.run.notes,
    }
    if experiment.record.mode != "off":
        images = experiment.record.images(experiment.run.output)
        attributes["recording"] = {
            "mode": experiment.record.mode,
            "images": name_beside(images, experiment.run.output),
            "frame_table": name_beside(frame_table_of(images), experiment.run.output),
        }
    if code := own_code(experiment):
        attributes["code"] = code
    if image_format is not None:
        attributes |= {
            "source": image_format.description,
            "image_shape": [image_format.height, image_format.width],
            "image_dtype": image_format.dtype,
            "pixel_size_um": image_format.pixel_size_um,
            "frame_rate_hz": image_format.frame_rate_hz,
            **frame_rules(experiment, image_format).to_dict(),
            **({"volume": volume_facts(image_format)} if image_format.is_volume else {}),
        }
    return attributes


def volume_facts(images: ImageFormat) -> dict[str, Any]:
    """Attribute `volume` of a file: slices, their distance, and the size of a voxel, um, along z, y and x."""
    pixel_um = images.pixel_size_um
    return {
        "slices": images.depth,
        "z_step_um": images.z_step_um,
        "voxel_size_um": [images.z_step_um, pixel_um, pixel_um],
    }


def describe_model(model: Path | None, own: Path | None = None) -> dict[str, Any]:
    """Name, SHA-256 and kind of the model file; empty, with the kind, if there is none.

    `own` is the file of a detector of a user's own, which then stands in the model's place.
    """
    if own is not None:
        return {"file": own.name, "sha256": sha256(own), "kind": "detector of the user's own"}
    if model is None:
        return {"file": "", "sha256": "", "kind": "classical detector without a calibration (2D)"}
    kind = "classical detector with a width curve" if model.suffix.lower() != ".onnx" else "network"
    return {"file": model.name, "sha256": sha256(model), "kind": kind}


def describe_inputs(experiment: Experiment) -> dict[str, str]:
    """SHA-256 of the other files that the detector's results depend on, by the name of their setting."""
    detector = experiment.detector
    given = ((name, getattr(detector, name)) for name in type(detector).model_fields if name != "model")
    return {name: sha256(value) for name, value in given if isinstance(value, Path) and value.is_file()}


def own_code(experiment: Experiment) -> dict[str, Any]:
    """Name, SHA-256 and text of the Python files that the experiment names, by what they are.

    The text of a file that is no UTF-8, or longer than `LONGEST_TEXT` characters, is left out.
    """
    controller = experiment.controller
    files = {
        "detector": experiment.detector.file,
        "controller": None if controller is None else controller.file,
    }
    code: dict[str, Any] = {}
    for what, path in files.items():
        if path is None or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        is_kept = len(text) <= LONGEST_TEXT and "\ufffd" not in text
        code[what] = {"file": path.name, "sha256": sha256(path)} | ({"text": text} if is_kept else {})
    return code


def sha256(path: Path) -> str:
    """The file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
