"""Binary messages to the page: a JSON header followed by the image, the detections and the tracks.

Layout: uint32 length of the header (little endian), the header in UTF-8, and the blobs one after the other,
whose lengths in bytes are `header.blobs`: the JPEG, then float32 rows x, y, z of the detections, then float32 rows
track, x, y, z of the tracks (um; NaN where there is no depth). Of a volume the image is the projection along z, and
those along y and x follow as two more JPEGs.
"""

from __future__ import annotations

import struct
import time
from typing import Any

import msgspec
import numpy as np

from liveptv.monitor.latest_image import Shown
from liveptv.monitor.run_view import RunView
from stream.messages import TrackFlag


def packet(header: dict[str, Any], *blobs: bytes) -> bytes:
    """Join a header and its blobs."""
    text = msgspec.json.encode({**header, "blobs": [len(blob) for blob in blobs]})
    return b"".join((struct.pack("<I", len(text)), text, *blobs))


def unpack(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Take a packet apart again."""
    (length,) = struct.unpack_from("<I", data)
    header = msgspec.json.decode(data[4 : 4 + length])
    place, blobs = 4 + length, []
    for size in header["blobs"]:
        blobs.append(data[place : place + size])
        place += size
    return header, blobs


def image_packet(view: RunView, shown: Shown) -> bytes:
    """The packet of one image with its detections and confirmed, detected tracks."""
    image, info = view.image(shown), shown.frame.info
    age_ms = info.age_ms_at(time.perf_counter_ns())
    found = shown.detections
    rows = np.stack([found.x_um, found.y_um, found.z_um]).astype("<f4")
    tracked = np.empty((4, 0), "<f4")
    if shown.tracks is not None:
        tracks = shown.tracks
        confirmed = (tracks.flags.astype(np.int64) & int(TrackFlag.TENTATIVE | TrackFlag.PREDICTED)) == 0
        columns = (tracks.track, tracks.x_um, tracks.y_um, tracks.z_um)
        tracked = np.stack([column[confirmed] for column in columns]).astype("<f4")
    depth = view.depth_range_um(shown)
    sides = image.sides
    header: dict[str, Any] = {
        "frame": info.frame,
        "time_s": round(info.time_s, 4),
        "age_ms": None if np.isnan(age_ms) else round(age_ms, 2),
        "sent_ms": round(1e3 * time.time(), 1),
        "focus_um": None if np.isnan(info.focus_um) else round(info.focus_um, 3),
        "image": {
            "width_px": image.width_px,
            "height_px": image.height_px,
            "width_um": image.width_um,
            "height_um": image.height_um,
            "pixel_um": info.pixel_size_um,
            "black": round(image.black, 1),
            "white": round(image.white, 1),
        },
        "depth_um": None if depth is None else [round(value, 2) for value in depth],
        "particles": len(found),
    }
    blobs = [image.jpeg, rows.tobytes(), tracked.tobytes()]
    if sides is not None:
        header["volume"] = {
            "slices": sides.slices,
            "z_um": [round(value, 3) for value in sides.z_um],
            "missing_um": [[round(value, 3) for value in span] for span in sides.missing_um],
        }
        blobs += [sides.xz, sides.yz]
    return packet(header, *blobs)
