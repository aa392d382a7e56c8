"""The metadata of a file with one of the published networks for volumes, JSON under the key `liveptv`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from engines.bounded_reading import refuse_long_text
from engines.comparison.volumes.kinds import TITLES, Kind
from engines.network.card_text import KEY, Card, read_card
from stream.errors import ConfigurationError

SCHEMA = 1


class HourglassCard(Card):
    """Which of the networks it is and how it was trained.

    The network takes a stack with mean 0 and standard deviation 1 and gives a map within 0 to 1, in which voxels
    from `threshold` on may be particles. It knows voxels, not um.
    """

    schema_version: int = Field(SCHEMA, ge=1)
    kind: Kind
    threshold: float = Field(gt=0, lt=1)
    made_from: str
    training: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


def is_of_comparison(metadata: Mapping[str, str]) -> bool:
    """Whether a model file with this metadata holds one of the published networks for volumes."""
    try:
        refuse_long_text(metadata, KEY)
        card = json.loads(metadata.get(KEY, "null"))
    except (ValueError, RecursionError):
        return False
    return isinstance(card, dict) and card.get("kind") in TITLES


def hourglass_card(metadata: Mapping[str, str], name: str) -> HourglassCard:
    """The card in the metadata of a model. Raises `ConfigurationError` where there is none, or a bad one."""
    if not is_of_comparison(metadata):
        raise ConfigurationError(
            f"{name} is not DetNet3D or DM-DetNet3D; train one with benchmarks/volume_networks.py"
        )
    return read_card(HourglassCard, metadata, name, SCHEMA)
