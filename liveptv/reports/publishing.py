"""Writes reports: a self-contained HTML page from a template, and its figures as PNG files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from liveptv.files import RunFiles
from liveptv.reports.look import darkened, look_css
from stream.unfinished_files import written_beside


@dataclass(frozen=True, slots=True, eq=False)
class ReportFigure:
    """A figure of a report with its caption; `name` becomes part of the file's name.

    With `in_page` False the page draws it itself, and shows the figure only where scripts are blocked.
    """

    name: str
    figure: Figure
    caption: str
    in_page: bool = True


def publish(
    files: RunFiles, template: str, figures: Sequence[ReportFigure], **fields: Any
) -> tuple[Path, ...]:
    """Write the figures and the page `files.report`, replacing older ones; returns the files of the figures.

    `fields` are the template's variables. The figures cannot be used afterwards. Raises `OutputError` if a file
    cannot be written.
    """
    written = []
    drawn = []
    for each in figures:
        png = _png(each.figure)
        path = files.figure(each.name)
        _write(path, png)
        written.append(path)
        drawn.append((each, png))
    _write_page(files.report, template, drawn, fields)
    return tuple(written)


def publish_page(page: Path, template: str, figures: Sequence[ReportFigure], **fields: Any) -> None:
    """Write the page alone, as `publish` does; its figures are in the page only."""
    _write_page(page, template, [(each, _png(each.figure)) for each in figures], fields)


def _write_page(
    page: Path, template: str, drawn: Sequence[tuple[ReportFigure, bytes]], fields: dict[str, Any]
) -> None:
    shown = {
        each.name: {
            "light": base64.b64encode(png).decode(),
            "dark": base64.b64encode(_png(darkened(each.figure))).decode() if each.in_page else "",
            "caption": each.caption,
        }
        for each, png in drawn
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("liveptv", "reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template(template).render(figures=shown, look=look_css(), **fields)
    _write(page, text.encode(errors="backslashreplace"))


def indented(value: object) -> str:
    """Indented JSON, to be read."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def embedded(value: object) -> str:
    """JSON for a script element; no text in it can end the element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace(
        "<", "\\u003c"
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    with written_beside(path, overwrite=True) as part:
        part.write_bytes(data)
