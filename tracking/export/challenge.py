"""Writes XML of the Particle Tracking Challenge (Chenouard et al. 2014), as Icy's scoring reads it.

Positions are in pixels from the centre of the first pixel; z is in units of a pixel too, or in slices where the
file knows how far apart they are. Frames count from the file's own numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from stream.errors import SourceError
from tracking.export.source import Exported

CONTENT = "TrackContestISBI2012"
FACTS = {"snr": "SNR", "density": "density", "scenario": "scenario"}
"""What the challenge calls the facts of a file; an imported file keeps them."""


def write_challenge(path: Path, source: Exported) -> list[str]:
    """Write all trajectories. Returns what the format does not hold; raises `SourceError` without a pixel size."""
    pixel_um = float(source.attributes.get("pixel_size_um", 0.0))
    if not pixel_um > 0:
        raise SourceError(
            f"{source.name} does not know the size of a pixel, in which the challenge counts; import it anew with "
            "--pixel-size"
        )
    step_um = float(source.attributes.get("z_step_um", pixel_um))
    rows = source.whole()
    x, y = rows.x_um / pixel_um, rows.y_um / pixel_um
    z = np.nan_to_num(np.asarray(rows.z_um, np.float64) / (step_um if step_um > 0 else pixel_um), nan=0.0)
    facts = _facts(source.attributes)
    said = "".join(f" {FACTS[name]}={quoteattr(facts.get(name, '?'))}" for name in FACTS)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<root>\n')
        file.write(f"<{CONTENT}{said}>\n")
        for track in source.by_track:
            file.write("<particle>\n")
            for row in track:
                file.write(
                    f'<detection t="{rows.frame[row]}" x="{x[row]:.6f}" y="{y[row]:.6f}" z="{z[row]:.6f}"/>\n'
                )
            file.write("</particle>\n")
        file.write(f"</{CONTENT}>\n</root>\n")
    return ["times", "all columns but positions", "frames without particles", "events", "attributes"]


def _facts(attributes: dict[str, Any]) -> dict[str, str]:
    """Scenario, SNR and density of a file that was imported from the challenge."""
    imported = attributes.get("imported", {})
    if isinstance(imported, str):
        imported = json.loads(imported)
    found = imported.get("attributes", {}) if isinstance(imported, dict) else {}
    return {name: str(found[name]) for name in FACTS if isinstance(found, dict) and name in found}
