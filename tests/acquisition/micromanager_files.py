"""Writers of Micro-Manager's stack files and NDTiff, byte by byte as those programs lay them out."""

import json
import struct
from itertools import pairwise

import numpy as np

ELAPSED_MS = 50.0


def plane_facts(t, number=None):
    return {
        "FrameIndex": t, "SliceIndex": 0, "ChannelIndex": 0, "PositionIndex": 0,
        "ImageNumber": str(t if number is None else number), "PixelSizeUm": 0.5, "ElapsedTime-ms": ELAPSED_MS * t,
        "ZPositionUm": 3.0, "Exposure-ms": 10.0,
    }  # fmt: skip


def _page(image, at, facts, is_last):
    """A page at byte `at`; returns its bytes and where the next one begins."""
    height, width = image.shape
    pixels = image.astype("<u2").tobytes()
    text = json.dumps(facts).encode() + b"\0"
    text += b"\0" * (len(text) % 2)
    data = at + 162
    tail = data + len(pixels)
    following = tail + 16 + len(text)
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, data),
        (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(pixels)), (282, 5, 1, tail), (283, 5, 1, tail + 8),
        (296, 3, 1, 3), (51123, 2, len(text), tail + 16),
    ]  # fmt: skip
    head = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head += struct.pack("<I", 0 if is_last else following)
    assert len(head) == 162
    return head + pixels + struct.pack("<IIII", 20000, 1, 20000, 1) + text, following


def write_stack(path, planes, *, with_index=True, **summary):
    """One file: `planes` are (channel, z, t, position, image), or with the plane's own metadata as a sixth."""
    coordinates = np.array([plane[:4] for plane in planes])
    said = {
        "Prefix": path.name.partition("_MMStack")[0], "MicroManagerVersion": "2.0.3", "PixelSize_um": 0.5,
        "Frames": int(coordinates[:, 2].max()) + 1, "Slices": int(coordinates[:, 1].max()) + 1,
        "Channels": int(coordinates[:, 0].max()) + 1, "Positions": int(coordinates[:, 3].max()) + 1,
        "Interval_ms": 0,
    }  # fmt: skip
    text = json.dumps(said | summary).encode()
    at = first = 40 + len(text) + len(text) % 2
    pages, offsets = [], []
    for number, plane in enumerate(planes):
        facts = plane[5] if len(plane) > 5 else plane_facts(plane[2])
        facts = facts | {"ChannelIndex": plane[0], "SliceIndex": plane[1], "PositionIndex": plane[3]}
        page, following = _page(plane[4], at, facts, number + 1 == len(planes))
        pages.append(page)
        offsets.append(at)
        at = following
    index = b""
    if with_index:
        index = struct.pack("<II", 3453623, len(planes)) + b"".join(
            struct.pack("<IIIII", *map(int, plane[:4]), offset)
            for plane, offset in zip(planes, offsets, strict=True)
        )
    head = struct.pack(
        "<2sHIIIIIIIII",
        b"II", 42, first, 54773648, at if with_index else 0, 483765892, 0, 99384722, 0, 2355492, len(text),
    )  # fmt: skip
    path.write_bytes((head + text).ljust(first, b"\0") + b"".join(pages) + index)


def write_split(folder, images, parts, name="a_1_MMStack_Pos0", position=0, **summary):
    """A time series in files `NAME.ome.tif`, `NAME_1.ome.tif` ..., as from 4 GB on; returns the files."""
    folder.mkdir(exist_ok=True)
    files = []
    bounds = np.linspace(0, len(images), parts + 1).astype(int)
    for part, (begin, end) in enumerate(pairwise(bounds)):
        path = folder / f"{name}{f'_{part}' if part else ''}.ome.tif"
        planes = [(0, 0, t, position, images[t]) for t in range(begin, end)]
        write_stack(path, planes, **({"Frames": len(images)} | summary))
        files.append(path)
    return files


def write_ndtiff(folder, planes, files):
    """NDTiff: `planes` are (axes, image); they are dealt out to so many files in turn of their order."""
    folder.mkdir(exist_ok=True)
    names = [f"d_NDTiffStack{f'_{n}' if n else ''}.tif" for n in range(files)]
    text = json.dumps({"PixelSize_um": 0.5}).encode()
    first = 28 + len(text) + len(text) % 2
    index = b""
    for name, chunk in zip(names, np.array_split(np.arange(len(planes)), files), strict=True):
        at, pages = first, []
        for place, number in enumerate(chunk):
            axes, image = planes[number]
            facts = {"ElapsedTime-ms": ELAPSED_MS * axes.get("time", 0), "PixelSizeUm": 0.5}
            page, following = _page(image, at, facts, place + 1 == len(chunk))
            about = json.dumps(axes).encode()
            length = len(json.dumps(facts))
            index += struct.pack("<I", len(about)) + about + struct.pack("<I", len(name)) + name.encode()
            data = at + 162
            index += struct.pack(
                "<IiiiiIii", data, image.shape[1], image.shape[0], 1, 0, data + 2 * image.size + 16, length, 0
            )
            pages.append(page)
            at = following
        head = struct.pack("<2sHIIIIII", b"II", 42, first, 483729, 3, 0, 2355492, len(text)) + text
        (folder / name).write_bytes(head.ljust(first, b"\0") + b"".join(pages))
    (folder / "NDTiff.index").write_bytes(index)
    return [folder / name for name in names]
