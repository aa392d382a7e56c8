"""The report of a calibration: the PSF over depth, how good the labels are, what was left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.calibration_file import DAMAGED, read_calibration
from calibration.result import Calibration
from engines.classical.widths import WidthCurve
from liveptv.files import RunFiles
from liveptv.reports.calibration_curves import ambiguity_figure, curves_figure
from liveptv.reports.calibration_facts import (
    facts,
    left_out_table,
    measured,
    problems,
    surface_in_words,
)
from liveptv.reports.calibration_field import field_figure, validation_figure
from liveptv.reports.calibration_labels import labels_figure, places_figure
from liveptv.reports.calibration_words import field_in_words
from liveptv.reports.look import paper
from liveptv.reports.particle_images import images_figure, read_raw_images, round_depths
from liveptv.reports.publishing import ReportFigure, indented, publish
from stream.hdf5_reading import attribute, open_hdf5, values

FloatArray = npt.NDArray[np.float64]


@paper()
def write_calibration_report(path: Path) -> tuple[Path, ...]:
    """Make the page and the figures of a calibration beside it, replacing older ones; the page comes first.

    Raises `SourceError` if the calibration cannot be read, `OutputError` if the report cannot be written.
    """
    found = read_calibration(path)
    depths_um = round_depths(found.model.z_min_um, found.model.z_max_um)
    with open_hdf5(path, DAMAGED) as file:
        created = str(attribute(file, "created", str))
        versions = json.loads(str(attribute(file, "versions", str)))
        clean = values(file, "traces/clean", ndim=1).astype(bool)
        raw = read_raw_images(file["traces"], found, depths_um)
        width_curve = WidthCurve.GROUP in file
    files = RunFiles.beside(path)
    figures = publish(
        files,
        "calibration.html.j2",
        _figures(found, depths_um, raw),
        title=f"liveptv: {path.name}",
        subtitle=_subtitle(found, created),
        problems=problems(found, width_curve=width_curve),
        facts=facts(found, clean.size),
        left_out=left_out_table(found),
        images_left_out=_images_left_out(found, clean),
        faults=found.faults,
        measured=indented(measured(found)),
        provenance=indented({**found.provenance, "versions": versions}),
    )
    return files.report, *figures


def _figures(found: Calibration, depths_um: FloatArray, raw: FloatArray | None) -> list[ReportFigure]:
    count = len(found.curves.trace_z_um)
    part = 100 * found.ambiguity.part
    figures = [
        ReportFigure(
            "images",
            images_figure(found, depths_um, raw),
            "The PSF model over depth"
            + (
                "; the scan contains no complete particle."
                if raw is None
                else ", and a camera image of one particle at the same depth. The grey scale is the same within "
                "a column and differs between columns."
            ),
        ),
        ReportFigure(
            "curves",
            curves_figure(found),
            f"Left, middle: features of {count} particles, divided by their brightness, at their aligned depths. "
            "Their scatter about the PSF model is noise and differences between particles. Right: widths of a "
            "generalised Gaussian fitted to the PSF model. Dashed: the focal planes of the astigmatic lens.",
        ),
        ReportFigure(
            "labels",
            labels_figure(found),
            "Left: the part of each particle's signal that the PSF model does not explain, beyond noise (linear "
            "below 0.1 %). Middle: standard errors of the labels, from noise and residuals. Right: the focus at "
            "which each plane's images fit best, minus the focus that the scan states.",
        ),
        ReportFigure(
            "places",
            places_figure(found),
            f"Where the particles are in the image. {surface_in_words(found)}",
        ),
        ReportFigure(
            "ambiguity",
            ambiguity_figure(found),
            "How well one image can be told from that of the most similar depth more than an eighth of the range "
            f"away. Below 5 sigma the two are sometimes confused: {part:.0f} % of the depth range.",
        ),
    ]
    validation, field = validation_figure(found), field_figure(found)
    if validation is not None:
        figures.insert(
            1,
            ReportFigure(
                "validation",
                validation,
                "Particles that were left out in turn and measured with the model of the others, in the mean image "
                "of each plane. What exceeds the noise is the misfit of the model: it is in the standard errors of "
                "all detections.",
            ),
        )
    if field is not None:
        figures.insert(2, ReportFigure("field", field, field_in_words(found)))
    return figures


def _subtitle(found: Calibration, created: str) -> str:
    provenance: dict[str, Any] = found.provenance
    height, width = found.shape
    focus = found.focus_um
    return (
        f"from {provenance.get('scan', '?')}: {len(focus)} planes, focus {focus.min():g} to {focus.max():g} µm, "
        f"{width} x {height} px of {found.model.pixel_size_um:g} µm, {found.model.polarity} particles; "
        f"made {created}"
    )


def _images_left_out(found: Calibration, clean: npt.NDArray[np.bool_]) -> str:
    planes, dirty = int((~found.plane_used).sum()), int(np.count_nonzero(~clean))
    return (
        f"Of {len(found.focus_um)} planes {planes} were left out. Of {clean.size} labelled images {dirty} have an "
        "uneven background (the 5 % with the largest variance): they are not pasted into training images."
    )
