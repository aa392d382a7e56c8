"""Finds out what the columns of a table mean, from their names and units alone.

What a table does not say is never assumed: for lengths without a unit the user is asked for `--pixel-size` or
`--columns`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from liveptv.tables.columns_option import LENGTHS, TARGETS, Given, Wanted
from liveptv.tables.dialects import DIALECTS, Dialect
from liveptv.tables.units import PIXEL, UM_PER_UNIT, UNIT_AT_END, known_unit, split_unit
from stream.errors import ConfigurationError, SourceError
from stream.particle_properties import property_columns, property_names_among
from stream.particle_tables import RESERVED

REQUIRED = ("frame", "x_um", "y_um")
OURS = (*TARGETS, "particle")

FRAME_NAMES = ("frame", "frames", "frame_number", "frame number", "framenumber", "frame_id", "fr")
TRACK_NAMES = ("track", "particle", "track_id", "trajectory", "trackid", "track id")
MOST_SHOWN = 200  # characters of the column names in an error


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the file, what makes um of its numbers, and the number that it gives the first frame."""

    name: str
    scale: float = 1.0
    first: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """How a table is read: a `Column` by our name; `told` is a line about it, "" for tables of our own.

    `flat`: depths that are 0 everywhere count as missing.
    """

    columns: Mapping[str, Column]
    told: str = ""
    flat: bool = False
    in_pixels: bool = False


def understand(
    path: Path, names: Sequence[str], wanted: Wanted, units: Mapping[str, str] | None = None
) -> Reading:
    """How a table with these columns is read. `units` are those that the table gives beside their names.

    Raises `SourceError`, with the columns and the option to give, if it is not clear, and `ConfigurationError` if
    the options do not fit the table.
    """
    return _Table(path, list(names), wanted, units or {}).read()


