"""A made-up astigmatic microscope: particles that drift through the depth, others at rest on a wall."""

from dataclasses import dataclass, field

import numpy as np

from calibration.psf_model import PsfModel
from calibration.recalibration.sightings import Recorded
from engines.refine.field import FieldModel, monomials

PIXEL_UM = 0.5
HALF_PX = 18
SHAPE = (360, 420)
NOISE = 0.02


def gaussian_psf(lines_um=(10.0, -10.0), *, width_px=1.6, slope=0.14, field_model=None):
    """Images whose width along x and y grows from each focal line as of a Gaussian beam, the light kept."""
    z_um = np.arange(-34.0, 34.5, 1.0)
    y, x = np.mgrid[-HALF_PX : HALF_PX + 1, -HALF_PX : HALF_PX + 1]
    wide, tall = (np.hypot(width_px, slope * (z_um - line))[:, None, None] for line in lines_um)
    images = np.exp(-0.5 * ((x / wide) ** 2 + (y / tall) ** 2)) * 6.0 / (wide * tall)
    model = PsfModel.from_images(
        images, -34.0, 1.0, pixel_size_um=PIXEL_UM, polarity="bright", z_range_um=(-30.0, 30.0)
    )
    return model if field_model is None else PsfModel(**{**_parts(model), "field": field_model})


def _parts(model):
    return {name: getattr(model, name) for name in model.__dataclass_fields__}


def flat_field_model(surface_um=(0,) * 6, walk=((0, 0), (0, 0))):
    return FieldModel(
        SHAPE, np.array(surface_um, float), np.array(walk, float), np.zeros((0, 77, 37, 37), np.float32),
        np.zeros((0, 1)), 0,
    )  # fmt: skip


@dataclass
class Run:
    """Frames of the `true` model, and the rows of a recording as a tracker gives them with a rough model."""

    true: PsfModel
    recorded: Recorded
    frames: dict = field(default_factory=dict)

    def images(self, numbers):
        for number in numbers:
            yield number, self.frames[number], NOISE**2 / 2, NOISE**2 / 2


def record(
    true, *, moving=24, stuck=0, focus_um=(0.0,), frames=6, walls_um=(0.0,), scale=1.0, size=0.0, seed=0
):
    """A run. Recorded depths are the true ones over `scale`; particles are larger by a blur of `size` px."""
    rng = np.random.default_rng(seed)
    places = _apart(rng, moving + stuck)
    wall = np.array([walls_um[n % len(walls_um)] for n in range(stuck)])
    bright = rng.normal(1.0, 0.08, moving + stuck)
    field_model = true.field or flat_field_model()
    rows, pictures, number = [], {}, 0
    for focus in focus_um:
        for _ in range(frames):
            image = rng.normal(0.0, NOISE, SHAPE)
            z = np.concatenate([rng.uniform(-24, 24, moving), wall - focus])
            jump = np.zeros((moving + stuck, 2))
            jump[:moving] = rng.uniform(-6, 6, (moving, 2))
            xy = places + jump
            points = np.column_stack([xy, z])
            local = field_model.to_local(points)
            for (x, y, depth), a in zip(local, bright, strict=True):
                _draw(image, true, x, y, depth, a, size)
            pictures[number] = image.astype(np.float32)
            for n, (x, y, depth) in enumerate(points):
                rows.append((n, number, x, y, depth / scale, focus))
            number += 1
    track, frame, x, y, z, focus = np.array(rows).T
    count = len(track)
    error = rng.normal(0, [[0.1], [0.1], [0.5]], (3, count))
    used = np.abs(z) < 29
    recorded = Recorded(
        track.astype(np.int64), frame.astype(np.int64), x + error[0], y + error[1], z + error[2],
        np.full(count, 0.1), np.full(count, 0.5), focus, used,
    )  # fmt: skip
    return Run(true, recorded, pictures)


def _apart(rng, count):
    """Places at least a particle image apart, away from the edge."""
    height, width = SHAPE
    step = 2 * HALF_PX + 18
    grid = np.array(
        [(x, y) for y in range(30, height - 30, step) for x in range(30, width - 30, step)], float
    )
    assert len(grid) >= count
    return grid[rng.permutation(len(grid))[:count]] + rng.uniform(-2, 2, (count, 2))


def _draw(image, model, x, y, z, brightness, size):
    column, row = round(x), round(y)
    one = brightness * model.images(z, x - column, y - row)[0]
    if size:
        from scipy import ndimage

        one = ndimage.gaussian_filter(one, size)
    top, left = max(row - HALF_PX, 0), max(column - HALF_PX, 0)
    bottom, right = min(row + HALF_PX + 1, SHAPE[0]), min(column + HALF_PX + 1, SHAPE[1])
    if top < bottom and left < right:
        image[top:bottom, left:right] += one[
            top - row + HALF_PX : bottom - row + HALF_PX, left - column + HALF_PX : right - column + HALF_PX
        ]


def surface_of(u, v, coefficients):
    return monomials(u, v, 2) @ np.asarray(coefficients)
