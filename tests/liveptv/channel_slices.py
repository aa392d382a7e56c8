"""The simulated channel at the paper's protocol: image sequences at several depths, detected and tracked.

Franchini & Krevor (2020, section 3.2): 21 depths 150 um apart, 452 frames at 24 frames/s, 2.3 mL/h through
3 x 7 mm. Rendering and detection go frame by frame in one process; nothing is kept but the detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer
from acquisition.simulated.world import World, WorldSettings
from engines.classical.detector import SpotDetector
from engines.classical.widths import WidthCurve
from engines.settings import DetectorSettings
from stream.messages import Detections, FrameInfo
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker
from tracking.trajectories.compression import pack
from tracking.trajectories.file import TrajectoryWriter

FRAME_RATE_HZ = 24.0
FLOW_UL_S = 2300.0 / 3600.0
WIDTH_UM, DEPTH_UM = 7000.0, 3000.0
DIFFUSION_UM2_S = 0.0002
SNR = 5.6
PAUSE_FRAMES = 240


@dataclass(frozen=True)
class Slice:
    """Detections of one depth: frame by frame, (9, N) with the frame's number first, and the true positions."""

    focus_um: float
    frames: int
    found: np.ndarray
    truth: np.ndarray
    """(5, N): frame, particle, x_um, y_um, z_um of every one at a depth that can be seen."""


def detect_slice(
    curve: WidthCurve, focus_um: float, frames: int, shape: tuple[int, int], particles: float, seed: int
) -> Slice:
    """Render and detect `frames` pictures of `shape` at one focus position."""
    optics = OpticsModel()
    world = World(
        WorldSettings(
            height_px=shape[0], width_px=shape[1], channel_width_um=WIDTH_UM, channel_depth_um=DEPTH_UM,
            particles_per_frame=particles, seed=seed, margin_um=optics.half_size_px * optics.pixel_size_um,
            visible_um=optics.visible_um, pixel_size_um=optics.pixel_size_um,
            particle_diameter_um=optics.particle_diameter_um,
        )
    )  # fmt: skip
    world.set_real_time(False)
    world.set_diffusion(DIFFUSION_UM2_S)
    world.pump.set(0.0, setpoint_ul_s=FLOW_UL_S)
    world.focus.place(focus_um)
    renderer = Renderer(load_bank(optics), shape, np.uint8, snr=SNR, seed=seed)
    detector = SpotDetector(*shape, DetectorSettings(), optics.pixel_size_um, curve)
    image = np.empty(shape, np.uint8)
    found, truth = [], []
    for frame in range(frames):
        p = world.particles_at(frame / FRAME_RATE_HZ)
        renderer.render(p.x_um, p.y_um, p.z_um, image)
        table, _ = detector.detect(image, -1.0)
        found.append(np.vstack([np.full(table.shape[1], frame), table]))
        seen = np.abs(p.z_um) <= optics.visible_um
        columns = np.stack([p.identity, p.x_um, p.y_um, p.z_um])[:, seen]
        truth.append(np.vstack([np.full(seen.sum(), frame), columns]))
    return Slice(focus_um, frames, np.hstack(found), np.hstack(truth))


def track_slices(path: Path, slices: list[Slice], shape: tuple[int, int], settings: TrackerSettings) -> Path:
    """Track all depths as one run, with pauses in between, into a trajectory file."""
    tracker = OnlineTracker(settings)
    attributes = {
        "frame_rate_hz": FRAME_RATE_HZ,
        "pixel_size_um": OpticsModel().pixel_size_um,
        "image_shape": list(shape),
        "refraction_factor": 1.0,
        "source": "the simulated channel",
        "configuration": {
            "channel": {"width_um": WIDTH_UM, "depth_um": DEPTH_UM},
            "tracker": settings.model_dump(mode="json"),
        },
    }
    number = 0
    with TrajectoryWriter(path, run_id="channel", attributes=attributes) as writer:
        for count, depth in enumerate(slices):
            cuts = np.searchsorted(depth.found[0], np.arange(depth.frames + 1))
            for frame in range(depth.frames):
                camera_frame = number + count * PAUSE_FRAMES
                info = FrameInfo(
                    "channel", number, camera_frame, camera_frame / FRAME_RATE_HZ, 0, 0.0,
                    focus_um=depth.focus_um, flow_ul_s=FLOW_UL_S, exposure_ms=0.55,
                )  # fmt: skip
                rows = np.ascontiguousarray(depth.found[1:, cuts[frame] : cuts[frame + 1]])
                writer.append(tracker.step(Detections(info, rows)))
                number += 1
            writer.commit()
        tracker.finish()
        writer.finalize({"accounts": {"track": dict(tracker.counts)}}, "done")
    pack(path)
    return path
