"""The report of a calibration of volumes: the PSF in sections and profiles, the noise, the beads, what was left
out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from calibration.volumes.file import created, read_volume_calibration
from calibration.volumes.result import VolumeCalibration
from calibration.volumes.words import psf_in_words
from liveptv.files import RunFiles
from liveptv.reports.look import paper
from liveptv.reports.publishing import ReportFigure, indented, publish
from liveptv.reports.bead_figures import beads_figure, noise_figure, profiles_figure, sections_figure


@paper()
def write_volume_report(path: Path) -> tuple[Path, ...]:
    """Make the page and the figures beside the calibration, replacing older ones; the page comes first.

    Raises `SourceError` if the calibration cannot be read, `OutputError` if the report cannot be written.
    """
    found = read_volume_calibration(path)
    when, versions = created(path)
    files = RunFiles.beside(path)
    times, slices, height, width = found.shape
    z, y, x = found.voxel_um
    stacks = ", ".join(found.provenance.get("stacks", ["?"]))
    figures = publish(
        files,
        "volume_calibration.html.j2",
        _figures(found),
        title=f"liveptv: {path.name}",
        subtitle=f"from {stacks}: {times} volumes of {width} x {height} x {slices} voxels of {x:g} x {y:g} x {z:g} "
        f"µm; made {when}",
        problems=list(found.warnings),
        facts=_facts(found),
        left_out=[{"count": count, "reason": reason} for reason, count in found.beads.left_out().items()],
        remarks=list(found.remarks),
        provenance=indented({**found.provenance, "versions": versions}),
        measured=indented(
            {
                "noise": asdict(found.noise),
                "choice": asdict(found.choice),
                "variation": [asdict(v) for v in found.variation],
            }
        ),
    )
    return files.report, *figures


def _facts(found: VolumeCalibration) -> list[dict[str, str]]:
    z, y, x = found.psf.sigma_um
    noise, (mean, low, high) = found.noise.model, found.background
    facts = [
        ("beads used of those found", f"{found.beads.used.sum()} of {len(found.beads)}"),
        ("PSF", "measured" if found.psf.is_measured else "Gaussian"),
        ("standard deviation along x, y, z", f"{x:.3g}, {y:.3g}, {z:.3g} µm"),
        ("in voxels", ", ".join(f"{v:.2f}" for v in found.psf.sigma_voxels[::-1])),
        ("grey values per photo-electron", f"{noise.gain:.3g}"),
        ("offset, read noise", f"{noise.offset:.4g}, {noise.read_variance**0.5:.3g} grey values"),
        ("background", f"{mean:.4g} ({low:.4g} to {high:.4g})"),
    ]
    if found.bead_diameter_um is not None:
        facts.append(("corrected for beads of", f"{found.bead_diameter_um:g} µm"))
    return [{"name": name, "value": value} for name, value in facts]


def _figures(found: VolumeCalibration) -> list[ReportFigure]:
    misfit = 100 * found.noise.misfit
    corrected = " The PSF shown is corrected for the size of the beads." if found.bead_diameter_um else ""
    return [
        ReportFigure(
            "sections",
            sections_figure(found),
            "Sections through the centre: the mean of the beads, placed by their fits, the PSF, and their "
            f"difference, as parts of the peak.{corrected}",
        ),
        ReportFigure(
            "profiles",
            profiles_figure(found),
            f"The PSF is {psf_in_words(found)}. Points: mean of the beads, with standard errors.",
        ),
        ReportFigure(
            "noise",
            noise_figure(found),
            "Variance of single voxels over their mean. That of the beads is about their fits; what the PSF does "
            f"not explain ({misfit:.1f} % of the signal, rms) comes on top of the noise.",
        ),
        ReportFigure(
            "beads",
            beads_figure(found),
            "Where the beads are, and the width of each one's own Gaussian over that of all: a slope is a PSF that "
            "changes with depth.",
        ),
    ]
