"""Viscosity, particle size or temperature from D, by the Stokes-Einstein relation D = k T / (3 pi eta d).

Einstein, Annalen der Physik 322, 549 (1905). Two of the three have to be known; of water the viscosity is known
once the temperature is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq

from stream.errors import ConfigurationError

BOLTZMANN_J_K = 1.380649e-23
ZERO_C_K = 273.15
WATER_FROM_C, WATER_TO_C = -20.0, 110.0  # validity of the correlation at 0.1 MPa
_WATER = ((280.68, -1.9), (511.45, -7.7), (61.131, -19.6), (0.45903, -40.0))
WATER_ERROR = 0.01  # stated uncertainty of the correlation, relative; 0.17 % between 0 and 50 C
UNITS = {"viscosity": "mPa s", "diameter": "um", "temperature": "C"}


@dataclass(frozen=True, slots=True)
class Known:
    """A quantity that is known, and its standard error, in the same unit."""

    value: float
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Derived:
    """A `quantity` that follows from D: viscosity (mPa s), diameter (um) or temperature (C)."""

    quantity: str
    value: float
    standard_error: float

    @property
    def unit(self) -> str:
        """The unit of the value."""
        return UNITS[self.quantity]


def water_viscosity_mpa_s(temperature_c: float) -> float:
    """Viscosity of water at 0.1 MPa (Patek et al., J. Phys. Chem. Ref. Data 38, 21, 2009, eq. 8; IAPWS SR6-08).

    Raises `ConfigurationError` outside of -20 to 110 degrees.
    """
    if not WATER_FROM_C <= temperature_c <= WATER_TO_C:
        raise ConfigurationError(
            f"the viscosity of water is known from {WATER_FROM_C:g} to {WATER_TO_C:g} C, "
            f"not at {temperature_c:g} C; give the viscosity itself"
        )
    relative = (temperature_c + ZERO_C_K) / 300.0
    return 1e-3 * math.fsum(a * relative**b for a, b in _WATER)


def diffusion_um2_s(temperature_c: float, viscosity_mpa_s: float, diameter_um: float) -> float:
    """D of a sphere far from walls, um^2/s."""
    return (
        BOLTZMANN_J_K
        * (temperature_c + ZERO_C_K)
        / (3.0 * math.pi * viscosity_mpa_s * 1e-3 * diameter_um * 1e-6)
        * 1e12
    )


def derive(
    um2_s: float,
    standard_error_um2_s: float,
    *,
    temperature_c: Known | None = None,
    viscosity_mpa_s: Known | None = None,
    diameter_um: Known | None = None,
    water: bool = False,
) -> Derived | None:
    """The third quantity from D and two others; None where D or the others do not give it.

    With `water` and no viscosity: the diameter from the temperature, or the temperature from the diameter. With
    temperature and diameter the viscosity follows, whatever the liquid. Errors are propagated to first order.
    """
    if not (math.isfinite(um2_s) and um2_s > 0):
        return None
    d = Known(um2_s, standard_error_um2_s)
    if temperature_c is not None and diameter_um is not None and viscosity_mpa_s is None:
        t = Known(temperature_c.value + ZERO_C_K, temperature_c.error)
        value = diffusion_um2_s(temperature_c.value, 1.0, diameter_um.value) / um2_s
        return Derived("viscosity", value, value * _relative(d, t, diameter_um))
    if temperature_c is not None and diameter_um is None:
        viscosity = viscosity_mpa_s or (_water_at(temperature_c) if water else None)
        if viscosity is None:
            return None
        t = Known(temperature_c.value + ZERO_C_K, temperature_c.error if viscosity_mpa_s else 0.0)
        value = diffusion_um2_s(temperature_c.value, viscosity.value, 1.0) / um2_s
        return Derived("diameter", value, value * _relative(d, t, viscosity))
    if temperature_c is None and diameter_um is not None:
        if viscosity_mpa_s is not None:
            kelvin = ZERO_C_K * um2_s / diffusion_um2_s(0.0, viscosity_mpa_s.value, diameter_um.value)
            return Derived(
                "temperature", kelvin - ZERO_C_K, kelvin * _relative(d, viscosity_mpa_s, diameter_um)
            )
        return _temperature_of_water(d, diameter_um) if water else None
    return None


def _water_at(temperature_c: Known) -> Known:
    """Viscosity of water, with an error that holds those of the temperature and of the correlation.

    T and eta change together: the relative error of T / eta is that of eta plus that of T, which is taken along.
    """
    value = water_viscosity_mpa_s(temperature_c.value)
    slope = _slope(temperature_c.value)
    return Known(value, value * math.hypot(slope * temperature_c.error, WATER_ERROR))


def _temperature_of_water(d: Known, diameter_um: Known) -> Derived | None:
    def off(celsius: float) -> float:
        return diffusion_um2_s(celsius, water_viscosity_mpa_s(celsius), diameter_um.value) - d.value

    if off(WATER_FROM_C) > 0 or off(WATER_TO_C) < 0:
        return None
    found = float(brentq(off, WATER_FROM_C, WATER_TO_C))
    relative = math.hypot(_relative(d, diameter_um), WATER_ERROR)
    return Derived("temperature", found, relative / _slope(found))


def _slope(celsius: float) -> float:
    """d ln(T / eta) / dT of water, 1/K."""
    low, high = max(celsius - 0.01, WATER_FROM_C), min(celsius + 0.01, WATER_TO_C)
    ratio = (high + ZERO_C_K) / (low + ZERO_C_K) * water_viscosity_mpa_s(low) / water_viscosity_mpa_s(high)
    return math.log(ratio) / (high - low)


def _relative(*known: Known) -> float:
    return math.sqrt(sum((one.error / one.value) ** 2 for one in known))
