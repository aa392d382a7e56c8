"""What `liveptv evaluate` prints about volumes: scores with a gate in 3D."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import typer
from rich.table import Table

from liveptv.cli.console import console
from liveptv.cli.trajectory_lines import track_lines
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from calibration.volumes.scoring import PartScore, VolumeScore

LEAST_UM, MOST_UM = 1e-4, 1e4


def evaluate_volumes(
    truth: Mapping[str, npt.NDArray[Any]],
    found: Mapping[str, npt.NDArray[Any]],
    gate_um: float | None,
    gate_voxels: float | None,
    voxel_size: str | None,
    output: Path | None,
    *,
    as_json: bool,
) -> int:
    """Score volumes and print it. Raises `ConfigurationError` for options that do not fit together."""
    from calibration.volumes.scoring import match_volumes, score_volumes
    from liveptv.track_scores import score_trajectories

    voxel = None if voxel_size is None else parse_voxel(voxel_size)
    if output is not None:
        raise ConfigurationError(
            "the report of an evaluation is for images; for volumes leave out -o, or take --json"
        )
    if (gate_um is None) == (gate_voxels is None):
        raise ConfigurationError("give either --gate-um or --gate-voxels for volumes")
    if gate_voxels is not None:
        if voxel is None:
            raise ConfigurationError("--gate-voxels needs the edges of a voxel: add --voxel-size Z,Y,X in um")
        gate, unit, unit_um = gate_voxels, "voxels", voxel
    else:
        gate, unit, unit_um = float(gate_um or 0), "um", (1.0, 1.0, 1.0)
    result = score_volumes(match_volumes(truth, found, gate, unit_um), gate, unit, voxel)
    tracks = score_trajectories(truth, found, gate * unit_um[0], gate * unit_um[2])
    if as_json:
        plain = result.to_dict() | ({} if tracks is None else {"tracks": tracks.to_dict()})
        typer.echo(json.dumps(plain, indent=2))
        return 0
    _say(result)
    if tracks is not None:
        console.print(track_lines(tracks))
    return 0


def parse_voxel(text: str) -> tuple[float, float, float]:
    """The edges (x, y, z; um) from the option's `Z,Y,X`. Raises `ConfigurationError`."""
    parts = text.replace(";", ",").split(",")
    try:
        z, y, x = (float(part) for part in parts)
    except ValueError:
        raise ConfigurationError(
            f"--voxel-size is three lengths in um, along z, y and x, such as 0.3,0.1,0.1; not {text!r}"
        ) from None
    if not all(LEAST_UM <= edge <= MOST_UM for edge in (z, y, x)):
        raise ConfigurationError(f"--voxel-size {text}: edges of {LEAST_UM:g} to {MOST_UM:g} um are possible")
    return x, y, z


def _say(result: VolumeScore) -> None:
    every = result.all
    of_volumes = f", mean of the volumes {_number(result.f1_of_volumes)}" if every.volumes > 1 else ""
    console.print(
        f"{every.volumes} volumes, {every.particles} true particles, {every.detections} detections, gate "
        f"{result.gate:g} {result.gate_unit}\n"
        f"[bold]F1 {_number(every.f1)}[/]{of_volumes} (precision {_number(every.precision)}, recall "
        f"{_number(every.recall)})"
    )
    rmse = f"{_number(every.rmse_um)} um"
    if math.isfinite(every.rmse_voxels):
        rmse += f", {_number(every.rmse_voxels)} voxels"
    console.print(f"[bold]RMSE in 3D {rmse}[/]")
    console.print(_axis_table(every))
    for name, parts in (
        ("SNR", result.by_snr),
        ("brightness", result.by_brightness),
        ("particles\nper volume", result.by_density),
        ("nearest neighbour\n(gates)", result.by_neighbour),
    ):
        if len(parts) > 1:
            console.print(_part_table(name, parts))


def _axis_table(part: PartScore) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("axis", "rms (um)", "rms (voxels)", "bias (um)", "true/stated", "median"):
        table.add_column(name, justify="left" if name == "axis" else "right")
    for axis, errors in part.axes.items():
        values = (
            errors.rms_um,
            errors.rms_voxels,
            errors.bias_um,
            errors.true_over_stated,
            errors.true_over_stated_robust,
        )
        table.add_row(axis, *(_number(value) for value in values))
    return table


def _part_table(name: str, parts: list[PartScore]) -> Table:
    table = Table(box=None, pad_edge=False)
    in_voxels = any(math.isfinite(part.rmse_voxels) for part in parts)
    unit = "voxels" if in_voxels else "um"
    heads = ("number", "F1", "precision", "recall", f"RMSE\n({unit})", "true/stated\nx, y, z")
    for head in (name, *heads):
        table.add_column(head, justify="left" if head == name else "right", no_wrap=True)
    for part in parts:
        stated = [errors.true_over_stated for errors in part.axes.values()]
        table.add_row(
            _range(part),
            f"{part.particles}",
            _number(part.f1),
            _number(part.precision),
            _number(part.recall),
            _number(part.rmse_voxels if in_voxels else part.rmse_um),
            " ".join("-" if math.isnan(value) else f"{value:.2f}" for value in stated),
        )
    return table


def _range(part: PartScore) -> str:
    if part.from_value == part.to_value:
        return f"{part.from_value:g}"
    if math.isinf(part.to_value):
        return f"> {part.from_value:.3g}"
    return f"{part.from_value:.3g}-{part.to_value:.3g}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}"
