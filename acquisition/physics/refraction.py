"""Height in the sample per travel of the focus drive, where the sample's refractive index is not the lens's.

A ray that crosses the pupil at s = n sin(theta) comes from the depth d below the interface and is seen as if from

    t = d sqrt((n_i^2 - s^2) / (n_s^2 - s^2))                                               (1)

below it, with the indices n_s of the sample and n_i for which the lens is made (Hell et al. 1993, J. Microsc. 169,
391; at the edge of the pupil: Visser & Oud 1994, Scanning 16, 198). The height per travel, d / t, is n_s / n_i on
the axis and differs over the pupil: it is averaged here with the light, that is over the pupil's area (Diel et al.
2020, Nat. Protoc. 15, 2773, average over its radius):

    factor = 1 / s_1^2  integral_0^{s_1^2} sqrt((n_s^2 - x) / (n_i^2 - x)) dx               (2)

with s_1 the numerical aperture, or the smaller index where that is less: no light comes from beyond. Within 2 %
this is the defocus that leaves the least aberration (Stallinga 2005, Appl. Opt. 44, 849) up to a numerical aperture
of 0.95 in air into water. In the ray picture t is proportional to d: the focal shift t - d grows linearly with
depth, and the factor is the same at all depths. Within some wavelengths of the interface wave optics gives up to a
tenth more (Loginov et al. 2024, Optica 11, 553), which is not corrected.
"""

from __future__ import annotations

import math

SMALLEST = 1e-6
"""(s_1 / n)^2 below which the middle of the interval stands for the integral: the error is then below 1e-13."""


def refraction_factor(
    sample_index: float, immersion_index: float, numerical_aperture: float | None = None
) -> float:
    """Height in the sample per focus travel: (2), or without an aperture the paraxial ratio of the indices.

    Raises `ValueError` for indices below 1, and an aperture that is not above 0 or above the immersion's index.
    """
    if not (1 <= sample_index < math.inf and 1 <= immersion_index < math.inf):
        raise ValueError(
            f"refractive indices must be 1 or more, not {sample_index:g} and {immersion_index:g}"
        )
    if numerical_aperture is None:
        return sample_index / immersion_index
    if not 0 < numerical_aperture <= immersion_index:
        raise ValueError(
            f"a numerical aperture of {numerical_aperture:g} needs an immersion of at least that index, not "
            f"{immersion_index:g}"
        )
    if sample_index == immersion_index:
        return 1.0
    sample, immersion = sample_index**2, immersion_index**2
    edge = min(numerical_aperture**2, sample)
    if edge < SMALLEST:
        return math.sqrt((sample - edge / 2) / (immersion - edge / 2))

    def integral(x: float) -> float:
        a, b = math.sqrt(sample - x), math.sqrt(max(0.0, immersion - x))
        return (immersion - sample) * math.log(a + b) - a * b

    return (integral(edge) - integral(0.0)) / edge


def refraction_in_words(
    factor: float,
    sample_index: float | None,
    immersion_index: float | None,
    numerical_aperture: float | None,
) -> str:
    """Where a factor is from, for the trajectory file; indices are None where the factor itself was given."""
    shift = f"the focal shift is {1 / factor - 1:+.4g} um per um of depth, linear in depth"
    if sample_index is None or immersion_index is None:
        return f"given as {factor:g}; {shift}"
    indices = f"indices {sample_index:g} (sample) and {immersion_index:g} (immersion)"
    if numerical_aperture is None:
        return f"{factor:.6g}: paraxial ratio of the {indices}; {shift}"
    edge = min(numerical_aperture, sample_index)
    top, bottom = sample_index**2 - edge**2, immersion_index**2 - edge**2
    marginal = math.sqrt(top / bottom) if bottom > 0 else math.inf
    return (
        f"{factor:.6g}: rays averaged over the pupil, numerical aperture {numerical_aperture:g}, {indices}; "
        f"{sample_index / immersion_index:.4g} on the axis, {marginal:.4g} at the edge; {shift}"
    )
