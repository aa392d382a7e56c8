"""Settings of the live fit of the flow in a channel, `[flow]` in the experiment file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, field_validator

from stream.errors import ConfigurationError
from stream.settings import Section as SettingsSection
from tracking.physics.channel.parameters import UNKNOWN, Known, Prior, prior_of
from tracking.physics.sections.section_text import section_from
from tracking.physics.sections.shapes import Rectangle, Section


class FlowSettings(SettingsSection):
    """The fit of the flow in the channel, during a run and in its report; needs `[channel]` and depths."""

    live: bool = Field(
        True,
        description="fit the flow during a run with a `[channel]`: once a second, after 20 s every two",
    )
    section: str = Field(
        "",
        max_length=10_000,
        description="section of the channel: rectangle:400x100, circle:80, ellipse:200x80 or polygon:0,0;300,0;"
        "230,60;70,60, um; left out: a rectangle of the size in `[channel]`",
    )
    viscosity_mpa_s: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="viscosity of the liquid, mPa s, for wall shear and pressure; left out: that of `[diffusion]`",
    )
    unknown: list[Literal["width_um", "depth_um", "slip_um", "flow_index"]] = Field(
        default_factory=list, max_length=4, description="what is fitted beside velocity, place and direction"
    )
    floor_error_um: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="standard error of `channel.floor_um`; left out: the fit finds the floor by itself",
    )
    center_error_um: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="standard error of `channel.center_y_um`; left out: the fit finds the middle by itself",
    )
    settle_s: float = Field(
        2.0, ge=0, le=3600, description="time after a change of the pump in which tracks do not count"
    )
    memory_s: float | None = Field(
        None,
        gt=0,
        le=1e7,
        description="time in which the past loses weight; left out: all counts since the flow changed last",
    )

    @field_validator("section")
    @classmethod
    def _known(cls, text: str) -> str:
        try:
            if text:
                section_from(text)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return text

    def section_or(self, width_um: float, depth_um: float) -> Section:
        """The section that is given, or the rectangle of this size."""
        return section_from(self.section) if self.section else Rectangle(width_um, depth_um)

    def prior(
        self,
        section: Section,
        floor_height_um: float,
        center_y_um: float | None,
        unknown: Iterable[str] | None = None,
    ) -> Prior:
        """What is known before the fit, with the floor's height and the middle of `[channel]`.

        `unknown` are the parameters that are fitted too, in place of the setting's. Raises `ConfigurationError` for
        one that does not exist.
        """
        begin = {
            "slip_um": 0.0, "flow_index": 1.0, "width_um": section.width_um, "depth_um": section.depth_um
        }  # fmt: skip
        names = self.unknown if unknown is None else unknown
        known = {str(name): Known(begin.get(name, math.nan), UNKNOWN) for name in names}
        if self.floor_error_um is not None:
            known["floor_um"] = Known(floor_height_um, self.floor_error_um)
        if self.center_error_um is not None and center_y_um is not None:
            known["center_y_um"] = Known(center_y_um, self.center_error_um)
        return prior_of(section, known)

    @property
    def forgets_s(self) -> float:
        """`memory_s`, infinite if it is left out."""
        return math.inf if self.memory_s is None else self.memory_s