class _Table:
    def __init__(self, path: Path, names: list[str], wanted: Wanted, units: Mapping[str, str]) -> None:
        self.path, self.names, self.wanted, self.units = path, names, wanted, units
        self.by_lower: dict[str, str] = {}
        for name in names:
            self.by_lower.setdefault(name.strip().lower(), name)
        self.pixels_used = False
        self.taken_as_pixels = False

    def read(self) -> Reading:
        told, columns, note, first, flat = self._automatic()
        for target, given in self.wanted.columns.items():
            columns[target] = self._given(target, given)
        if "z_um" not in self.wanted.columns and columns.get("z_um", ("", "um", 0))[1] in {"?", PIXEL}:
            name = columns.pop("z_um")[0]
            note = f"{name} is left out because its unit is unknown (give it with --columns z=NAME[um])"
            columns.pop("sigma_z_um", None)
            columns.pop("z_other_um", None)
        self._check(columns)
        scaled = {target: self._scaled(target, column) for target, column in columns.items()}
        self._check_twice(scaled)
        pixel_um = self.wanted.pixel_size_um
        if pixel_um is not None and not self.pixels_used and not self.wanted.may_be_um:
            raise ConfigurationError(
                f"{self.path} has its positions in {columns['x_um'][1] or 'um'}, not in pixels; "
                "leave --pixel-size out"
            )
        parts = [self._lengths(columns)]
        if any(column.first for column in scaled.values()):
            parts.append(f"frames counted from {first or 1}")
        if note and "z_um" not in columns:
            parts.append(note)
        if self.wanted.columns:
            told = "by --columns" if not told else f"{told} and by --columns"
        line = f"{self.path.name} is read {told}: {', '.join(parts)}" if told else ""
        return Reading(scaled, line, flat, self.wanted.keep_pixels and self.pixels_used)

    def _lengths(self, columns: Mapping[str, tuple[str, str, int]]) -> str:
        name, unit, _ = columns["x_um"]
        if self.wanted.keep_pixels and unit in {PIXEL, "?"}:
            return f"{name} in pixels" if unit == PIXEL else f"{name} without a unit"
        if unit in {PIXEL, "?"}:
            how = "taken for" if self.taken_as_pixels else "in"
            return f"{name} {how} pixels of {self.wanted.pixel_size_um:g} um"
        return f"{name} in {unit or 'um'}"

    def _automatic(self) -> tuple[str, dict[str, tuple[str, str, int]], str, int, bool]:
        """A description, and by our name the column, its unit and its first frame, without `--columns`."""
        if {"x_um", "y_um"} <= set(self.names):
            ours = {
                "track" if n == "particle" else n: (n, "um" if n in LENGTHS else "", 0)
                for n in OURS
                if n in self.names and not (n == "particle" and "track" in self.names)
            }
            ours |= {
                name: (name, "", 0) for name in property_columns(property_names_among(self.names, RESERVED))
            }
            return "", ours, "", 0, False
        dialects = [dialect for dialect in DIALECTS if dialect.marks <= set(self.by_lower)]
        if dialects:
            found = self._dialect(dialects[0])
            if len(dialects) > 1 and {d.name for d in dialects} == {"ImageJ's results"}:
                del found["frame"]  # slices and frames: which of them counts, only the user knows
            first = dialects[0].first
            return f"as {dialects[0].name}", found, dialects[0].note, first, True
        return self._general()

    def _dialect(self, dialect: Dialect) -> dict[str, tuple[str, str, int]]:
        found: dict[str, tuple[str, str, int]] = {}
        for target, (candidates, unit) in dialect.columns.items():
            for lower in candidates.split("|"):
                if lower in self.by_lower:
                    name = self.by_lower[lower]
                    own = unit if unit or target not in LENGTHS else self._stated(name) or "?"
                    found[target] = (name, own, dialect.first if target == "frame" else 0)
                    break
        return found

    def _general(self) -> tuple[str, dict[str, tuple[str, str, int]], str, int, bool]:
        """Columns that say by their names what they are: x [nm], y (µm), frame, particle."""
        found: dict[str, tuple[str, str, int]] = {}
        for lower, name in self.by_lower.items():
            bare, unit = split_unit(lower)
            bare = bare.removeprefix("position_").removeprefix("pos_")
            if bare in {"x", "y", "z"}:
                target = f"{bare}_um"
                if target in found:
                    raise self._ask(f"{found[target][0]} and {name} may both be {bare}", bare)
                found[target] = (name, self._stated(name) or unit or "?", 0)
            elif lower in FRAME_NAMES and "frame" not in found:
                found["frame"] = (name, "", 0)
            elif lower in TRACK_NAMES and "track" not in found:
                found["track"] = (name, "", 0)
        return "by its columns' names", found, "", 0, True

    def _stated(self, name: str) -> str:
        """The unit of a column by the table itself."""
        return known_unit(self.units.get(name, "")) or split_unit(name)[1]

    def _given(self, target: str, given: Given) -> tuple[str, str, int]:
        name, inside = self._column(given.text)
        if target == "frame":
            if inside and not inside.isdecimal():
                raise ConfigurationError(
                    f"--columns frame={given.text}: the number in brackets is that of the first frame, 0 or 1"
                )
            return name, "", int(inside or 0)
        if target not in LENGTHS:
            return name, "", 0
        unit = known_unit(inside) if inside else known_unit(given.unit)
        if inside and not unit:
            raise ConfigurationError(
                f"--columns {given.text}: {inside!r} is not a known unit; use um, nm, mm or px (pixels)"
            )
        return name, unit or self._stated(name) or "?", 0

    def _column(self, text: str) -> tuple[str, str]:
        """The column that a text names, and what stands in brackets behind it."""
        plain = text.strip().lower()
        if plain in self.by_lower:
            return self.by_lower[plain], ""
        match = UNIT_AT_END.match(plain)
        if match and match["name"].strip() in self.by_lower:
            return self.by_lower[match["name"].strip()], match["unit"].strip()
        raise ConfigurationError(f"{self.path} has no column {text!r}; it has: {self._shown()}")

    def _check(self, columns: Mapping[str, tuple[str, str, int]]) -> None:
        missing = [name for name in REQUIRED if name not in columns]
        if missing:
            options = ",".join(
                f"{n.removesuffix('_um')}=NAME{'[um]' if n != 'frame' else ''}" for n in missing
            )
            raise SourceError(
                f"{self.path} has no column {' and no column '.join(missing)}; it has: {self._shown()}; "
                f"name them with --columns {options}"
            )

    def _check_twice(self, columns: Mapping[str, Column]) -> None:
        times = Counter(self.names)
        for column in columns.values():
            if times[column.name] > 1:
                raise SourceError(
                    f"{self.path} has {times[column.name]} columns {column.name!r}; rename them"
                )

    def _scaled(self, target: str, column: tuple[str, str, int]) -> Column:
        name, unit, first = column
        if target not in LENGTHS or unit == "um":
            return Column(name, 1.0, first)
        if unit in UM_PER_UNIT:
            return Column(name, UM_PER_UNIT[unit])
        self.pixels_used = True
        if self.wanted.keep_pixels:
            return Column(name)
        if self.wanted.pixel_size_um is not None:
            self.taken_as_pixels = self.taken_as_pixels or unit == "?"
            return Column(name, self.wanted.pixel_size_um)
        if unit == PIXEL:
            raise SourceError(f"{self.path} has {name} in pixels; give --pixel-size, um in object space")
        raise self._ask(f"{name} has no unit", target.removesuffix("_um"), name)

    def _ask(self, why: str, target: str, name: str = "NAME") -> SourceError:
        return SourceError(
            f"{self.path}: {why}; give --pixel-size UM if positions are in pixels, or their unit with --columns "
            f"{target}={name}[um]; it has: {self._shown()}"
        )

    def _shown(self) -> str:
        shown = ", ".join(name for name in self.names if name.strip()) or "none"
        return shown if len(shown) < MOST_SHOWN else shown[:MOST_SHOWN] + " ..."
