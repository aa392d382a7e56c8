"""Reads a channel's section from a text such as `rectangle:400x100`."""

from __future__ import annotations

from stream.errors import ConfigurationError
from tracking.physics.sections.shapes import Ellipse, Rectangle, Section, polygon

FORMS = "rectangle:WIDTHxDEPTH, circle:DIAMETER, ellipse:WIDTHxDEPTH or polygon:Y,Z;Y,Z;Y,Z..., all in um"


def section_from(text: str) -> Section:
    """The section. Raises `ConfigurationError` if the text is none, or the section is not possible."""
    kind, _, numbers = text.strip().lower().partition(":")
    try:
        if kind == "circle":
            return Ellipse(float(numbers), float(numbers))
        if kind in ("rectangle", "ellipse"):
            width, depth = map(float, numbers.split("x"))
            return Rectangle(width, depth) if kind == "rectangle" else Ellipse(width, depth)
        if kind == "polygon":
            return polygon([tuple(map(float, corner.split(","))) for corner in numbers.split(";")])
    except ConfigurationError:
        raise
    except ValueError:
        pass
    raise ConfigurationError(f"the channel {text!r} is none that is known; give {FORMS}")
