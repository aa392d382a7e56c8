"""The report of a calibration: what a particle looks like over depth, how good the labels are, what is left out."""

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
from liveptv.reports.calibration_curves import ambiguity_picture, curves_picture
from liveptv.reports.calibration_facts import (
    facts,
    left_out_table,
    measured,
    problems,
    surface_in_words,
)
from liveptv.reports.calibration_labels import labels_picture, places_picture
from liveptv.reports.look import paper
from liveptv.reports.particle_images import images_picture, read_raw_images, round_depths
from liveptv.reports.publishing import Picture, indented, publish
from stream.hdf5_reading import attribute, open_hdf5, values

FloatArray = npt.NDArray[np.float64]


@paper()
def write_calibration_report(path: Path) -> tuple[Path, ...]:
    """Make the page and the pictures of a calibration beside it, replacing older ones; the page comes first.

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
    pictures = publish(
        files,
        "calibration.html.j2",
        _pictures(found, depths_um, raw),
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
    return files.report, *pictures


def _pictures(found: Calibration, depths_um: FloatArray, raw: FloatArray | None) -> list[Picture]:
    count = len(found.curves.trace_z_um)
    part = 100 * found.ambiguity.part
    return [
        Picture(
            "images",
            images_picture(found, depths_um, raw),
            "The average particle image over depth"
            + (
                "; the scan shows no particle whole."
                if raw is None
                else ", and one camera image of a particle at the same depth. Both have the same grey scale, "
                "another one in each column."
            ),
        ),
        Picture(
            "curves",
            curves_picture(found),
            f"Left and middle: features of {count} particles at their aligned depths, each over its brightness. "
            "How far they scatter about the average is noise and what particles differ in. Right: widths of the "
            "generalised Gaussian fitted to the average image.",
        ),
        Picture(
            "labels",
            labels_picture(found),
            "Left: the part of each particle's images that the common image does not explain, beyond noise (linear "
            "below 0.1 %). Middle: the errors that noise and misfit leave in the labels. Right: the focus at which "
            "each plane's images fit best, where particles are in sight.",
        ),
        Picture(
            "places",
            places_picture(found),
            f"Where the particles are in the picture. {surface_in_words(found)}",
        ),
        Picture(
            "ambiguity",
            ambiguity_picture(found),
            "How surely one image tells its depth from the most similar one far from it (further than an eighth of "
            f"the range). Below 5 sigma one is taken for the other now and then: {part:.0f} % of the depth range.",
        ),
    ]


def _subtitle(found: Calibration, created: str) -> str:
    provenance: dict[str, Any] = found.provenance
    height, width = found.shape
    focus = found.focus_um
    return (
        f"from {provenance.get('scan', '?')}: {len(focus)} planes, focus {focus.min():g} to {focus.max():g} um, "
        f"{width} x {height} px of {found.model.pixel_size_um:g} um, {found.model.polarity} particles; "
        f"made {created}"
    )


def _images_left_out(found: Calibration, clean: npt.NDArray[np.bool_]) -> str:
    planes, dirty = int((~found.plane_used).sum()), int(np.count_nonzero(~clean))
    return (
        f"Of {len(found.focus_um)} planes {planes} were left out. Of {clean.size} labelled images {dirty} have "
        "something in the background (the 5 % with the largest background variance): they are not pasted into "
        "training images."
    )
