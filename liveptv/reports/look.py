"""Style of the reports, shared with the live page: its colours, light and dark, its style sheet and its scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter

PAGE = Path(str(resources.files("liveptv"))) / "monitor" / "page"
# How colours are turned for the dark scheme; they set the look alone.
GREY = 0.12  # largest minus smallest of red, green, blue (0 to 1): below it a colour is grey, and is inverted
DARK_BLUE = 0.3  # lightness below which another colour is made lighter, to be seen on the dark card
LIGHTER = 0.5  # the fraction of the way to white by which it is

Rgb = npt.NDArray[np.float64]


def _palettes() -> tuple[dict[str, str], dict[str, str]]:
    """The colours of the page by name, light and dark."""
    css = (PAGE / "look.css").read_text(encoding="utf-8")
    light, dark = (
        {name: to_hex(colour) for name, colour in re.findall(r"--(\w+): (#\w+);", block)}
        for block in re.findall(r":root \{([^}]*)\}", css)
    )
    return light, dark


LIGHT, DARK = _palettes()
ONE, TWO, INK, QUIET, BAD = (LIGHT[name] for name in ("one", "two", "ink", "quiet", "bad"))

STYLE: Any = {
    "figure.facecolor": LIGHT["card"],
    "axes.facecolor": LIGHT["card"],
    "savefig.facecolor": "auto",
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": QUIET,
    "axes.titlecolor": INK,
    "axes.titlesize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "text.color": INK,
    "grid.color": LIGHT["grid"],
    "font.size": 10.0,
    "font.family": "DejaVu Sans",
}


@contextmanager
def paper() -> Iterator[None]:
    """Draw figures in the light style, within a `with` block or a function that it decorates."""
    with rc_context(STYLE):
        yield


def plain_log_ticks(axis: Axis) -> None:
    """Put ticks at 1, 2 and 5 times powers of ten, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def hatch_empty(axes: Axes) -> None:
    """Hatch the cells without data, which would look like small values of some colour maps."""
    axes.patch.set(facecolor=LIGHT["card"], edgecolor=LIGHT["line"], hatch="////", linewidth=0)


def look_css() -> str:
    """The style sheet that page and reports share."""
    return (PAGE / "look.css").read_text(encoding="utf-8")


def darkened(figure: Figure) -> Figure:
    """The same figure in the dark: greys turned over, colours as in the dark page; colour maps stay."""
    for artist in figure.findobj():
        _recolour(artist)
    return figure


def _recolour(artist: Artist) -> None:
    if isinstance(artist, Text):
        artist.set_color(dark(artist.get_color()))
    elif isinstance(artist, Line2D):
        face, edge = dark(artist.get_markerfacecolor()), dark(artist.get_markeredgecolor())
        artist.set_color(dark(artist.get_color()))
        artist.set_markerfacecolor(face)
        artist.set_markeredgecolor(edge)
    elif isinstance(artist, Patch):
        artist.set_facecolor(dark(artist.get_facecolor()))
        artist.set_edgecolor(dark(artist.get_edgecolor()))
    elif isinstance(artist, Collection) and not _mapped(artist):
        artist.set_facecolor([dark(colour) for colour in artist.get_facecolor()])
        artist.set_edgecolor([dark(colour) for colour in artist.get_edgecolor()])


def _mapped(artist: ScalarMappable) -> bool:
    """Whether its colours stand for values."""
    return artist.get_array() is not None


def dark(colour: Any) -> Any:
    """The colour of the dark style for a colour of the light one."""
    if colour is None or (isinstance(colour, str) and colour in {"none", "auto"}):
        return colour
    red, green, blue, alpha = to_rgba(colour)
    rgb = np.array([red, green, blue])
    named = _DARK_OF.get(to_hex((red, green, blue)))
    if named is not None:
        return (*to_rgba(named)[:3], alpha)
    lightness = float(rgb @ (0.299, 0.587, 0.114))
    if float(np.ptp(rgb)) < GREY:
        ink, card = (np.array(to_rgba(DARK[name])[:3]) for name in ("ink", "card"))
        rgb = ink + lightness * (card - ink)
    elif lightness < DARK_BLUE:
        rgb = rgb + LIGHTER * (1.0 - rgb)
    return (*rgb.tolist(), alpha)


_DARK_OF = {LIGHT[name]: DARK[name] for name in LIGHT}


def scripts(names: Iterable[str]) -> str:
    """The page's modules `names`, each after those it imports, as one script that needs no server."""
    parts = ["const modules = {};"]
    for name in names:
        text = (PAGE / f"{name}.js").read_text(encoding="utf-8")
        text = re.sub(r'import (\{[^}]*\}) from "\./(\w+)\.js";', r"const \1 = modules.\2;", text)
        given = re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", text, re.MULTILINE)
        text = re.sub(r"^export ", "", text, flags=re.MULTILINE)
        parts.append(f"modules.{name} = (() => {{\n{text}\nreturn {{ {', '.join(given)} }};\n}})();")
    return "\n".join(parts)
