"""What all reports share: pictures beside one page that needs nothing beside it."""

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
class Picture:
    """A figure of a report; `name` becomes part of its file's name.

    One that the page draws itself, `in_page` False, is shown in it only where scripts are not allowed to.
    """

    name: str
    figure: Figure
    caption: str
    in_page: bool = True


def publish(files: RunFiles, template: str, pictures: Sequence[Picture], **fields: Any) -> tuple[Path, ...]:
    """Write the pictures and the page `files.report`, replacing older ones; returns where the pictures are.

    `fields` are what the template names. The figures are used up. Raises `OutputError` if a file cannot be
    written.
    """
    written = []
    drawn = []
    for picture in pictures:
        png = _png(picture.figure)
        path = files.figure(picture.name)
        _write(path, png)
        written.append(path)
        drawn.append((picture, png))
    _write_page(files.report, template, drawn, fields)
    return tuple(written)


def publish_page(page: Path, template: str, pictures: Sequence[Picture], **fields: Any) -> None:
    """Write the page alone, as `publish` does; the pictures are in it only."""
    _write_page(page, template, [(picture, _png(picture.figure)) for picture in pictures], fields)


def _write_page(
    page: Path, template: str, drawn: Sequence[tuple[Picture, bytes]], fields: dict[str, Any]
) -> None:
    shown = {
        picture.name: {
            "light": base64.b64encode(png).decode(),
            "dark": base64.b64encode(_png(darkened(picture.figure))).decode() if picture.in_page else "",
            "caption": picture.caption,
        }
        for picture, png in drawn
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("liveptv", "reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template(template).render(pictures=shown, look=look_css(), **fields)
    _write(page, text.encode(errors="backslashreplace"))


def indented(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def embedded(value: object) -> str:
    """JSON that may stand in a page's script, whatever texts are in it."""
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
