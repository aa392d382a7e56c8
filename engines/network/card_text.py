"""What the metadata of all networks have in common: how they were trained, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.bounded_reading import refuse_long_text
from stream.errors import ConfigurationError
from stream.settings import describe

KEY = "liveptv"
"""Under this key a model file has its card, as JSON."""


class Card(BaseModel):
    """The metadata of a network: unknown fields are passed over, infinite numbers refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class TrainedCard(Card):
    """How a network was trained: its `size`, from which calibration, with which settings, and its scores."""

    schema_version: int = Field(ge=1)
    size: str
    made_from: str
    calibration_sha256: str = ""
    training: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


AnyCard = TypeVar("AnyCard", bound=Card)


def read_card(
    kind: type[AnyCard],
    metadata: Mapping[str, str],
    name: str,
    schema: int,
    refuse: Callable[[dict[str, Any]], str] = lambda _data: "",
) -> AnyCard:
    """The card in the metadata of the model `name`, of this `schema` at most.

    `refuse` says why it is another kind of card, or "". Raises `ConfigurationError` where there is none, or another
    or a bad one.
    """
    text = metadata.get(KEY)
    if text is None:
        raise ConfigurationError(f"{name} is not a liveptv model; make one with `liveptv train`")
    try:
        refuse_long_text(metadata, KEY)
        data = json.loads(text)
        why = refuse(data)
        if why:
            raise ConfigurationError(f"{name} {why}")
        if int(data.get("schema_version", 0)) > schema:
            raise ConfigurationError(f"{name} was made by a newer liveptv; update this one")
        return kind.model_validate(data)
    except ConfigurationError:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        detail = describe(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise ConfigurationError(f"the metadata of {name} is damaged: {detail}; train it again") from error
