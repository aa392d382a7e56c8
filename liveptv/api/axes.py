"""The matplotlib axes that `plot()` draws into: those given, or new ones in the style of the reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@contextmanager
def axes_or_new(axes: Axes | None, width_in: float = 7.0, height_in: float = 4.6) -> Iterator[Axes]:
    """Axes to draw into; a new figure, so many inches in size, where none are given.

    New figures are pyplot's, so that a notebook shows them and `plt.show()` does. The style of figures that exist
    is left as it is.
    """
    import matplotlib.pyplot as plt

    from liveptv.reports.look import paper

    if axes is not None:
        yield axes
        return
    with paper():
        yield plt.subplots(figsize=(width_in, height_in), layout="constrained")[1]


def image_axes(axes: Axes | None, shape: tuple[int, ...]) -> Any:
    """`axes_or_new` in the proportions of an image (H, W), with room for a scale of colours."""
    height, width = shape[-2:]
    tall = min(max(6.6 * height / max(width, 1), 2.0), 8.0)
    return axes_or_new(axes, 7.8, tall + 0.7)


def colour_scale(axes: Axes, colours: Any, label: str) -> None:
    """A scale of colours beside the axes."""
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(colours, ax=axes, label=label, shrink=0.85, pad=0.02)
