"""Where the focus goes in a volume, and which image is which slice: pure functions of the settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from acquisition.settings import LimitsSettings
from acquisition.volumes.settings import VolumeSettings
from stream.errors import ConfigurationError

ROUND_UM = 1e-9  # um; positions are compared with this slack, far below an encoder's step


@dataclass(frozen=True)
class Place:
    """Where an image belongs: volume, counted from 0, and slice, by rising focus; -1 for a settling image."""

    volume: int
    slice: int


@dataclass(frozen=True)
class VolumePlan:
    """Volumes whose lowest slice lies at `lowest_um`; images are counted from 0 at the start of camera and drive.

    With `direction` both, volumes go up and down in turn, the first one down with `begins_down`. Every volume takes
    `images` images: first `settling` ones that are thrown away, then its slices in the order of
    travel.
    """

    lowest_um: float
    z_step_um: float
    slices: int
    direction: str
    settling: int
    lag_up_um: float = 0.0
    lag_down_um: float = 0.0
    begins_down: bool = False

    @property
    def images(self) -> int:
        """Images of a volume, with those thrown away."""
        return self.slices + self.settling

    @property
    def highest_um(self) -> float:
        """Focus position of the highest slice, um."""
        return self.lowest_um + (self.slices - 1) * self.z_step_um

    @property
    def volumes_per_cycle(self) -> int:
        """Volumes after which the positions repeat."""
        return 2 if self.direction == "both" else 1

    @cached_property
    def heights_um(self) -> tuple[float, ...]:
        """Commanded height of each slice above the lowest one, um."""
        return tuple(k * self.z_step_um for k in range(self.slices))

    def upwards(self, volume: int) -> bool:
        """Whether the focus rises in a volume."""
        if self.direction == "both":
            return volume % 2 == self.begins_down
        return self.direction == "up"

    def place(self, image: int) -> Place:
        """Volume and slice of an image."""
        volume, step = divmod(image, self.images)
        step -= self.settling
        if step < 0:
            return Place(volume, -1)
        return Place(volume, step if self.upwards(volume) else self.slices - 1 - step)

    def image_of(self, volume: int, slice_: int) -> int:
        """The image that is this slice of this volume."""
        step = slice_ if self.upwards(volume) else self.slices - 1 - slice_
        return volume * self.images + self.settling + step

    def positions_um(self, volumes: int) -> list[float]:
        """The commanded focus position of each image of the first volumes, um."""
        positions = []
        for image in range(volumes * self.images):
            volume, step = divmod(image, self.images)
            first = 0 if self.upwards(volume) else self.slices - 1
            k = self.place(image).slice if step >= self.settling else first
            positions.append(self.lowest_um + self.heights_um[k])
        return positions

    def focus_um(self, volume: int) -> float:
        """Where the lowest slice of a volume was taken: the commanded position less the lag of the drive, um."""
        return self.lowest_um + (-self.lag_up_um if self.upwards(volume) else self.lag_down_um)

    def moved_to(self, lowest_um: float) -> VolumePlan:
        """The same plan elsewhere."""
        return replace(self, lowest_um=lowest_um)

    def one_volume(self, volume: int) -> VolumePlan:
        """The plan of this volume alone, for a start of its own."""
        return replace(self, direction="up" if self.upwards(volume) else "down")

    def turned(self) -> VolumePlan:
        """The plan with its second volume first."""
        return replace(self, begins_down=not self.begins_down)


def plan_volumes(settings: VolumeSettings, limits: LimitsSettings, focus_um: float) -> VolumePlan:
    """The plan for settings, where the focus is at `focus_um` now.

    Raises `ConfigurationError` if the volumes leave the limits, or if no limits are set.
    """
    lowest_um = settings.start_um
    if lowest_um is None:
        centre_um = focus_um if settings.centre_um is None else settings.centre_um
        if not math.isfinite(centre_um):
            raise ConfigurationError(
                f"the focus reads {centre_um}, so volumes cannot be centred on it; set volume.start_um or "
                "volume.centre_um"
            )
        lowest_um = centre_um - settings.depth_um / 2
    plan = VolumePlan(
        lowest_um,
        settings.z_step_um,
        settings.slices,
        settings.direction,
        settings.settle_images if settings.mode != "stepped" else 0,
        settings.lag_up_um,
        settings.lag_down_um,
    )
    problem = outside(plan, limits)
    if problem:
        raise ConfigurationError(f"{problem}; change [volume] or the limits")
    return plan


def outside(plan: VolumePlan, limits: LimitsSettings) -> str:
    """Why the positions of a plan are not within the limits; "" if they are."""
    low_um, high_um = limits.min_focus_um, limits.max_focus_um
    if low_um is None or high_um is None:
        return "the focus cannot scan without limits: set limits.min_focus_um and limits.max_focus_um"
    if plan.lowest_um < low_um - ROUND_UM or plan.highest_um > high_um + ROUND_UM:
        return (
            f"the volumes reach from {plan.lowest_um:g} to {plan.highest_um:g} um, outside the limits "
            f"{low_um:g} to {high_um:g} um (limits.min_focus_um, limits.max_focus_um)"
        )
    longest_um = limits.max_focus_step_um
    step_um = _longest_step_um(plan)
    if longest_um is not None and step_um > longest_um + ROUND_UM:
        return (
            f"the focus would move {step_um:g} um at once, more than "
            f"limits.max_focus_step_um ({longest_um:g} um)"
        )
    return ""


def _longest_step_um(plan: VolumePlan) -> float:
    """The longest move within and between volumes, um: the flight back, where there is one."""
    positions = plan.positions_um(plan.volumes_per_cycle)
    return max(abs(b - a) for a, b in zip(positions, [*positions[1:], positions[0]], strict=True))
