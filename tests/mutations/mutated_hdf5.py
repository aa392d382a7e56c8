"""HDF5 stacks: one dataset, `pixel_size_um` and `frame_rate_hz` as its attributes."""

from pathlib import Path

import h5py
import numpy as np
from damage import cut, flipped, poked, renamed
from known_video import FRAMES, HEIGHT, PIXEL_UM, RATE_HZ, WIDTH, Truth, video
from mutation import (
    NEVER_WRONG,
    ONLY_REFUSED,
    ONLY_RIGHT,
    ONLY_SAID,
    RIGHT_OR_SAID,
    SAID_OR_REFUSED,
    Cases,
)

cases = Cases("hdf5")


def bare(folder):
    """A file without a dataset."""
    h5py.File(folder / "video.h5", "w").close()
    return folder / "video.h5"


GOOD = {"pixel_size_um": PIXEL_UM, "frame_rate_hz": RATE_HZ}
CHUNKS = (1, HEIGHT, WIDTH)


def hdf5(
    *, stack=None, attributes=None, name="video.h5", dataset="images", also=None, file=None, behind="", **how
):
    """The good file with other attributes (None: without); `also(file)` adds to it."""

    def made(folder):
        path = folder / name
        with h5py.File(path, "w", **(file or {})) as opened:
            made_of = opened.create_dataset(dataset, data=video() if stack is None else stack, **how)
            for key, value in (GOOD | (attributes or {})).items():
                if value is not None:
                    made_of.attrs[key] = value
            if also is not None:
                also(opened)
        return Path(f"{path}{behind}")

    return made


def at_chunk(number, act, **how):
    """Damage the bytes of one chunk."""

    def made(folder):
        path = hdf5(chunks=CHUNKS, **how)(folder)
        with h5py.File(path, "r") as file:
            where = file["images"].id.get_chunk_info(number)
        data = bytearray(path.read_bytes())
        act(data, where.byte_offset, where.size)
        path.write_bytes(bytes(data))
        return path

    return made


def scribble(data, at, size):
    """Other bytes at the beginning of a chunk."""
    data[at : at + min(60, size)] = bytes(range(min(60, size)))


for name, make in {
    "as it is": hdf5(),
    "in a group": hdf5(dataset="run/1/images"),
    "in chunks": hdf5(chunks=CHUNKS),
    "gzip": hdf5(chunks=CHUNKS, compression="gzip", shuffle=True),
    "LZF with checksums": hdf5(chunks=CHUNKS, compression="lzf", fletcher32=True),
    "chunks of five frames": hdf5(chunks=(5, 33, 33)),
    "big-endian": hdf5(stack=video().astype(">u2")),
    "named": hdf5(behind="::images"),
    "named with a slash": hdf5(behind="::/images"),
    "the newest format": hdf5(file={"libver": "latest"}),
    "a user block": hdf5(file={"userblock_size": 512}),
    "suffix .hdf5": hdf5(name="video.hdf5"),
    "an axis of length 1 between": hdf5(stack=video()[:, None]),
    "beside other data": hdf5(also=lambda file: file.create_dataset("times", data=np.arange(12.0))),
    "beside pictures that are no stack": hdf5(also=lambda file: file.create_dataset("dark", data=video()[0])),
}.items():
    cases.add(name, make, ONLY_RIGHT)
