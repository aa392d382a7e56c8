"""What is known of the particles and the liquid: from two of them and D the third follows."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from stream.settings import Section
from tracking.physics.diffusion.stokes_einstein import (
    WATER_FROM_C,
    WATER_TO_C,
    Derived,
    Known,
    derive,
    water_viscosity_mpa_s,
)


class DiffusionSettings(Section):
    """What is known of particles and liquid. Of temperature, viscosity and diameter give at most two."""

    temperature_c: float | None = Field(
        None, ge=-100, le=1000, description="temperature of the liquid, degrees Celsius"
    )
    temperature_error_c: float = Field(0.0, ge=0, le=1000, description="its standard error")
    viscosity_mpa_s: float | None = Field(
        None, gt=0, le=1e9, description="dynamic viscosity of the liquid, mPa s"
    )
    viscosity_error_mpa_s: float = Field(0.0, ge=0, le=1e9, description="its standard error")
    particle_diameter_um: float | None = Field(None, gt=0, le=1e4, description="diameter of the particles")
    particle_diameter_error_um: float = Field(0.0, ge=0, le=1e4, description="its standard error")
    water: bool = Field(
        False,
        description="the liquid is water: its viscosity follows from the temperature, or the temperature from D "
        "and the diameter",
    )
    localisation_um: float | None = Field(
        None,
        ge=0,
        le=1e4,
        description="localisation error along each axis, where it is known; left out: from the tracks themselves",
    )

    @model_validator(mode="after")
    def _at_most_two(self) -> Self:
        given = (self.temperature_c, self.viscosity_mpa_s, self.particle_diameter_um)
        if all(value is not None for value in given):
            raise ValueError(
                "temperature_c, viscosity_mpa_s and particle_diameter_um are all given; leave out the one to find"
            )
        if self.water and self.viscosity_mpa_s is not None:
            raise ValueError("water has its own viscosity; leave out water or viscosity_mpa_s")
        celsius = self.temperature_c
        if self.water and celsius is not None and not WATER_FROM_C <= celsius <= WATER_TO_C:
            raise ValueError(
                f"the viscosity of water is known from {WATER_FROM_C:g} to {WATER_TO_C:g} C; leave out water, "
                "and give viscosity_mpa_s"
            )
        return self

    @property
    def asked_for(self) -> bool:
        """Whether anything is given: D then matters enough for a map of it."""
        return self != DiffusionSettings()

    @property
    def known_viscosity_mpa_s(self) -> float | None:
        """The viscosity as it is given, or that of water at the temperature that is given."""
        if self.viscosity_mpa_s is not None or not self.water or self.temperature_c is None:
            return self.viscosity_mpa_s
        return water_viscosity_mpa_s(self.temperature_c)

    def third(self, um2_s: float, standard_error_um2_s: float) -> Derived | None:
        """The third of temperature, viscosity and diameter, from D; None where too little is given."""

        def known(value: float | None, error: float) -> Known | None:
            return None if value is None else Known(value, error)

        return derive(
            um2_s,
            standard_error_um2_s,
            temperature_c=known(self.temperature_c, self.temperature_error_c),
            viscosity_mpa_s=known(self.viscosity_mpa_s, self.viscosity_error_mpa_s),
            diameter_um=known(self.particle_diameter_um, self.particle_diameter_error_um),
            water=self.water,
        )
