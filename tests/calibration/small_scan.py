"""A small focus scan of astigmatic Gaussian particles whose truth is known, as an OME-TIFF file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

PIXEL_UM = 0.8
BACKGROUND = 180.0


@dataclass
class SmallScan:
    """Particles are at `x_px`, `y_px`, `z_um`, of some `brightness`; planes at `focus_um`.

    With `asymmetry` images have a flatter top on one side of the focus. `pairs` particles have a near neighbour.
    """

    shape: tuple[int, int] = (240, 320)
    planes: int = 64
    repeats: int = 3
    step_um: float = 3.0
    particles: int = 16
    polarity: str = "dark"
    dtype: type = np.uint8
    noise: float = 2.0
    separation_um: float = 60.0
    apart_px: float = 44.0
    contrast: float = 0.45
    background: float = BACKGROUND
    seed: int = 0
    pairs: int = 0
    spread_um: float = 25.0
    asymmetry: float = 0.0
    focus_um: np.ndarray = field(init=False)

    def __post_init__(self):
        rng = self.rng = np.random.default_rng(self.seed)
        height, width = self.shape
        places: list[tuple[float, float]] = []
        for _ in range(20_000):
            if len(places) == self.particles:
                break
            x, y = rng.uniform(4, width - 5), rng.uniform(4, height - 5)
            if all(np.hypot(x - a, y - b) > self.apart_px for a, b in places):
                places.append((x, y))
        places += [(x + 9.0, y + 5.0) for x, y in places[: self.pairs]]
        self.x_px, self.y_px = np.array(places).T
        self.z_um = rng.uniform(-self.spread_um, self.spread_um, len(places))
        self.brightness = rng.uniform(0.85, 1.15, len(places))
        self.focus_um = (np.arange(self.planes) - (self.planes - 1) / 2) * self.step_um

    def widths_px(self, depth_um):
        """Gaussian widths along x and y at depths."""
        far_x = (depth_um - self.separation_um / 2) / 9.0
        far_y = (depth_um + self.separation_um / 2) / 9.0
        return 1.5 * np.sqrt(1 + (far_x / 1.8) ** 2), 1.5 * np.sqrt(1 + (far_y / 1.8) ** 2)

    def clean(self, focus_um):
        """Contrast of all particles at one focus, (H, W)."""
        total = np.zeros(self.shape)
        rows, columns = np.arange(self.shape[0])[:, None], np.arange(self.shape[1])[None, :]
        sx, sy = self.widths_px(self.z_um - focus_um)
        flat = 1 + self.asymmetry * (1 + np.tanh((self.z_um - focus_um) / 15)) / 2
        for x, y, b, a, c, q in zip(self.x_px, self.y_px, self.brightness, sx, sy, flat, strict=True):
            peak = b * self.contrast * 4.0 / (a * c)
            square = (columns - x) ** 2 / (2 * a**2) + (rows - y) ** 2 / (2 * c**2)
            total += peak * np.exp(-(square**q))
        return total

    def images(self, focus_um=None):
        """The camera's images (K, R, H, W)."""
        full = np.iinfo(self.dtype).max
        scale = full / 255
        sign = -1.0 if self.polarity == "dark" else 1.0
        base = self.background if self.polarity == "dark" else 40.0
        out = []
        for focus in self.focus_um if focus_um is None else focus_um:
            light = scale * base * (1 + sign * self.clean(focus))
            noisy = light + scale * self.noise * self.rng.standard_normal((self.repeats, *self.shape))
            out.append(np.clip(np.rint(noisy), 0, full))
        return np.array(out).astype(self.dtype)

    def write(self, path: Path, images=None, stated_um=None, *, positions=True) -> Path:
        """Write the scan; `positions=False` leaves out where the focus was."""
        images = self.images() if images is None else images
        stated = self.focus_um if stated_um is None else np.asarray(stated_um)
        size = {"PhysicalSizeX": PIXEL_UM, "PhysicalSizeY": PIXEL_UM}
        units = {"PhysicalSizeXUnit": "um", "PhysicalSizeYUnit": "um"}
        plane = {}
        if positions:
            at = [float(z) for z in np.repeat(stated, images.shape[1])]
            plane = {"Plane": {"PositionZ": at, "PositionZUnit": ["um"] * len(at)}}
        tifffile.imwrite(path, images, metadata={"axes": "ZTYX", **size, **units, **plane})
        return path

    def match(self, table):
        """Index of the true particle nearest to each row of a particle table, and its distance in px."""
        dx = table.x_um[:, None] / PIXEL_UM - self.x_px
        dy = table.y_um[:, None] / PIXEL_UM - self.y_px
        distance = np.hypot(dx, dy)
        return distance.argmin(axis=1), distance.min(axis=1)

    def errors(self, calibration):
        """Of the used particles: z errors, um, after one common offset, and x, y errors, px."""
        table = calibration.particles
        true, _ = self.match(table)
        used = table.used
        z = (table.z_um - self.z_um[true])[used]
        x = (table.x_um / PIXEL_UM - self.x_px[true])[used]
        y = (table.y_um / PIXEL_UM - self.y_px[true])[used]
        return z - np.median(z), x, y
