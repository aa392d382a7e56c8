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
from stream.errors import OutputError


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A figure of a report; `name` becomes part of its file's name."""

    name: str
    figure: Figure
    caption: str


def publish(files: RunFiles, template: str, pictures: Sequence[Picture], **fields: Any) -> tuple[Path, ...]:
    """Write the pictures and the page `files.report`, replacing older ones; returns where the pictures are.

    `fields` are what the template names. Raises `OutputError` if a file cannot be written.
    """
    written, shown = [], []
    for picture in pictures:
        png = _png(picture.figure)
        path = files.picture(picture.name)
        _write(path, png)
        written.append(path)
        shown.append({"data": base64.b64encode(png).decode(), "caption": picture.caption})
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("liveptv", "reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template(template).render(pictures=shown, **fields)
    _write(files.report, page.encode())
    return tuple(written)


def indented(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
