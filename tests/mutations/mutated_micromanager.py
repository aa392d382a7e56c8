"""Micro-Manager's TIFF (a JSON text in tag 51123 of every page), its stacks in several files, and NDTiff."""

import json
import struct

import numpy as np
import tifffile
from damage import cut, flipped, renamed
from known_video import FRAMES, HEIGHT, PIXEL_UM, RATE_HZ, WIDTH, Truth, video
from mutation import (
    NEVER_WRONG,
    ONLY_RIGHT,
    ONLY_SAID,
    RIGHT_OR_REFUSED,
    RIGHT_OR_SAID,
    SAID_OR_REFUSED,
    Cases,
)

cases = Cases("micro-manager")
TIMES_MS = 1e3 * np.arange(FRAMES) / RATE_HZ


def said_of(frame):
    """What Micro-Manager says of one image."""
    return {
        "FrameIndex": frame, "ImageNumber": str(frame), "PixelSizeUm": PIXEL_UM, "ElapsedTime-ms": TIMES_MS[frame],
        "Exposure-ms": 0.4, "ZPositionUm": 0,
    }  # fmt: skip


def tagged(change=None, raw=None, stack=None):
    """Pages with their tags; `change(facts, k)` edits what page `k` says, `raw(text, k)` its text."""

    def made(folder):
        path = folder / "video.tif"
        with tifffile.TiffWriter(path) as file:
            for k, image in enumerate(video() if stack is None else stack):
                facts = said_of(k)
                if change is not None:
                    change(facts, k)
                text = json.dumps(facts)
                text = text if raw is None else raw(text, k)
                tags = [(51123, 2, 0, text, True)] if text else []
                file.write(image, metadata=None, contiguous=False, photometric="minisblack", extratags=tags)
        return path

    return made


def put(key, value, only=None):
    """Set a key, in one page or all; a function is given the page; None takes it out."""

    def change(facts, k):
        if only is not None and k != only:
            return
        new = value(k) if callable(value) else value
        if new is None:
            facts.pop(key)
        else:
            facts[key] = new

    return change


TIME = "ElapsedTime-ms"
cases.add("as it is", tagged(), ONLY_RIGHT)
cases.add("times begin late", tagged(put(TIME, lambda k: TIMES_MS[k] + 5321.5)), ONLY_RIGHT)
cases.add("times as text", tagged(put(TIME, lambda k: str(TIMES_MS[k]))), ONLY_RIGHT)
cases.add(
    "times of uneven frames",
    tagged(put(TIME, lambda k: TIMES_MS[k] + 20 * (k % 2))),
    ONLY_RIGHT,
    truth=Truth(times_s=1e-3 * (TIMES_MS + 20 * (np.arange(FRAMES) % 2))),
)
fast = np.arange(FRAMES) / 2000.0
cases.add(
    "2,000 frames/s in whole ms",
    tagged(put(TIME, lambda k: int(1e3 * fast[k]))),
    RIGHT_OR_SAID,
    truth=Truth(times_s=fast),
)
for page in (0, 5, FRAMES - 1):
    for name, value in {
        "missing": None, "no number": "late", "zero": 0.0, "that of the frame before": TIMES_MS[max(page - 1, 0)],
        "30 s ahead": 30_000.0, "negative": -1.0, "null": [],
    }.items():  # fmt: skip
        if page == 0 and name in {"zero", "that of the frame before"}:
            continue
        cases.add(
            f"the time of frame {page} is {name}", tagged(put(TIME, value, page)), RIGHT_OR_SAID, mostly=True
        )
cases.add("no times", tagged(put(TIME, None)), ONLY_SAID, words="frame.?rate|time|stamp")
cases.add("all times are zero", tagged(put(TIME, 0)), ONLY_SAID, words="frame.?rate|time|stamp")
cases.add("all times are equal", tagged(put(TIME, 731.0)), ONLY_SAID, words="frame.?rate|time|stamp")
cases.add(
    "times fall",
    tagged(put(TIME, lambda k: TIMES_MS[-1 - k])),
    SAID_OR_REFUSED,
    words="frame.?rate|time|stamp",
)
cases.add(
    "every second time missing",
    tagged(put(TIME, lambda k: None if k % 2 else TIMES_MS[k])),
    RIGHT_OR_SAID,
    mostly=True,
)
cases.add(
    "all times but one missing",
    tagged(put(TIME, lambda k: None if k else 0.0)),
    ONLY_SAID,
    words="frame.?rate|time|stamp",
)
cases.add(
    "a pause of 2 s",
    tagged(put(TIME, lambda k: TIMES_MS[k] + 2000 * (k > 6))),
    ONLY_RIGHT,
    truth=Truth(times_s=1e-3 * (TIMES_MS + 2000 * (np.arange(FRAMES) > 6))),
)
cases.add("the clock starts anew half-way", tagged(put(TIME, lambda k: TIMES_MS[k % 6])), RIGHT_OR_SAID)
for size in (0, -0.5, "none", None):
    cases.add(f"the size of a pixel is {size}", tagged(put("PixelSizeUm", size)), ONLY_SAID, words="pixel")
