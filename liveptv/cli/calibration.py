"""The command `calibrate`: from a focus scan to a PSF model and labelled images, or from stacks of beads to a
PSF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from liveptv.cli.console import console, warn
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Axes, Bright, Dark, Overwrite, PixelSize
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from calibration.result import Calibration
    from calibration.volumes.result import VolumeCalibration

POLARITIES = ("dark", "bright")
SLIDES = ("level", "tilted")
KINDS = ("auto", "1", "2", "3")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Calibration")(exiting(calibrate))


def calibrate(
    scan: Annotated[
        list[Path],
        typer.Argument(
            help="focus scan: OME-TIFF, TIFF, OME-Zarr, HDF5 or a folder of images; with --volume one or several "
            "stacks of beads"
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="calibration file, .h5")],
    bright: Bright = None,
    dark: Dark = None,
    z_step: Annotated[
        float | None, typer.Option(help="um between focus positions, if the scan does not say", min=1e-3)
    ] = None,
    pixel_size: PixelSize = None,
    axes: Axes = None,
    repeats: Annotated[
        int | None, typer.Option(help="images at each focus position, if the scan does not say", min=1)
    ] = None,
    polarity: Annotated[
        str | None, typer.Option(help="particles are `dark` or `bright`; if left out, decided from the scan")
    ] = None,
    neighbour: Annotated[
        float | None,
        typer.Option(
            help="use a particle only if no other is nearer, px; if left out, 35 or the image radius",
            min=1,
        ),
    ] = None,
    slide: Annotated[
        str,
        typer.Option(
            help="particles lie on a `level` slide, which shows the focal surface, or on a `tilted` one, whose "
            "tilt is not the focal surface's"
        ),
    ] = "level",
    kinds: Annotated[
        str,
        typer.Option(
            help="kinds of particles in the scan, such as two sizes: `1`, `2` or `3`; `auto`: as many as are found"
        ),
    ] = "auto",
    volume: Annotated[
        bool,
        typer.Option(
            "--volume", help="calibrate for volumes: the PSF, noise and voxel size from stacks of lone beads"
        ),
    ] = False,
    bead_diameter: Annotated[
        float | None,
        typer.Option(
            help="with --volume: diameter of the beads, um; the PSF is then that of a point",
            min=1e-3,
            max=1e3,
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> int:
    """Make a calibration from a focus scan: a PSF model and labelled particle images; or, for volumes, from
    beads."""
    from liveptv.workflows.calibrate import calibrate_scan

    if volume:
        refuse_for_volumes(repeats, polarity, neighbour, slide, kinds, bright)
        with _Steps() as steps:
            from liveptv.workflows.calibrate_volumes import calibrate_stacks

            beads = calibrate_stacks(
                scan,
                output,
                dark=dark,
                z_step_um=z_step,
                pixel_size_um=pixel_size,
                axes=axes,
                bead_diameter_um=bead_diameter,
                overwrite=overwrite,
                on_progress=steps,
                say=warn,
            )
        _say_volumes(beads, output)
        return 0
    if bead_diameter is not None:
        raise ConfigurationError("--bead-diameter is for --volume; add it, or leave it out")
    if len(scan) > 1:
        raise ConfigurationError(
            f"a calibration is made from one focus scan, not {len(scan)}; give one of them"
        )
    if polarity not in {None, *POLARITIES}:
        raise ConfigurationError(f"--polarity is dark or bright, not {polarity!r}")
    if slide not in SLIDES:
        raise ConfigurationError(f"--slide is level or tilted, not {slide!r}")
    if kinds not in KINDS:
        raise ConfigurationError(f"--kinds is auto, 1, 2 or 3, not {kinds!r}")
    with _Steps() as steps:
        found = calibrate_scan(
            scan[0],
            output,
            bright=bright,
            dark=dark,
            z_step_um=z_step,
            repeats=repeats,
            pixel_size_um=pixel_size,
            axes=axes,
            polarity=polarity,  # type: ignore[arg-type]
            neighbour_px=neighbour,
            kinds=None if kinds == "auto" else int(kinds),
            slide=slide,  # type: ignore[arg-type]
            overwrite=overwrite,
            on_progress=steps,
            say=warn,
        )
    _say(found, output)
    return 0


def refuse_for_volumes(
    repeats: int | None,
    polarity: str | None,
    neighbour: float | None,
    slide: str,
    kinds: str,
    bright: Path | None,
) -> None:
    """Raise `ConfigurationError` for options of a focus scan that a calibration for volumes does not use."""
    given = {
        "--repeats": repeats is not None,
        "--polarity": polarity == "dark",
        "--neighbour": neighbour is not None,
        "--slide": slide != "level",
        "--kinds": kinds not in ("auto", "1"),
        "--bright": bright is not None,
    }
    for name, is_given in given.items():
        if is_given:
            raise ConfigurationError(f"{name} is for focus scans; leave it out with --volume")


def _say_volumes(found: VolumeCalibration, output: Path) -> None:
    from calibration.volumes.words import psf_in_words

    for text in found.warnings:
        console.print(f"[bold yellow]{escape(text)}[/]", soft_wrap=True)
    reasons = "; ".join(f"{count} left out: {why}" for why, count in found.beads.left_out().items())
    console.print(
        f"{int(found.beads.used.sum())} of {len(found.beads)} beads used"
        + (f" ({escape(reasons)})" if reasons else ""),
        soft_wrap=True,
    )
    x, y, z = found.psf.sigma_um[::-1]
    voxels = found.psf.sigma_voxels[::-1]
    console.print(
        f"PSF: standard deviations of {x:.4g}, {y:.4g}, {z:.4g} um along x, y, z "
        f"({', '.join(f'{v:.2f}' for v in voxels)} voxels); {escape(psf_in_words(found))}",
        soft_wrap=True,
    )
    noise, (mean, low, high) = found.noise.model, found.background
    console.print(
        f"noise: {noise.gain:.3g} grey values per photo-electron, offset {noise.offset:.4g}, read noise "
        f"{noise.read_variance**0.5:.3g}; background {mean:.4g} ({low:.4g} to {high:.4g})",
        soft_wrap=True,
    )
    console.print(f"written to {escape(str(output))}", soft_wrap=True)


def _say(found: Calibration, output: Path) -> None:
    for fault in found.faults:
        warn(fault.text)
    for text in found.warnings:
        console.print(f"[bold yellow]{escape(text)}[/]", soft_wrap=True)
    table, planes = found.particles, found.focal_planes
    reasons = "; ".join(f"{count} left out: {why}" for why, count in table.left_out().items())
    console.print(
        f"{int(table.used.sum())} of {len(table)} particles used" + (f" ({reasons})" if reasons else "")
    )
    if found.kinds:
        used = [int((table.used & (table.kind == kind)).sum()) for kind in range(len(found.kinds))]
        console.print(f"{len(used)} kinds of particles: {', '.join(str(n) for n in used)} used")
    where = f"depth {found.model.z_min_um:.0f} to {found.model.z_max_um:.0f} um"
    if planes.astigmatic:
        where += f", focal planes at {planes.xz_um:+.1f} um (x) and {planes.yz_um:+.1f} um (y)"
    console.print(where)
    _say_validation(found)
    console.print(f"written to {escape(str(output))}", soft_wrap=True)


def _say_validation(found: Calibration) -> None:
    if found.validation is None:
        return
    from calibration.field.summary import summary_of
    from liveptv.reports.calibration_words import field_in_words

    numbers = summary_of(found.validation, found.model)
    console.print(escape(field_in_words(found)))
    if "rms_z_um" in numbers:
        rms = ", ".join(f"{numbers[f'rms_{axis}_um']:.2g}" for axis in "xyz")
        stated = ", ".join(f"{numbers[f'stated_{axis}_um']:.2g}" for axis in "xyz")
        console.print(
            f"{numbers['particles']} particles left out in turn: errors of {rms} um rms in x, y, z (stated "
            f"{stated} um), {100 * numbers['right_side']:.1f} % on the right side of focus"
        )


class _Steps:
    """A progress bar for each step; called with the step's name and the part that is done (0 to 1)."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, object] = {}

    def __call__(self, what: str, part: float) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=1.0)
        self._bar.update(self._tasks[what], completed=part)  # type: ignore[arg-type]

    def __enter__(self) -> _Steps:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
