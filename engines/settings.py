"""The settings of the detector, `[detector]` in the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_PARTICLES = 100_000
"""Particles a frame that can be asked for."""
BackEndName = Literal["auto", "onnxruntime", "openvino", "torch", "tensorrt"]


class DetectorSettings(BaseModel):
    """How particles are found; every default works unattended."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    engine: Literal["auto", "classical", "network"] = Field(
        "auto", description="which kind of detector; auto: the one that the model is for"
    )
    model: Path | None = Field(
        None,
        description="network (.onnx), or width curve (.h5) from a calibration or the optics; left out: 2D, z "
        "is NaN",
    )
    backend: BackEndName = Field(
        "auto", description="what runs a network; auto: the fastest that can run here (docs/engines.md)"
    )
    precision: Literal["auto", "full", "reduced"] = Field(
        "auto",
        description="of a network: full is single precision; reduced is half precision on a GPU, and 8 bits on "
        "a processor once `liveptv engine quantise` has found them accurate; auto: reduced where it can be had",
    )
    on_failure: Literal["fall_back", "stop"] = Field(
        "fall_back",
        description="when the back end fails in the middle of a run: go on with onnxruntime, or stop",
    )
    polarity: Literal["auto", "dark", "bright"] = Field(
        "auto",
        description="particles darker or brighter than the background; auto: as the model says, else "
        "whichever gives the stronger response",
    )
    diameter_px: float | None = Field(
        None,
        ge=3,
        le=500,
        description="2D only: diameter of a particle's image; left out: several sizes are tried",
    )
    threshold: float | None = Field(
        None,
        gt=0,
        description="response a candidate needs, in standard deviations of the filtered background; left "
        "out: so high that noise alone gives one false alarm in ten frames",
    )
    min_confidence: float = Field(
        0.5, ge=0, le=1, description="detections below this are left out and counted"
    )
    max_particles: int = Field(
        2000,
        ge=1,
        le=MOST_PARTICLES,
        description="most a frame; the faintest are left out, which is said; the links of a run hold tables of "
        "this size. `detect`, which has no links, takes all unless this is given",
    )
    refine: bool = Field(
        True,
        description="measure what was found again, by a fit of the calibrated particle image, where the model "
        "file holds one",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="frames worked on at the same time; left out: the processors less two, at most eight",
    )
    bright: Path | None = Field(None, description="flat field: image of the background without particles")
    dark: Path | None = Field(None, description="flat field: image without light")

    @model_validator(mode="after")
    def _flat_field_is_complete(self) -> DetectorSettings:
        if self.dark is not None and self.bright is None:
            raise ValueError("a dark reference needs a bright one as well; give detector.bright")
        return self
