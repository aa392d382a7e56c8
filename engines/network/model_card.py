"""The metadata of a model file: units, scales, polarity and origin, as JSON in the `.onnx` file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from engines.network.card_text import TrainedCard, read_card
from engines.network.layout import CHANNELS, MOST_KINDS, MOST_LEARNT, SLOTS, STRIDE
from engines.network.learnt import LearntProperty
from stream.particle_properties import check_names

SCHEMA = 4
PLAIN_SCHEMA = 2
"""Of files for an even field and one kind of particles, which programs of that schema read too."""
FIELD_SCHEMA = 3
"""Of files for a field of view or several kinds; the present schema is that of files with `properties`, without
depth or of another `normalisation`."""
Normalisation = Literal["background", "noise"]
VOLUME = "volume"
"""`kind` in the metadata of networks for volumes, whose card is `engines.volumes.network.model_card`."""
Polarity = Literal["dark", "bright"]


class ModelCard(TrainedCard):
    """The metadata of a model, JSON under the key `liveptv`.

    The input is (image / background - 1), times -1 where particles are dark, over `noise_contrast`: the
    particles are positive and the noise has a standard deviation of about 1; with a `knee` the network itself
    compresses what is above (`architecture.ParticleNet`). The output is that of `layout`, maps
    in files of schema 1 and planes since; its depth is in `half_range_um` off `middle_um`, and its standard errors
    are to be multiplied by `sigma_scale` (x, y, z). A particle of brightness 1 has `peak_contrast` on average. With
    a `field_shape` (H, W) the network knows the place in that field of view (`field_ramps`), and its x, y and depth
    are local ones, as `engines.refine.field` defines them. With several `kinds` of particles it tells the class,
    and the brightness of all is relative to the mean particle of the first.
    Particles of a class have the name in `kind_names`, where there are any. `properties` were learnt beside these.
    A network without `depth` tells no z. With the `normalisation` "noise" the input is (image - background) in
    standard deviations of the image's own noise, for images that are dark where no particle is; then
    `noise_contrast` and `peak_contrast` are in this unit.
    `recalibrated` has an entry for each time that the PSF model's terms were updated, the last one last.
    """

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
    kind_names: tuple[str, ...] = ()
    properties: tuple[LearntProperty, ...] = ()
    depth: bool = True
    normalisation: Normalisation = "background"
    stride: int = STRIDE
    slots: int = SLOTS
    channels: int = CHANNELS
    recalibrated: list[dict[str, Any]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_of_this_layout(self) -> ModelCard:
        if (self.stride, self.slots, self.channels) != (STRIDE, SLOTS, CHANNELS):
            raise ValueError(
                f"stride {self.stride}, {self.slots} slots of {self.channels} values are not this version's"
            )
        check_names([each.name for each in self.properties])
        if self.learnt > MOST_LEARNT:
            raise ValueError(f"{self.learnt} learnt numbers; at most {MOST_LEARNT}")
        return self

    @property
    def learnt(self) -> int:
        """Numbers that the network learnt for its `properties`: two for an angle, one for any other."""
        return sum(each.numbers for each in self.properties)

    @property
    def sign(self) -> float:
        """Of the particles' contrast: -1 where they are darker than the background."""
        return -1.0 if self.polarity == "dark" else 1.0

    @property
    def facts(self) -> dict[str, Any]:
        """What an engine says of its network, for the run's file and the report."""
        found: dict[str, Any] = {"polarity": self.polarity, "size": self.size, "scores": self.scores}
        if self.depth:
            found["z_um"] = list(self.z_range_um)
        if self.kind_names:
            found["kind_names"] = list(self.kind_names)
        return found

    @property
    def processor_only(self) -> str:
        """Why programs of NVIDIA's GPUs, which prepare and select on the GPU, cannot run it; "" where they can."""
        if self.learnt:
            return "does not read networks that learnt properties"
        if self.normalisation != "background":
            return "does not prepare images by their noise"
        return ""

    @property
    def z_range_um(self) -> tuple[float, float]:
        """The depths that the network was trained for."""
        return self.middle_um - self.half_range_um, self.middle_um + self.half_range_um


def card_of(metadata: Mapping[str, str], name: str) -> ModelCard:
    """The card in the metadata of a model. Raises `ConfigurationError` where there is none, or a bad one."""
    return read_card(ModelCard, metadata, name, SCHEMA, _refused)


def _refused(data: dict[str, Any]) -> str:
    return "is a network for volumes, which reads no single images" if data.get("kind") == VOLUME else ""