cases.add("uint8", hdf5(stack=(video() // 4).astype(np.uint8)), ONLY_RIGHT, truth=Truth(stack=video() // 4))
cases.add(
    "attributes as arrays of one",
    hdf5(attributes={"pixel_size_um": [0.5], "frame_rate_hz": [20.0]}),
    RIGHT_OR_SAID,
)
cases.add(
    "attributes as text", hdf5(attributes={"pixel_size_um": "0.5", "frame_rate_hz": "20"}), RIGHT_OR_SAID
)
cases.add("attributes as bytes", hdf5(attributes={"pixel_size_um": np.bytes_(b"0.5")}), NEVER_WRONG)
cases.add(
    "attributes at the file, not the dataset",
    hdf5(attributes=dict.fromkeys(GOOD), also=lambda file: file.attrs.update(GOOD)),
    RIGHT_OR_SAID,
)
cases.add(
    "no attributes",
    hdf5(attributes=dict.fromkeys(GOOD)),
    ONLY_SAID,
    words="frame(.|\n)*pixel|pixel(.|\n)*frame",
)
for key, word in (("pixel_size_um", "pixel"), ("frame_rate_hz", "frame")):
    for value in (0.0, -0.5, float("nan"), float("inf"), 1e300, "half", [1.0, 2.0], 1 + 2j, h5py.Empty("f")):
        shown = "empty" if isinstance(value, h5py.Empty) else value
        cases.add(f"{key} is {shown}", hdf5(attributes={key: value}), SAID_OR_REFUSED, words=word)
cases.add(
    "two stacks",
    hdf5(also=lambda file: file.create_dataset("more", data=video(seed=2))),
    SAID_OR_REFUSED,
    words="images|more",
)
cases.add(
    "two stacks, one named",
    hdf5(also=lambda file: file.create_dataset("more", data=video(seed=2)), behind="::images"),
    ONLY_RIGHT,
)
cases.add("a name that is not there", hdf5(behind="::picture"), ONLY_REFUSED, words="picture")
cases.add("the name of a group", hdf5(dataset="run/images", behind="::run"), NEVER_WRONG)
cases.add("one picture, not a stack", hdf5(stack=video()[0]), NEVER_WRONG, truth=Truth(order=(0,)))
cases.add("five axes", hdf5(stack=video()[:, None, None]), NEVER_WRONG)
cases.add("an axis of length 1 behind", hdf5(stack=video()[..., None]), NEVER_WRONG)
cases.add("two channels behind", hdf5(stack=np.stack([video(), video(seed=2)], -1)), SAID_OR_REFUSED)
cases.add("two channels between", hdf5(stack=np.stack([video(), video(seed=2)], 1)), SAID_OR_REFUSED)
cases.add(
    "colour",
    hdf5(stack=np.repeat((video() // 4).astype(np.uint8)[..., None], 3, -1)),
    SAID_OR_REFUSED,
    truth=Truth(stack=video() // 4),
)
for kind in ("int16", "int32", "float32", "float64"):
    cases.add(f"{kind} pixels", hdf5(stack=video().astype(kind)), NEVER_WRONG, words=kind)
cases.add("black and white", hdf5(stack=video() > 220), ONLY_REFUSED)
cases.add("records, not numbers", hdf5(stack=np.zeros((12, 8, 8), [("a", "u2"), ("b", "u2")])), ONLY_REFUSED)
cases.add("text, not numbers", hdf5(stack=np.full((12, 8, 8), b"x")), ONLY_REFUSED)
cases.add("no data at all", bare, ONLY_REFUSED)
cases.add("zero frames", hdf5(stack=video()[:0]), ONLY_REFUSED)


def labelled(folder):
    """y, x, t by the labels of the dimensions."""
    path = hdf5(stack=np.ascontiguousarray(np.moveaxis(video(), 0, -1)))(folder)
    with h5py.File(path, "a") as file:
        for dimension, label in zip(file["images"].dims, "yxt", strict=True):
            dimension.label = label
    return path


def claimed(shape, written=FRAMES):
    """A stack of another shape, of which only some frames were written."""

    def made(folder):
        path = folder / "video.h5"
        with h5py.File(path, "w") as file:
            images = file.create_dataset("images", shape, "uint16", chunks=CHUNKS)
            images.attrs.update(GOOD)
            for k in range(written):
                images[k, :HEIGHT, :WIDTH] = video()[k]
        return path

    return made


def linked(link, target=None):
    """The stack is a link; `target(folder)` makes what it leads to."""

    def made(folder):
        if target is not None:
            target(folder)
        with h5py.File(folder / "video.h5", "w") as file:
            file["images"] = link
        return folder / "video.h5"

    return made


def virtual(sources):
    """A stack put together of others; the second of two may be missing."""

    def made(folder):
        layout = h5py.VirtualLayout((FRAMES, HEIGHT, WIDTH), "uint16")
        for part in range(2):
            rows = slice(6 * part, 6 * part + 6)
            if part < sources:
                hdf5(stack=video()[rows], name=f"part{part}.h5")(folder)
            layout[rows] = h5py.VirtualSource(f"part{part}.h5", "images", (6, HEIGHT, WIDTH))
        with h5py.File(folder / "video.h5", "w") as file:
            file.create_virtual_dataset("images", layout).attrs.update(GOOD)
        return folder / "video.h5"

    return made


cases.add("dimensions labelled y, x, t", labelled, NEVER_WRONG)
cases.add(
    "20 frames made ready, 12 written",
    claimed((20, HEIGHT, WIDTH)),
    SAID_OR_REFUSED,
    words="frame|written|chunk|missing",
)
cases.add(
    "a million frames made ready, 12 written",
    claimed((10**6, HEIGHT, WIDTH)),
    SAID_OR_REFUSED,
    claims=True,
    words="frame|written|chunk|missing",
)
cases.add(
    "frames of a million by a million pixels", claimed((12, 10**6, 10**6)), SAID_OR_REFUSED, claims=True
)
cases.add("nothing written", claimed((12, HEIGHT, WIDTH), 0), SAID_OR_REFUSED)
cases.add(
    "a link to another file",
    linked(h5py.ExternalLink("real.h5", "images"), hdf5(name="real.h5")),
    NEVER_WRONG,
)
cases.add("a link to a file that is gone", linked(h5py.ExternalLink("real.h5", "images")), ONLY_REFUSED)
cases.add("a link to a name that is gone", linked(h5py.SoftLink("/real")), ONLY_REFUSED)
cases.add("a link to itself", linked(h5py.SoftLink("/images")), ONLY_REFUSED)
cases.add("virtual, of two files", virtual(2), ONLY_RIGHT)
cases.add("virtual, the second file missing", virtual(1), SAID_OR_REFUSED, words="missing|part1|source")
cases.add("a chunk's gzip is damaged", at_chunk(5, scribble, compression="gzip"), SAID_OR_REFUSED)
cases.add("a chunk's checksum does not fit", at_chunk(5, scribble, fletcher32=True), SAID_OR_REFUSED)
cases.add("its suffix is .tif", renamed(hdf5(), "video.tif"), NEVER_WRONG)
cases.add("its suffix is .mat", renamed(hdf5(), "video.mat"), NEVER_WRONG)
cases.add("the superblock is flipped", flipped(hdf5(), 4), ONLY_REFUSED)
cases.add("the version of the superblock is 200", poked(hdf5(), 8, b"\xc8"), ONLY_REFUSED)
cases.add("the root's address is flipped", flipped(hdf5(), 65, 0x7F), ONLY_REFUSED)
for where, keep in {"to 5 bytes": 5, "in its tables": 400, "to a half": 0.5, "by 40 bytes": -40}.items():
    cases.add(f"cut {where}", cut(hdf5(), keep), ONLY_REFUSED, words="damage|cannot read|truncat|cut")
    cases.add(
        f"in chunks, cut {where}",
        cut(hdf5(chunks=CHUNKS), keep),
        ONLY_REFUSED,
        words="damage|cannot read|truncat|cut",
    )
