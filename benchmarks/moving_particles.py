"""Image sequences of a channel flow with their truth, drawn from the optics of the shipped model and kept on disk.

Particles move along x with a parabolic profile over the depth of a channel of 400 um and with Brownian steps. They
enter and leave at the borders of the picture, where a part of them is seen, and pass in front of each other, since
depth decides the speed. Each has a brightness of its own. What lies outside the picture is periodic: who leaves at
one end comes in at the other as a new particle at another y, so that depths stay even. Images are those of
`calibration.synthesis` at the SNR of Franchini & Krevor (2020), 8 bit; exposures are short against the motion.

The displacement is the mean one over depth (two thirds of the largest), in mean distances between neighbours in the
plane, sqrt(area / particles). Events happen at frame `EVENT_FRAME`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from refine import bounds

from acquisition.physics.image_table import Z_STEP_UM, load_bank
from acquisition.physics.optics import OpticsModel
from calibration.matching import nearest_neighbour
from calibration.psf_model import PsfModel
from calibration.synthesis.background import add_background
from calibration.synthesis.canvas import Canvas
from calibration.synthesis.from_optics import background_for, model_from_optics, noise_for_snr
from calibration.synthesis.inputs import BackgroundModel, Distribution, NoiseModel
from calibration.synthesis.reach import reach_of_model
from calibration.synthesis.render import Drawn
from calibration.synthesis.rendered_source import Rendered
from calibration.synthesis.scene import Particles
from calibration.synthesis.sources import HERE, Placed, View
from stream.messages import Frame, FrameInfo

VERSION = 1  # of what is drawn; another one is drawn anew
OPTICS = OpticsModel()
SNR = 5.6
RATE_HZ = 24.0
DEPTH_UM = 400.0  # of the channel; its middle is in focus
BROWNIAN_UM = 0.2  # a frame and axis, as in tests/tracking/flows.py
BRIGHTNESS_SD = 0.1  # of the logarithm, between particles
MARGIN_UM = 60.0  # around the picture; the largest image reaches 56 px, 45 um
EVENT_FRAME = 30
LOST_FRAMES = 48  # 2 s
JUMP_UM = 20.0
FLASH_GREY = 130.0  # of an empty image, so that 1.5 times as much is still within 8 bit
LONE_PX = 35.0
BOUND_EVERY, BOUND_COUNT = 6, 30  # of so many frames one has this many bounds computed: 11 ms each

FACTORS = {"step": 2.0, "reversed": -1.0, "stopped": 0.0}  # of all speeds, from the event on
EVENTS = (*FACTORS, "focus", "focus announced", "flash", "dark", "lost", "births")


@dataclass(frozen=True)
class Flow:
    """What is drawn; `event` is one of `EVENTS` or "".

    With `fields` there is a background of particles far out of focus, at rest.
    """

    shape: tuple[int, int] = (1440, 2560)
    particles: int = 200
    spacings: float = 0.15
    frames: int = 60
    event: str = ""
    seed: int = 1
    fields: bool = False

    @property
    def spacing_um(self) -> float:
        """Mean distance between neighbours in the plane."""
        height, width = self.shape
        return float(np.sqrt(height * width / self.particles) * OPTICS.pixel_size_um)

    @property
    def name(self) -> str:
        """A file name."""
        event = f"_{self.event.replace(' ', '-')}" if self.event else ""
        fields = "_fields" if self.fields else ""
        height, width = self.shape
        return (
            f"{height}x{width}_{self.particles}_{self.spacings:g}{event}{fields}_{self.frames}_{self.seed}"
            f"_v{VERSION}"
        )


class Truth(NamedTuple):
    """All drawn particles of all frames, (N,) each; positions um from the centre of the first pixel.

    `z_um` is height minus true focus position. `seen` are those with the centre in the picture and a depth that the
    model covers. `other_um` is the depth of the particle whose image overlaps most, NaN where none does, see
    `overlapping`.
    """

    frame: npt.NDArray[np.int64]
    particle: npt.NDArray[np.int64]
    x_um: npt.NDArray[np.float64]
    y_um: npt.NDArray[np.float64]
    z_um: npt.NDArray[np.float64]
    brightness: npt.NDArray[np.float64]
    seen: npt.NDArray[np.bool_]
    nearest_px: npt.NDArray[np.float64]
    other_um: npt.NDArray[np.float64]

    def where(self, chosen: npt.NDArray[Any]) -> Truth:
        return Truth(*(column[chosen] for column in self))


@dataclass(frozen=True)
class MovingParticles:
    """A sequence: images (frames, H, W), on disk, what the camera says of them, and the truth.

    `bound_um` (M, 3) are Cramer-Rao bounds of some lone particles.
    """

    flow: Flow
    images: npt.NDArray[np.uint8]
    camera_frame: npt.NDArray[np.int64]
    focus_um: npt.NDArray[np.float64]
    truth: Truth
    bound_um: npt.NDArray[np.float64]

    def frame(self, number: int) -> Frame:
        """A frame as a camera gives it."""
        at = int(self.camera_frame[number])
        time_s = at / RATE_HZ
        info = FrameInfo(
            "prediction",
            number,
            at,
            time_s,
            0,
            0.0,
            focus_um=float(self.focus_um[number]),
            pixel_size_um=OPTICS.pixel_size_um,
        )
        return Frame(info, np.ascontiguousarray(self.images[number]))


class _Moment(NamedTuple):
    """One frame of a sequence before it is drawn."""

    particle: npt.NDArray[np.int64]
    x_um: npt.NDArray[np.float64]
    y_um: npt.NDArray[np.float64]
    z_um: npt.NDArray[np.float64]
    brightness: npt.NDArray[np.float64]
    camera_frame: int
    focus_um: float
    light: float


class _Drawing(Rendered):
    """Draws particles where they are said to be."""

    now: Drawn
    fields: BackgroundModel | None = None
    fields_seed: int = 0

    def place(self, _rng: np.random.Generator, canvas: Canvas, view: View = HERE) -> Placed:
        at = self.now
        if self.fields is not None:
            add_background(canvas.contrast, self.fields, np.random.default_rng([self.fields_seed, 2]))
        self._draw(canvas, view, self._looks[0], at)
        return Placed(at.x_px, at.y_px, at.z_um, at.brightness, np.zeros(at.x_px.size, np.int64))


def sequence(flow: Flow, cache: Path) -> MovingParticles:
    """The sequence, drawn unless it is in the folder `cache`."""
    folder = cache / flow.name
    if not (folder / "truth.npz").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _draw(flow, folder)
    with np.load(folder / "truth.npz") as file:
        truth = Truth(*(file[name] for name in Truth._fields))
        more = {name: file[name] for name in ("camera_frame", "focus_um", "bound_um")}
    images = np.load(folder / "images.npy", mmap_mode="r")
    return MovingParticles(flow, images, truth=truth, **more)


def moments(flow: Flow) -> Iterator[_Moment]:
    """The frames of a flow, one after the other."""
    rng = np.random.default_rng([flow.seed, 0])
    size = np.array([flow.shape[1], flow.shape[0]]) * OPTICS.pixel_size_um
    low = np.full(2, -0.5 * OPTICS.pixel_size_um - MARGIN_UM)
    box = size + 2 * MARGIN_UM
    count = round(flow.particles * box.prod() / size.prod())
    xy, height = low + rng.uniform(0, box, (count, 2)), rng.uniform(0, DEPTH_UM, count)
    bright = np.exp(rng.normal(0, BRIGHTNESS_SD, count))
    name, fresh = np.arange(count), count
    mean_um, focus_um, shown_um, camera_frame = flow.spacings * flow.spacing_um, DEPTH_UM / 2, DEPTH_UM / 2, 0
    for number in range(flow.frames):
        light, passed = 1.0, 1 if number else 0
        if number == EVENT_FRAME:
            if flow.event == "lost":
                passed += LOST_FRAMES
            elif flow.event in ("flash", "dark"):
                light = 1.5 if flow.event == "flash" else 0.03
            elif flow.event.startswith("focus"):
                focus_um += JUMP_UM
                shown_um += JUMP_UM if flow.event == "focus announced" else 0.0
        faster = FACTORS.get(flow.event, 1.0) if number >= EVENT_FRAME else 1.0
        for _ in range(passed):
            depth = height / DEPTH_UM
            xy[:, 0] += faster * mean_um * 6 * depth * (1 - depth)
            xy += rng.normal(0, BROWNIAN_UM, xy.shape)
            height = DEPTH_UM - np.abs(DEPTH_UM - np.abs(height + rng.normal(0, BROWNIAN_UM, count)))
            out = (xy < low) | (xy >= low + box)
            gone = out.any(axis=1)
            left = int(gone.sum())
            xy[gone] = low + (xy[gone] - low) % box
            xy[out[:, 0], 1] = low[1] + rng.uniform(0, box[1], int(out[:, 0].sum()))
            bright[gone] = np.exp(rng.normal(0, BRIGHTNESS_SD, left))
            name[gone] = np.arange(fresh, fresh + left)
            fresh += left
        camera_frame += passed
        there = np.ones(count, np.bool_)
        if flow.event == "births" and number < EVENT_FRAME:
            there = name % 2 == 0
        x_um, y_um = xy[there].T.copy()
        depth = height[there] - focus_um
        yield _Moment(name[there], x_um, y_um, depth, bright[there], camera_frame, shown_um, light)


def overlapping(
    x_px: npt.NDArray[np.float64], y_px: npt.NDArray[np.float64], z_um: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """For each particle (N,) of one frame which one lies on its image, or whose image it lies on; -1: none.

    That is, the centre of one is within the image of the other, as far as that reaches along x and y at its depth.
    Of several it is the nearest.
    """
    model, reach = drawn_model()
    nodes = model.z_first_um + model.z_step_um * np.arange(len(reach))
    half = np.stack([np.interp(z_um, nodes, reach[:, axis]) for axis in (1, 0)])
    apart = np.abs(np.stack([x_px, y_px])[:, :, None] - np.stack([x_px, y_px])[:, None, :])
    over = (apart < half[:, :, None]).all(axis=0) | (apart < half[:, None, :]).all(axis=0)
    np.fill_diagonal(over, False)
    distance = np.where(over, np.hypot(*apart), np.inf)
    nearest: npt.NDArray[np.int64] = np.where(over.any(axis=1), distance.argmin(axis=1), -1)
    return nearest


@lru_cache(1)
def drawn_model() -> tuple[PsfModel, npt.NDArray[np.float64]]:
    """The PSF over all depths that the optics give, more than the detector covers, and its reach (J, 2)."""
    bank = load_bank(OPTICS)
    model = PsfModel.from_images(
        bank.scale * bank.images[:, 0, 0].astype(np.float64),
        float(bank.z_um[0]),
        Z_STEP_UM,
        pixel_size_um=OPTICS.pixel_size_um,
        polarity=OPTICS.polarity,
        z_range_um=(-OPTICS.range_um, OPTICS.range_um),
    )
    return model, reach_of_model(model)


def _noise(flow: Flow) -> NoiseModel:
    noise = noise_for_snr(model_from_optics(OPTICS), SNR)
    return replace(noise, grey=FLASH_GREY) if flow.event in ("flash", "dark") else noise


def _draw(flow: Flow, folder: Path) -> None:
    model, _ = drawn_model()
    noise, rng = _noise(flow), np.random.default_rng([flow.seed, 1])
    drawing = _Drawing(model, noise)
    if flow.fields:
        drawing.fields, drawing.fields_seed = background_for(model_from_optics(OPTICS)), flow.seed
    pixel = OPTICS.pixel_size_um
    images = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=(flow.frames, *flow.shape)
    )
    truths, camera_frame, focus_um, bound = [], [], [], [np.empty((0, 3))]
    for number, at in enumerate(moments(flow)):
        x_px, y_px = at.x_um / pixel, at.y_um / pixel
        drawing.now = Drawn(x_px, y_px, at.z_um, at.brightness)
        drawing.noise = replace(noise, background=Distribution.constant(at.light))
        images[number] = drawing.draw(rng, flow.shape, 1, np.uint8).images[0]
        inside = (x_px >= -0.5) & (x_px < flow.shape[1] - 0.5) & (y_px >= -0.5) & (y_px < flow.shape[0] - 0.5)
        seen = inside & (np.abs(at.z_um) <= OPTICS.visible_um)
        nearest = nearest_neighbour(np.column_stack([x_px, y_px]))
        over = overlapping(x_px, y_px, at.z_um)
        other = np.where(over >= 0, at.z_um[over], np.nan)
        frame = np.full(x_px.size, number)
        truths.append(
            Truth(frame, at.particle, at.x_um, at.y_um, at.z_um, at.brightness, seen, nearest, other)
        )
        camera_frame.append(at.camera_frame)
        focus_um.append(at.focus_um)
        if not flow.event and number % BOUND_EVERY == BOUND_EVERY - 1:
            lone = np.flatnonzero(seen & (nearest >= LONE_PX))[:BOUND_COUNT]
            everyone = Particles(frame, x_px, y_px, at.z_um, at.brightness, nearest)
            bound.append(bounds(model, noise, everyone, lone) * [pixel, pixel, 1.0])
    images.flush()
    joined = [np.concatenate(column) for column in zip(*truths, strict=True)]
    (folder / "flow.json").write_text(json.dumps(asdict(flow)), encoding="utf-8")
    np.savez(
        folder / "truth.npz",
        **dict(zip(Truth._fields, joined, strict=True)),
        camera_frame=np.array(camera_frame),
        focus_um=np.array(focus_um),
        bound_um=np.concatenate(bound),
    )
