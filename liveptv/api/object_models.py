"""The image model of objects, which finds them without a network, for notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from liveptv.api.axes import axes_or_new

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

VALUES = 101


class ObjectModel:
    """An image model for matched filters and fit; `liveptv.train` makes it for an output that ends in `.h5`.

    `model` is its file, `found` says in words what it is.
    """

    def __init__(self, model: Path, found: str) -> None:
        self.model, self.found = model, found

    def to_pandas(self) -> pd.DataFrame:
        """The brightest pixel of an object's image, in units of the noise or of the background's light, over what
        the image changes with: `peak`, and `z_um` or the property's name."""
        import pandas as pd

        from engines.matched.object_model import load_object_model

        model = load_object_model(self.model)
        places = np.linspace(model.z_min_um, model.z_max_um, VALUES)
        quantity = model.quantity
        name = "z_um" if quantity is None or quantity.is_depth else quantity.name
        values = places if quantity is None else quantity.values(places)
        return pd.DataFrame({name: values, "peak": model.peak_at(places)})

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the brightest pixel over what the image changes with; returns the axes."""
        table = self.to_pandas()
        with axes_or_new(axes) as drawn:
            drawn.plot(table.iloc[:, 0], table["peak"])
            drawn.set(xlabel=table.columns[0], ylabel="brightest pixel of an object")
            drawn.grid(visible=True, alpha=0.25)
        result: Axes = drawn
        return result

    def __repr__(self) -> str:
        return f"<ObjectModel {self.model.name}: {self.found}>"
