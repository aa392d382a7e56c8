"""The experiment file: its sections, and how it is read."""

from liveptv.config.experiment import Experiment
from liveptv.config.loading import (
    apply_override,
    build_experiment,
    load_experiment,
    revised,
    settings_only,
)
from liveptv.config.sections import ChannelSettings

__all__ = [
    "ChannelSettings",
    "Experiment",
    "apply_override",
    "build_experiment",
    "load_experiment",
    "revised",
    "settings_only",
]
