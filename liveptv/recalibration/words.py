"""What a recalibration found, in words."""

from __future__ import annotations

from calibration.recalibration.estimate import LINES, Recalibrated
from calibration.recalibration.terms import Term


def lines_of(found: Recalibrated) -> list[str]:
    """What a recalibration found, a line each."""
    lines = [_line(term) for term in found.terms]
    before, after = found.chi_square
    lines += [*found.remarks]
    return [*lines, f"reduced chi-square of {found.particles} images: {before:.4g} before, {after:.4g} after"]


def in_short(found: Recalibrated) -> str:
    """The terms that change, and what chi-square gains."""
    before, after = found.chi_square
    changes = ", ".join(_change(term) for term in found.changed)
    return f"{changes}: reduced chi-square of {found.particles} images {before:.4g} -> {after:.4g}"


def _change(term: Term) -> str:
    if term.name == LINES:
        change_um = term.after[0] - term.before[0]
        return (
            f"focal planes {abs(change_um):.1f} um {'further apart' if change_um > 0 else 'closer together'}"
        )
    return f"{term.name} {_numbers(term.before)} -> {_numbers(term.after)}{_unit(term)}"


def _line(term: Term) -> str:
    if not term.changed:
        return f"{term.name} stays {_numbers(term.before)}{_unit(term)}: {term.why}"
    return (
        f"{term.name}: {_numbers(term.before)} -> {_numbers(term.after)}{_unit(term)} "
        f"(standard error {_numbers(term.sd)}); "
        f"chi-square of {term.particles} left-out particles {term.chi2_before:,.6g} -> {term.chi2_after:,.6g}"
    )


def _unit(term: Term) -> str:
    return "" if term.unit == "1" else f" {term.unit}"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
