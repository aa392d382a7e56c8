"""The metadata of a volume network: what it reads, what its output means, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from engines.bounded_reading import refuse_long_text
from engines.network.card_text import KEY, Card, TrainedCard, read_card
from engines.network.model_card import VOLUME
from engines.volumes.model import VolumeModel
from engines.volumes.network.layout import CHANNELS, STEP, STRIDE
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.noise import Noise
from stream.errors import ConfigurationError

PSF_KEY = "liveptv_volume_psf"
"""Key of the PSF (`VolumePsf.to_json`), which the fit behind the network uses."""
SCHEMA = 1


class NoiseCard(Card):
    """The camera's noise, as `engines.volumes.surroundings.noise.Noise` has it."""

    gain: float = Field(ge=0)
    offset: float
    read_variance: float = Field(ge=0)


class VolumeCard(TrainedCard):
    """The metadata of a volume network, JSON under the key `liveptv`.

    Input and output are those of `engines.volumes.network.layout`; the standard errors are to be multiplied by
    `sigma_scale` (x, y, z, brightness). It was trained for particles of the PSF in the same file, with backgrounds
    of about `light` grey values above the camera's offset.
    """

    kind: Literal["volume"] = "volume"
    schema_version: int = Field(SCHEMA, ge=1)
    noise: NoiseCard
    light: float = Field(gt=0)
    sigma_scale: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0, 1.0)
    stride: int = STRIDE
    step: int = STEP
    channels: int = CHANNELS

    @model_validator(mode="after")
    def _is_of_this_layout(self) -> VolumeCard:
        if (self.stride, self.step, self.channels) != (STRIDE, STEP, CHANNELS):
            raise ValueError(
                f"cells of {self.stride} px and {self.step} slices with {self.channels} values are not this "
                "version's"
            )
        return self


def is_volume_card(metadata: Mapping[str, str]) -> bool:
    """Whether metadata are those of a volume network; False for any other, damaged or not."""
    try:
        return bool(json.loads(metadata[KEY]).get("kind") == VOLUME)
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return False


def volume_card_of(metadata: Mapping[str, str], name: str) -> VolumeCard:
    """The card in the metadata of a model. Raises `ConfigurationError` where there is none, or a bad one."""
    return read_card(VolumeCard, metadata, name, SCHEMA, _refused)


def _refused(data: dict[str, Any]) -> str:
    return "" if data.get("kind") == VOLUME else "is a network for images, which reads no volumes"


def volume_model_of(metadata: Mapping[str, str], card: VolumeCard, name: str) -> VolumeModel:
    """The PSF and the noise for the fit. Raises `ConfigurationError` where they are missing or damaged."""
    if PSF_KEY not in metadata:
        raise ConfigurationError(f"{name} does not contain its PSF; train it again")
    refuse_long_text(metadata, PSF_KEY)
    noise = card.noise
    return VolumeModel(
        VolumePsf.from_json(metadata[PSF_KEY]), Noise(noise.gain, noise.offset, noise.read_variance)
    )
