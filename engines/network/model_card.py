"""The metadata of a model file: units, scales, polarity and origin, as JSON in the `.onnx` file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from engines.bounded_reading import refuse_long_text
from engines.network.layout import CHANNELS, MOST_KINDS, SLOTS, STRIDE
from stream.errors import ConfigurationError
from stream.settings import describe

KEY = "liveptv"
SCHEMA = 3
PLAIN_SCHEMA = 2
"""Of files for an even field and one kind of particles, which programs of that schema read too."""
VOLUME = "volume"
"""`kind` in the metadata of networks for volumes, whose card is `engines.volumes.network.model_card`."""
Polarity = Literal["dark", "bright"]


class ModelCard(BaseModel):
    """The metadata of a model, JSON under the key `liveptv`.

    The input is (image / background - 1), times -1 where particles are dark, over `noise_contrast`: the
    particles are positive and the noise has a standard deviation of about 1; with a `knee` the network itself
    compresses what is above (`architecture.ParticleNet`). The output is that of `layout`, maps
    in files of schema 1 and planes since; its depth is in `half_range_um` off `middle_um`, and its standard errors
    are to be multiplied by `sigma_scale` (x, y, z). A particle of brightness 1 has `peak_contrast` on average. With
    a `field_shape` (H, W) the network knows the place in that field of view (`field_ramps`), and its x, y and depth
    are local ones, as `engines.refine.field` defines them. With several `kinds` of particles it tells the class,
    and the brightness of all is relative to the mean particle of the first.
    `recalibrated` has an entry for each time that the PSF model's terms were updated, the last one last.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    schema_version: int = Field(ge=1)
    pixel_size_um: float = Field(gt=0)
    polarity: Polarity
    middle_um: float
    half_range_um: float = Field(gt=0)
    noise_contrast: float = Field(gt=0)
    peak_contrast: float = Field(gt=0)
    knee: float | None = Field(None, gt=0)
    sigma_scale: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    field_shape: tuple[PositiveInt, PositiveInt] | None = None
    kinds: int = Field(1, ge=1, le=MOST_KINDS)
    stride: int = STRIDE
    slots: int = SLOTS
    channels: int = CHANNELS
    size: str
    made_from: str
    calibration_sha256: str = ""
    training: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    recalibrated: list[dict[str, Any]] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_of_this_layout(self) -> ModelCard:
        if (self.stride, self.slots, self.channels) != (STRIDE, SLOTS, CHANNELS):
            raise ValueError(
                f"stride {self.stride}, {self.slots} slots of {self.channels} values are not this version's"
            )
        return self

    @property
    def sign(self) -> float:
        """Of the particles' contrast: -1 where they are darker than the background."""
        return -1.0 if self.polarity == "dark" else 1.0

    @property
    def z_range_um(self) -> tuple[float, float]:
        """The depths that the network was trained for."""
        return self.middle_um - self.half_range_um, self.middle_um + self.half_range_um


def card_of(metadata: Mapping[str, str], name: str) -> ModelCard:
    """The card in the metadata of a model. Raises `ConfigurationError` where there is none, or a bad one."""
    text = metadata.get(KEY)
    if text is None:
        raise ConfigurationError(f"{name} is not a liveptv model; make one with `liveptv train`")
    try:
        refuse_long_text(metadata, KEY)
        data = json.loads(text)
        if int(data.get("schema_version", 0)) > SCHEMA:
            raise ConfigurationError(f"{name} was made by a newer liveptv; update this one")
        if data.get("kind") == VOLUME:
            raise ConfigurationError(f"{name} is a network for volumes, which reads no single images")
        return ModelCard.model_validate(data)
    except ConfigurationError:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        detail = describe(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise ConfigurationError(f"the metadata of {name} is damaged: {detail}; train it again") from error
