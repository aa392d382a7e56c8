"""The settings of the detector, `[detector]` in the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from stream.settings import Section

MOST_PARTICLES = 100_000
LEAST_CONFIDENCE = 0.5
"""Particles a frame that can be asked for."""
LARGEST_SPOT_UM = 1000.0
"""Far above the size of any point's image."""
OF_OURS = (
    "engine", "model", "backend", "device", "precision", "polarity", "diameter_px", "spot_um", "threshold",
    "bright", "dark",
)  # fmt: skip
"""Settings of the detectors that are part of this program; one of a user's own has options."""
BackEndName = Literal["auto", "onnxruntime", "openvino", "torch", "tensorrt"]
DeviceName = Annotated[str, BeforeValidator(lambda given: given.lower() if isinstance(given, str) else given)]
"""Of a device: auto, cpu, gpu, or one of several, as gpu.1."""


class DetectorSettings(Section):
    """How particles are found; every default works unattended."""

    engine: Literal["auto", "classical", "network", "sef3d"] = Field(
        "auto",
        description="kind of detector; auto: the kind that the model belongs to. sef3d: in volumes, a Laplacian of "
        "Gaussian without a fit, for comparison",
    )
    model: Path | None = Field(
        None,
        description="network (.onnx), or calibration or width curve (.h5); left out: detection in 2D, z is "
        "NaN",
    )
    file: Path | None = Field(
        None,
        description="Python file with a detector of your own, in place of the program's (own-detector.md)",
    )
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="keyword arguments of the class, or function, in `file`"
    )
    failed_frames: int = Field(
        20,
        ge=0,
        le=1_000_000,
        description="frames in succession in which a detector of your own may fail; each is declared as lost, and "
        "one more ends the run",
    )
    backend: BackEndName = Field(
        "auto", description="library that runs a network; auto: the fastest one that works here (engines.md)"
    )
    device: DeviceName = Field(
        "auto",
        pattern=r"^(auto|cpu|gpu(\.[0-9])?)$",
        description="what runs a network: cpu, gpu, or gpu.1 for the second of OpenVINO's; auto: as the back end "
        "prefers. Intel's GPUs are used only where this is gpu and `backend` openvino",
    )
    precision: Literal["auto", "full", "reduced"] = Field(
        "auto",
        description="numerical precision of a network. full: single precision; reduced: half precision on a "
        "GPU, and 8 bits on a processor once `liveptv engine quantise` has found them accurate; auto: "
        "reduced where available",
    )
    on_failure: Literal["fall_back", "stop"] = Field(
        "fall_back",
        description="if the back end fails during a run: continue with onnxruntime, or stop",
    )
    polarity: Literal["auto", "dark", "bright"] = Field(
        "auto",
        description="particles darker or brighter than the background; auto: as in the model, else "
        "whichever gives the stronger response",
    )
    diameter_px: float | None = Field(
        None,
        ge=3,
        le=500,
        description="2D only: diameter of a particle's image; left out: several sizes are tried",
    )
    spot_um: tuple[float, float, float] | None = Field(
        None,
        description="volumes only: size of a spot along x, y and z as standard deviations, um; left out: as in the "
        "model, else estimated from the first volumes",
    )
    threshold: float | None = Field(
        None,
        gt=0,
        description="classical detector and matched filters: response that a candidate needs, in standard "
        "deviations of the filtered background; left out: noise alone passes once in ten frames",
    )
    min_confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="detections of lower confidence are left out and counted; left out: 0.5 in images, 0.25 in "
        "volumes (volumes.md)",
    )
    max_particles: int = Field(
        2000,
        ge=1,
        le=MOST_PARTICLES,
        description="most particles per frame; the faintest are left out, with a warning. `liveptv detect` has "
        "no limit unless this is given",
    )
    refine: bool = Field(
        True,
        description="refine each detection by a fit of the PSF model, where the model file holds one",
    )
    too_slow: Literal["reduce", "drop"] = Field(
        "reduce",
        description="what a live run gives up first where the detector is too slow for the camera. reduce: the "
        "whole fit of some particles, then frames; drop: frames only",
    )
    self_check: bool = Field(
        True,
        description="compare the images of particles, the light and what stays at its place with the calibration "
        "and the beginning, five times a second, and tell what has changed; needs `refine`",
    )
    prediction: Literal["auto", "off"] = Field(
        "auto",
        description="auto: where the detector can, it fits the tracker's particles from where they are predicted "
        "and searches what is left of the image for others; off: it searches each frame as if it were the first",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="frames processed at the same time; left out: number of processors minus two, at most 8",
    )
    bright: Path | None = Field(
        None, description="bright reference for the flat field: the background without particles"
    )
    dark: Path | None = Field(None, description="dark reference for the flat field: an image without light")

    @property
    def least_confidence(self) -> float:
        """The least confidence of a detection in an image."""
        return LEAST_CONFIDENCE if self.min_confidence is None else self.min_confidence

    @model_validator(mode="after")
    def _a_spot_has_a_size(self) -> DetectorSettings:
        if self.spot_um is not None and not all(0 < size < LARGEST_SPOT_UM for size in self.spot_um):
            raise ValueError(
                f"the sizes of a spot are from 0 to {LARGEST_SPOT_UM:g} um; change detector.spot_um"
            )
        return self

    @model_validator(mode="after")
    def _flat_field_is_complete(self) -> DetectorSettings:
        if self.dark is not None and self.bright is None:
            raise ValueError("a dark reference needs a bright one as well; give detector.bright")
        return self

    @model_validator(mode="after")
    def _an_own_detector_is_whole(self) -> DetectorSettings:
        if self.file is None and self.options:
            raise ValueError("options belong to a detector of your own; give its file")
        if self.file is not None:
            fields = type(self).model_fields
            given = [name for name in OF_OURS if getattr(self, name) != fields[name].default]
            if given:
                raise ValueError(
                    f"a detector of your own (file) does not use {given[0]}; leave one of them out"
                )
        return self
