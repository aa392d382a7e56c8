"""What is drawn in a matplotlib figure: its panels, by their labels, with the data in them."""

from dataclasses import dataclass

import numpy as np
import pytest
from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel: its labels, and the finite values of each kind of artist in it."""

    title: str
    x_label: str
    y_label: str
    lines: list[np.ndarray]  # (N, 2) points of each line
    points: list[np.ndarray]  # (N, 2) points, or middles of segments, of each collection
    bars: np.ndarray  # heights
    widths: np.ndarray  # of bars that lie
    images: list[np.ndarray]


def panels(figure: Figure) -> list[Panel]:
    """The panels of a figure that can be seen, in the order in which they were made."""
    return [_panel(axes) for axes in figure.axes if axes.get_visible()]


def _panel(axes):
    lines = [np.column_stack([np.asarray(v, float) for v in line.get_data()]) for line in axes.lines]
    points = [_points(collection) for collection in axes.collections]
    return Panel(
        axes.get_title(), axes.get_xlabel(), axes.get_ylabel(),
        [line[np.isfinite(line).all(1)] for line in lines],
        points,
        np.array([bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")]),
        np.array([bar.get_width() for bar in axes.patches if hasattr(bar, "get_width")]),
        [np.asarray(image.get_array()) for image in axes.images],
    )  # fmt: skip


def _points(collection):
    if hasattr(collection, "get_segments"):
        parts = [np.asarray(part)[:, :2].mean(0) for part in collection.get_segments() if len(part)]
        return np.array(parts).reshape(-1, 2)
    return np.asarray(collection.get_offsets(), float)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, in order, each once."""
    found = []
    save = Figure.savefig

    def keep(figure, *arguments, **options):
        if figure not in found:
            found.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found
