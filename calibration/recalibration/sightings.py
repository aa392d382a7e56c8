"""Which recorded particles can update a PSF model: lone ones, spread over depth and field, and those at rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from calibration.psf_model import PsfModel
from calibration.recalibration.image_fit import BRIGHTNESS, OWN, Windows, X, Y, Z

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MOST_LONE = 600
"""Most images of lone particles: some ten seconds of work, and the focal lines to a part in a thousand."""
MOST_OF_A_TRACK = 6
"""Most of them of one particle, whose own size and shape they share."""
MOST_AT_REST = 24
"""Most images of a particle at rest, evenly over the focus positions it was seen at."""
MOST_RESTING = 120
"""Most particles at rest."""
PARTS_OF_DEPTH, PARTS_OF_FIELD = 10, 3
"""Parts of depth and of each side of the field that images are taken from evenly."""
SPARE_PX = 2
"""Pixels around a particle's image that must be free of others and inside the camera's image."""
SPARE_UM = 4.0
"""Depth, um, by which an image may be off when its extent is looked up."""

Images = Callable[[list[int]], Iterable[tuple[int, npt.NDArray[np.float32], float, float]]]
"""From frame numbers, rising: number, contrast (H, W), and the noise `read` and `shot` of each frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """All rows of a recording (N,): places in px, depth and standard errors in um, and whether they can be `used`.

    `frame` is the number of the image, `focus_um` the focus drive's position there, NaN without one. Rows that
    cannot be used still are neighbours of others.
    """

    track: IntArray
    frame: IntArray
    x_px: FloatArray
    y_px: FloatArray
    z_um: FloatArray
    sigma_xy_px: FloatArray
    sigma_z_um: FloatArray
    focus_um: FloatArray
    used: BoolArray

    def __len__(self) -> int:
        return len(self.track)

    def part(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Recorded:
        """Some of the rows."""
        return Recorded(*(getattr(self, item.name)[chosen] for item in fields(self)))


def lone_rows(recorded: Recorded, model: PsfModel, shape: tuple[int, int]) -> BoolArray:
    """Rows (N,) whose images overlap no other particle's and lie wholly inside images of `shape` (H, W)."""
    box = _boxes(recorded, model)
    alone = (
        (box[:, 0] >= 0) & (box[:, 1] >= 0) & (box[:, 2] <= shape[0] - 1) & (box[:, 3] <= shape[1] - 1)
    ) & recorded.used
    order = np.argsort(recorded.frame, kind="stable")
    starts = np.flatnonzero(np.diff(recorded.frame[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        one = box[rows]
        meets = (
            (one[:, None, 0] <= one[None, :, 2])
            & (one[None, :, 0] <= one[:, None, 2])
            & (one[:, None, 1] <= one[None, :, 3])
            & (one[None, :, 1] <= one[:, None, 3])
        )
        alone[rows] &= meets.sum(axis=1) == 1
    return np.asarray(alone)


def choose_lone(
    recorded: Recorded, alone: BoolArray, model: PsfModel, shape: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Rows of lone particles, as evenly as they come over depth, field and particles."""
    rows = rng.permutation(np.flatnonzero(alone))
    depth = np.clip(
        (recorded.z_um[rows] - model.z_min_um) / (model.z_max_um - model.z_min_um) * PARTS_OF_DEPTH,
        0,
        PARTS_OF_DEPTH - 1,
    ).astype(int)
    down = (np.clip(recorded.y_px[rows] / shape[0], 0, 0.999) * PARTS_OF_FIELD).astype(int)
    across = (np.clip(recorded.x_px[rows] / shape[1], 0, 0.999) * PARTS_OF_FIELD).astype(int)
    part = (depth * PARTS_OF_FIELD + down) * PARTS_OF_FIELD + across
    of_track = _rank(recorded.track[rows])
    kept = of_track < MOST_OF_A_TRACK
    rows, part, of_track = rows[kept], part[kept], of_track[kept]
    # one of each part after the other, first images of a particle before its second ones
    by_track = np.argsort(of_track, kind="stable")
    rows, part = rows[by_track], part[by_track]
    return np.sort(rows[np.argsort(_rank(part), kind="stable")[:MOST_LONE]])


def choose_at_rest(
    recorded: Recorded, alone: BoolArray, resting: IntArray, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Rows of the particles `resting`, evenly over the focus positions each was seen at."""
    chosen: list[npt.NDArray[np.intp]] = []
    tracks = resting if resting.size <= MOST_RESTING else rng.choice(resting, MOST_RESTING, replace=False)
    for track in tracks:
        rows = np.flatnonzero(alone & (recorded.track == track))
        key = np.where(np.isfinite(recorded.focus_um[rows]), recorded.focus_um[rows], 0.0)
        rows = rows[np.lexsort((recorded.frame[rows], key))]
        chosen.append(rows[np.unique(np.linspace(0, rows.size - 1, MOST_AT_REST).round().astype(int))])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.intp)


def cut_windows(rows: Recorded, model: PsfModel, images: Images) -> tuple[Windows, FloatArray]:
    """Cut out the images of lone particles; also where to start their fits (N, 7), in local coordinates."""
    count, shape = len(rows), (0, 0)
    extent = _extent(rows.z_um, model)
    half = int(min(extent.max(initial=1) + SPARE_PX, model.half_px))
    size = 2 * half + 1
    contrast, mask = np.zeros((count, size, size), np.float32), np.zeros((count, size, size), np.bool_)
    row, column = np.rint(rows.y_px).astype(np.int64), np.rint(rows.x_px).astype(np.int64)
    noise = np.ones((2, count))
    there = np.zeros(count, np.bool_)
    offset = np.arange(-half, half + 1)
    for number, image, read, shot in images(np.unique(rows.frame).tolist()):
        shape = (int(image.shape[0]), int(image.shape[1]))
        for n in np.flatnonzero(rows.frame == number):
            down, along = row[n] + offset, column[n] + offset
            inside = ((down >= 0) & (down < shape[0]))[:, None] & ((along >= 0) & (along < shape[1]))
            cut = image[np.ix_(np.clip(down, 0, shape[0] - 1), np.clip(along, 0, shape[1] - 1))]
            contrast[n] = np.where(inside, cut, 0)
            tall, wide = extent[n] + SPARE_PX
            mask[n] = inside & (np.abs(offset) <= tall)[:, None] & (np.abs(offset) <= wide)
            noise[:, n] = read, shot
            there[n] = True
    start = np.zeros((count, OWN))
    start[:, X], start[:, Y], start[:, Z] = rows.x_px, rows.y_px, rows.z_um
    if model.field is not None and shape != (0, 0):
        start[:, : Z + 1] = to_local(model, start[:, : Z + 1], shape)
    start[:, Z] = np.clip(start[:, Z], model.z_min_um, model.z_max_um)
    start[:, BRIGHTNESS] = 1.0
    mask &= there[:, None, None]
    return Windows(contrast, mask, row, column, noise[0], noise[1]), start


def to_local(model: PsfModel, points: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Local coordinates of `points` (N, 3: x px, y px, z um) in images of `shape`, around the model's middle."""
    field = model.field
    if field is None:
        return points
    offset = np.array([(field.shape[1] - shape[1]) / 2, (field.shape[0] - shape[0]) / 2, 0.0])
    return np.asarray(field.to_local(points + offset) - offset)


def _boxes(recorded: Recorded, model: PsfModel) -> FloatArray:
    """First and last row and column of each particle's image (N, 4: top, left, bottom, right), px."""
    extent = _extent(recorded.z_um, model) + SPARE_PX
    return np.column_stack(
        [
            recorded.y_px - extent[:, 0],
            recorded.x_px - extent[:, 1],
            recorded.y_px + extent[:, 0],
            recorded.x_px + extent[:, 1],
        ]
    )


def _extent(z_um: FloatArray, model: PsfModel) -> IntArray:
    """How far images at depths (N,) reach, (N, 2) px; the largest where the depth is unknown."""
    extent = model.for_fit().extent_px
    nodes = model.z_first_um + model.z_step_um * np.arange(len(extent))
    reach = np.empty((z_um.size, 2), np.int64)
    for axis in (0, 1):
        low = np.interp(z_um - SPARE_UM, nodes, extent[:, axis])
        high = np.interp(z_um + SPARE_UM, nodes, extent[:, axis])
        found = np.maximum(low, high)
        reach[:, axis] = np.ceil(np.where(np.isfinite(found), found, extent[:, axis].max()))
    return reach


def _rank(groups: IntArray) -> IntArray:
    """The number of each entry (N,) within its group, in the order given."""
    order = np.argsort(groups, kind="stable")
    first = np.flatnonzero(np.diff(groups[order], prepend=groups[order][:1] - 1)) if groups.size else order
    start = np.zeros(groups.size, np.int64)
    start[first] = first
    rank = np.empty(groups.size, np.int64)
    rank[order] = np.arange(groups.size) - np.maximum.accumulate(start)
    return rank
