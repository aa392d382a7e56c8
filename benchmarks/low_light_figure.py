"""The picture of docs/low-light.md: some of the images, and errors of place over the signal-to-noise ratio.

python -m benchmarks.low_light_figure
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.low_light import GRADIENTS, KINDS, SNRS, images_of

ROOT = Path(__file__).parents[1]
NAMES = {
    "centroid": ("centroid", "#c9a227"),
    "radial_symmetry": ("radial symmetry", "#b4532a"),
    "liveptv": ("liveptv", "#1f6f8b"),
    "bound": ("bound", "black"),
}


def main() -> None:
    """Draw it."""
    rows = json.loads((ROOT / "benchmarks/results/low_light.json").read_text(encoding="utf-8"))["rows"]
    figure = plt.figure(figsize=(9, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 4, height_ratios=(1, 1.7))
    for column, (kind, snr) in enumerate(zip(KINDS, (5, 10, 20, 100), strict=True)):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(images_of(kind, snr, GRADIENTS[-1], 2)[1][1], cmap="gray")
        axes.set_title(f"{kind.replace('_', ' ')}, SNR {snr}", fontsize=9)
        axes.set_axis_off()
    for side, gradient in enumerate(GRADIENTS):
        axes = figure.add_subplot(grid[1, 2 * side : 2 * side + 2])
        for name, (label, colour) in NAMES.items():
            mean = [
                np.mean([row[name] for row in rows if row["snr"] == snr and row["gradient"] == gradient])
                for snr in SNRS
            ]
            axes.loglog(SNRS, mean, "--" if name == "bound" else "o-", color=colour, label=label)
        axes.set_title("flat light" if gradient == 0 else f"gradient {gradient:g}", fontsize=10)
        axes.set_xlabel("signal-to-noise ratio")
        axes.set_ylabel("mean absolute error of place (px)")
        axes.set_ylim(0.006, 15)
        axes.set_xticks(SNRS, [str(snr) for snr in SNRS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(ROOT / "docs/images/low_light.png", dpi=110)


if __name__ == "__main__":
    main()
