"""Shows step by step how a training image is made: `python examples/training_images.py OUT.png`."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import simulate_images
from calibration.synthesis import CutAndPaste, Layout, Rendered
from calibration.synthesis.background import add_background
from calibration.synthesis.canvas import Canvas
from calibration.synthesis.from_optics import (
    background_for,
    model_from_optics,
    noise_for_snr,
    simulated_cutouts,
)

SHAPE = (200, 300)
DENSITY = 3e-4
SEED = 6


def main(path: Path) -> None:
    optics = OpticsModel()
    model = model_from_optics(optics)
    noise, background = noise_for_snr(model, 5.6), background_for(model)
    cutouts = simulated_cutouts(model, noise, np.random.default_rng(0), 1500, repeats=4)
    layout = Layout(density_per_px=(DENSITY, DENSITY))
    source = CutAndPaste(cutouts, noise, background, layout)

    canvas = Canvas.empty(SHAPE)
    source.place(np.random.default_rng(SEED), canvas)
    added = canvas.contrast + canvas.deviation
    behind = np.zeros(SHAPE, np.float32)
    add_background(behind, background, np.random.default_rng(SEED))
    scene = source.draw(np.random.default_rng(SEED), SHAPE)
    even = CutAndPaste(cutouts, noise, None, layout).draw(np.random.default_rng(SEED), SHAPE)
    rendered = Rendered(model, noise, background, layout).draw(np.random.default_rng(SEED), SHAPE)
    rng = np.random.default_rng(SEED)
    count = rng.poisson(DENSITY * 300 * 400)
    x_um, y_um = rng.uniform(-40, 280, count), rng.uniform(-40, 200, count)
    grey, _ = simulate_images(optics, x_um, y_um, rng.uniform(-204, 204, count), SHAPE, seed=SEED)

    figure = Figure(figsize=(13, 5.8), dpi=90, layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    pictures = (
        ("1. cut-outs, added up", added),
        ("2. as noisy everywhere as the camera", even.images[0]),
        ("3. particles far from focus (contrast x 4)", 4 * behind),
        ("4. the training image, with its truth", scene.images[0]),
        ("5. the same kind of image, rendered", rendered.images[0]),
        ("6. the simulated microscope", 1 - grey / 200.0),
    )
    for panel, (title, picture) in zip(axes, pictures, strict=True):
        panel.imshow(-picture, cmap="gray", vmin=-0.055, vmax=0.02, interpolation="nearest")
        panel.set_title(title, fontsize=10)
        panel.set_axis_off()
    truth = scene.particles
    marks = axes[3].scatter(truth.x_px, truth.y_px, c=truth.z_um, s=26, marker="D", cmap="viridis", alpha=0.8)
    figure.colorbar(marks, ax=list(axes), label="depth z (um)", shrink=0.8, pad=0.01, aspect=40)
    figure.savefig(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