cases.add("the size of a pixel is NaN", tagged(put("PixelSizeUm", float("nan"))), ONLY_SAID, words="pixel")
cases.add("the size of a pixel as text", tagged(put("PixelSizeUm", "0.5")), RIGHT_OR_SAID)
cases.add(
    "the size of a pixel is only in the first page",
    tagged(put("PixelSizeUm", lambda k: None if k else PIXEL_UM)),
    RIGHT_OR_SAID,
)
for what, change in {
    "position": put("PositionIndex", lambda k: k % 2),
    "position name": put("PositionName", lambda k: f"Pos{k % 2}"),
    "channel": put("ChannelIndex", lambda k: k // 6),
    "channel name": put("Channel", lambda k: ("GFP", "DAPI")[k % 2]),
}.items():
    words = what.split()[0]
    cases.add(f"two of {what} on the pages", tagged(change), SAID_OR_REFUSED, words=words)
cases.add("the same position on all pages", tagged(put("PositionIndex", 3)), ONLY_RIGHT)
cases.add("no image numbers", tagged(put("ImageNumber", None)), ONLY_RIGHT)
cases.add("image numbers all 0", tagged(put("ImageNumber", "0")), RIGHT_OR_SAID)
cases.add("image numbers as numbers", tagged(put("ImageNumber", lambda k: k)), ONLY_RIGHT)
cases.add(
    "image numbers that jump", tagged(put("ImageNumber", lambda k: str(k + 3 * (k > 6)))), RIGHT_OR_SAID
)
cases.add("image numbers of 30 digits", tagged(put("ImageNumber", lambda k: str(10**30 + k))), NEVER_WRONG)
cases.add("image numbers in superscript", tagged(put("ImageNumber", "²")), NEVER_WRONG)
heights = 3.0 * np.arange(FRAMES)
cases.add(
    "the focus moves",
    tagged(put("ZPositionUm", lambda k: heights[k])),
    ONLY_RIGHT,
    truth=Truth(focus_um=heights),
)
cases.add("the focus is no number", tagged(put("ZPositionUm", "top")), ONLY_RIGHT)
cases.add(
    "the text of one page is damaged",
    tagged(raw=lambda text, k: text[:20] if k == 5 else text),
    RIGHT_OR_SAID,
    mostly=True,
)
cases.add(
    "the text of one page is missing",
    tagged(raw=lambda text, k: "" if k == 5 else text),
    RIGHT_OR_SAID,
    mostly=True,
)
cases.add(
    "the text of all pages is damaged",
    tagged(raw=lambda text, k: text[:20]),
    ONLY_SAID,
    words="frame(.|\n)*pixel|pixel(.|\n)*frame",
)
cases.add("the text is a list", tagged(raw=lambda text, k: f"[{text}]"), NEVER_WRONG)
cases.add("the text is a number", tagged(raw=lambda text, k: "12"), SAID_OR_REFUSED)
cases.add("the text is an empty object", tagged(raw=lambda text, k: "{}"), SAID_OR_REFUSED)
for where, keep in {"to a half": 0.5, "by a page": -HEIGHT * WIDTH * 2, "by 7 bytes": -7}.items():
    cases.add(
        f"cut {where}", cut(tagged(), keep), SAID_OR_REFUSED, words="cut|damage|cannot read|broken|missing"
    )

stacks = Cases("micro-manager stack")
SUMMARY = {
    "Prefix": "a_1", "MicroManagerVersion": "2.0.3", "Frames": FRAMES, "Slices": 1, "Channels": 1, "Positions": 1,
    "PixelSize_um": PIXEL_UM, "Interval_ms": 0,
}  # fmt: skip


def write_part(path, images, facts, summary, first_index):
    """One file of a Micro-Manager 2 stack as its own writer lays it out: header, index map, tagged pages."""
    head = json.dumps(summary).encode()
    first = 40 + len(head) + len(head) % 2
    at, blobs, offsets = first, [], []
    for number, (image, said) in enumerate(zip(images, facts, strict=True)):
        text = json.dumps(said).encode() + b"\0"
        pixels = image.astype("<u2").tobytes()
        data = at + 162
        tail = data + len(pixels)
        following = tail + 16 + len(text) + len(text) % 2
        tags = [
            (256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, data), (277, 3, 1, 1), (278, 4, 1, HEIGHT), (279, 4, 1, len(pixels)), (282, 5, 1, tail),
            (283, 5, 1, tail + 8), (296, 3, 1, 3), (51123, 2, len(text), tail + 16),
        ]  # fmt: skip
        last = number + 1 == len(images)
        directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        directory += struct.pack("<I", 0 if last else following)
        rest = struct.pack("<IIII", 20_000, 1, 20_000, 1) + text + b"\0" * (len(text) % 2)
        blobs.append(directory + pixels + rest)
        offsets.append(at)
        at = following
    index = struct.pack("<II", 3453623, len(images))
    index += b"".join(
        struct.pack("<IIIII", 0, 0, first_index + i, 0, offset) for i, offset in enumerate(offsets)
    )
    header = struct.pack(
        "<2sHIIIIIIIII", b"II", 42, first, 54773648, at, 483765892, 0, 99384722, 0, 2355492, len(head)
    )
    path.write_bytes((header + head).ljust(first, b"\0") + b"".join(blobs) + index)


def stack(parts=1, *, opened=0, missing=None, summary=None, change=None, seed=1, position=0, frames=FRAMES):
    """A stack in one or several files; `opened` is the one the user names, `missing` the one he lost."""

    def made(folder):
        names = [f"a_1_MMStack_Pos{position}{f'_{part}' if part else ''}.ome.tif" for part in range(parts)]
        size = frames // parts
        for part, name in enumerate(names):
            numbers = range(part * size, (part + 1) * size)
            facts = [said_of(k) for k in numbers]
            for k, said in zip(numbers, facts, strict=True):
                if change is not None:
                    change(said, k)
            images = video(seed=seed)[numbers.start : numbers.stop]
            write_part(folder / name, images, facts, SUMMARY | (summary or {}), numbers.start)
        if missing is not None:
            (folder / names[missing]).unlink()
        return folder / names[opened]

    return made


stacks.add("one file", stack(), ONLY_RIGHT)
for parts in (2, 3):
    for opened in range(parts):
        stacks.add(f"{parts} files, by number {opened + 1}", stack(parts, opened=opened), ONLY_RIGHT)
stacks.add("2 files, the second missing", stack(2, missing=1), SAID_OR_REFUSED, words="missing|cut|file")
stacks.add(
    "2 files, the first missing",
    stack(2, opened=1, missing=0),
    SAID_OR_REFUSED,
    words="missing|cut|file|first",
)
stacks.add("3 files, the middle missing", stack(3, missing=1), SAID_OR_REFUSED, words="missing|cut|file")
stacks.add("ended early by its user", stack(summary={"Frames": 40}), RIGHT_OR_SAID)
stacks.add(
    "an interval in the summary, no times",
    stack(summary={"Interval_ms": 50}, change=put(TIME, None)),
    ONLY_RIGHT,
)
stacks.add("a planned interval that was not kept", stack(summary={"Interval_ms": 10}), RIGHT_OR_SAID)
stacks.add("no size of a pixel in the summary", stack(summary={"PixelSize_um": 0}), ONLY_RIGHT)
stacks.add(
    "no size of a pixel anywhere",
    stack(summary={"PixelSize_um": 0}, change=put("PixelSizeUm", 0)),
    ONLY_SAID,
    words="pixel",
)
stacks.add(
    "text for numbers in the summary", stack(summary={"Interval_ms": "none", "Frames": "many"}), NEVER_WRONG
)
stacks.add("renamed", renamed(stack(), "flow at 3 ul per s.tif"), ONLY_RIGHT)
stacks.add("a bit of the summary flipped", flipped(stack(), 45, 1), NEVER_WRONG)
stacks.add("the index map is not there", cut(stack(), -248), RIGHT_OR_SAID)
stacks.add("cut to a half", cut(stack(), 0.5), SAID_OR_REFUSED, words="cut|damage|cannot read|missing")


def second_cut(folder):
    """The second file of two ends in the middle."""
    path = stack(2)(folder)
    second = folder / "a_1_MMStack_Pos0_1.ome.tif"
    second.write_bytes(second.read_bytes()[:30_000])
    return path


def two_positions(folder):
    """Two positions beside each other; the user names the first."""
    stack(seed=2, position=1)(folder)
    return stack()(folder)


stacks.add("2 files, the second cut", second_cut, SAID_OR_REFUSED, words="cut|damage|cannot read|missing")
stacks.add("another position beside it", two_positions, RIGHT_OR_SAID)

ndtiff = Cases("ndtiff")


def nd(
    *,
    opened="a_NDTiffStack.tif",
    axes=None,
    index=True,
    keep_index=None,
    folder_named=False,
    change=None,
    rows=None,
):
    """NDTiff 3: one file, its index beside it; `axes(k)` names the place of frame `k`."""

    def made(folder):
        home = folder / "a"
        home.mkdir()
        head = json.dumps({"PixelSize_um": PIXEL_UM, "Interval_ms": 0, "Prefix": "a"}).encode()
        first = 28 + len(head) + len(head) % 2
        start = struct.pack("<2sHIIIIII", b"II", 42, first, 483729, 3, 0, 2355492, len(head)) + head
        at, blobs, entries = first, [], []
        for k, image in enumerate(video()):
            said = said_of(k)
            if change is not None:
                change(said, k)
            text = json.dumps(said).encode() + b"\0"
            pixels = image.astype("<u2").tobytes()
            data = at + 162
            tail = data + len(pixels)
            following = tail + 16 + len(text) + len(text) % 2
            tags = [
                (256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
                (273, 4, 1, data), (277, 3, 1, 1), (278, 4, 1, HEIGHT), (279, 4, 1, len(pixels)),
                (282, 5, 1, tail), (283, 5, 1, tail + 8), (296, 3, 1, 3), (51123, 2, len(text), tail + 16),
            ]  # fmt: skip
            directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
            directory += struct.pack("<I", 0 if k + 1 == FRAMES else following)
            rest = struct.pack("<IIII", 20_000, 1, 20_000, 1) + text + b"\0" * (len(text) % 2)
            blobs.append(directory + pixels + rest)
            place = json.dumps({"time": k} if axes is None else axes(k)).encode()
            name = b"a_NDTiffStack.tif"
            entries.append(
                struct.pack("<I", len(place))
                + place
                + struct.pack("<I", len(name))
                + name
                + struct.pack("<IiiiiIii", data, WIDTH, HEIGHT, 1, 0, tail + 16, len(text) - 1, 0)
            )
            at = following
        (home / "a_NDTiffStack.tif").write_bytes(start.ljust(first, b"\0") + b"".join(blobs))
        if index:
            chosen = entries if rows is None else [entries[k] for k in rows]
            (home / "NDTiff.index").write_bytes(b"".join(chosen)[:keep_index])
        return home if folder_named else home / opened

    return made


ndtiff.add("as it is", nd(), ONLY_RIGHT)
ndtiff.add("by its folder", nd(folder_named=True), NEVER_WRONG)
ndtiff.add("by its index", nd(opened="NDTiff.index"), RIGHT_OR_REFUSED)
ndtiff.add("without its index", nd(index=False), RIGHT_OR_SAID)
ndtiff.add("its index cut", nd(keep_index=300), SAID_OR_REFUSED)
ndtiff.add("its index empty", nd(keep_index=0), NEVER_WRONG)
ndtiff.add("two frames missing in its index", nd(rows=[0, 1, 2, 3, 6, 7, 8, 9, 10, 11]), SAID_OR_REFUSED)
ndtiff.add(
    "two positions",
    nd(axes=lambda k: {"position": k % 2, "time": k // 2}),
    SAID_OR_REFUSED,
    words="position|series|axes|images",
)
ndtiff.add(
    "two channels",
    nd(axes=lambda k: {"time": k // 2, "channel": ["a", "b"][k % 2]}),
    SAID_OR_REFUSED,
    words="channel",
)
ndtiff.add("no times", nd(change=put(TIME, None)), ONLY_SAID, words="frame.?rate|time|stamp")
ndtiff.add("one time missing", nd(change=put(TIME, None, 5)), RIGHT_OR_SAID, mostly=True)
