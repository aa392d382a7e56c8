"""Plain TIFF stacks: byte orders, layouts, pixel types, damage. They say neither pixel size nor frame rate."""

import numpy as np
import tifffile
from damage import appended, cut, flipped, next_page_changed, poked, tag_changed, zeroed_tail
from known_video import FRAMES, HEIGHT, PIXEL_UM, WIDTH, Truth, frames_of, video
from mutation import (
    NEVER_WRONG,
    ONLY_REFUSED,
    ONLY_RIGHT,
    ONLY_SAID,
    RIGHT_OR_REFUSED,
    RIGHT_OR_SAID,
    SAID_OR_REFUSED,
    Cases,
)

cases = Cases("tiff")


def plain(stack=None, name="video.tif", **options):
    """A stack written at once: one header, the pixels, the other pages' tags behind them."""

    def made(folder):
        data = video() if stack is None else stack
        options.setdefault("photometric", "minisblack")
        tifffile.imwrite(folder / name, data, **options)
        return folder / name

    return made


def pages(stacks=None, name="video.tif", writer=None, **options):
    """Each image written by itself: its tags, its pixels."""

    def made(folder):
        options.setdefault("photometric", "minisblack")
        with tifffile.TiffWriter(folder / name, **(writer or {})) as file:
            for image in video() if stacks is None else stacks:
                file.write(image, contiguous=False, metadata=None, **options)
        return folder / name

    return made


for name, make in {
    "as it is": plain(),
    "big-endian": plain(byteorder=">"),
    "BigTIFF": plain(bigtiff=True),
    "big-endian BigTIFF": plain(bigtiff=True, byteorder=">"),
    "zlib": plain(compression="zlib"),
    "LZW": plain(compression="lzw"),
    "Zstandard with a predictor": plain(compression="zstd", predictor=True),
    "PackBits": plain(compression="packbits"),
    "tiles": plain(tile=(16, 32)),
    "tiles, zlib, big-endian": plain(tile=(32, 32), compression="zlib", byteorder=">"),
    "strips of 7 rows": plain(rowsperstrip=7),
    "page by page": pages(),
    "page by page, big-endian": pages(writer={"byteorder": ">"}),
    "page by page, BigTIFF": pages(writer={"bigtiff": True}),
    "an axis of length 1 before": plain(video()[None]),
    "an axis of length 1 between": plain(video()[:, None]),
    "no metadata": plain(metadata=None),
    "a description that is not known": pages(description="Basler acA1920, gain 3"),
    "a suffix in capitals": plain(name="VIDEO.TIF"),
    "no suffix": plain(name="video"),
    "a name with spaces and umlauts": plain(name="Video 3 (für Ümit).tif"),
    "white is zero": plain(photometric="miniswhite"),
    "garbage behind the end": appended(plain(), b"\0garbage" * 100),
    "zeros behind the end": appended(pages(), bytes(4096)),
}.items():
    cases.add(name, make, ONLY_RIGHT, given=True)

cases.add("an axis of length 1 behind", plain(video()[..., None]), RIGHT_OR_REFUSED, given=True, words="axes")
cases.add(
    "8-bit", plain((video() // 4).astype(np.uint8)), ONLY_RIGHT, given=True, truth=Truth(stack=video() // 4)
)
cases.add("three frames", plain(video(3)), ONLY_RIGHT, given=True, truth=frames_of(3))
cases.add("four frames, page by page", pages(video(4)), ONLY_RIGHT, given=True, truth=frames_of(4))
cases.add("one frame", plain(video(1)), ONLY_RIGHT, given=True, truth=frames_of(1))
cases.add(
    "nothing given", plain(), ONLY_SAID, words="frame-rate(.|\n)*pixel-size|pixel-size(.|\n)*frame-rate"
)
cases.add(
    "resolution in pixels per cm",
    plain(resolution=(1e4 / PIXEL_UM, 1e4 / PIXEL_UM), resolutionunit="CENTIMETER"),
    RIGHT_OR_SAID,
)
cases.add("resolution of a screen, 72 dpi", plain(resolution=(72, 72), resolutionunit="INCH"), ONLY_SAID)
cases.add("resolution without a unit", plain(resolution=(2, 2), resolutionunit="NONE"), RIGHT_OR_SAID)

for kind in ("int8", "int16", "int32", "uint32", "int64", "float16", "float32", "float64"):
    stack = (video() // 4 if kind == "int8" else video()).astype(kind)
    cases.add(
        f"{kind} pixels",
        plain(stack),
        NEVER_WRONG,
        given=True,
        truth=Truth(stack=stack.astype(float)),
        words=kind,
    )
scaled = (video() / 1000).astype("float32")
cases.add(
    "float32 from 0 to 1", plain(scaled), NEVER_WRONG, given=True, truth=Truth(stack=scaled), words="float32"
)
cases.add("black and white", plain(video() > 220), ONLY_REFUSED, given=True, words="bool")
cases.add("complex pixels", plain(video().astype("complex64")), ONLY_REFUSED, given=True, words="complex")
colour = np.repeat((video() // 4).astype(np.uint8)[..., None], 3, -1)
cases.add(
    "colour",
    plain(colour, photometric="rgb"),
    SAID_OR_REFUSED,
    given=True,
    words="colou?r",
    truth=Truth(stack=video() // 4),
)
cases.add(
    "colour, plane by plane",
    plain(np.moveaxis(colour, -1, 1), photometric="rgb", planarconfig="separate"),
    SAID_OR_REFUSED,
    given=True,
    words="colou?r",
    truth=Truth(stack=video() // 4),
)
cases.add(
    "a single colour picture", plain(colour[0], photometric="rgb"), ONLY_REFUSED, given=True, words="colou?r"
)
rgba = np.concatenate([colour, np.full_like(colour[..., :1], 255)], -1)
cases.add(
    "colour with alpha",
    plain(rgba, photometric="rgb", extrasamples=["unassalpha"]),
    SAID_OR_REFUSED,
    given=True,
    words="colou?r",
    truth=Truth(stack=video() // 4),
)
ramp = np.linspace(65535, 0, 256).astype(np.uint16)
cases.add(
    "a palette that turns grey around",
    plain((video() // 4).astype(np.uint8), photometric="palette", colormap=np.stack([ramp] * 3)),
    SAID_OR_REFUSED,
    given=True,
    words="palette|colou?r",
    truth=Truth(stack=video() // 4),
)


def with_small_page(folder):
    """A preview of another size behind the frames."""
    return pages([*video(), video()[0, ::4, ::4]])(folder)


def sizes_change(folder):
    """Half of the frames have another height."""
    return pages([*video()[:6], *video()[6:, :60]])(folder)


def types_change(folder):
    """Half of the frames are 8-bit."""
    return pages([*video()[:6], *(video()[6:] // 4).astype(np.uint8)])(folder)


def pyramids(folder):
    """Each frame has a smaller copy in a SubIFD."""
    with tifffile.TiffWriter(folder / "video.tif") as file:
        for image in video():
            file.write(image, contiguous=False, metadata=None, subifds=1, photometric="minisblack")
            file.write(
                image[::2, ::2], contiguous=False, metadata=None, subfiletype=1, photometric="minisblack"
            )
    return folder / "video.tif"


cases.add("a preview behind the frames", with_small_page, RIGHT_OR_SAID, given=True)
cases.add("the size changes half-way", sizes_change, SAID_OR_REFUSED, given=True)
cases.add("the pixel type changes half-way", types_change, SAID_OR_REFUSED, given=True)
cases.add("smaller copies in SubIFDs", pyramids, ONLY_RIGHT, given=True)


whole = {"at once": plain(), "page by page": pages(), "zlib": plain(compression="zlib")}
for what, make in whole.items():
    for where, keep in {
        "to 3 bytes": 3, "to 7 bytes": 7, "in the first tags": 60, "to a fifth": 0.2, "to a half": 0.5,
        "to 95 %": 0.95, "by a page": -HEIGHT * WIDTH * 2, "by one byte": -1,
    }.items():  # fmt: skip
        # the last byte of a stack written at once is the zero that ends its list of pages
        cases.add(
            f"{what}, cut {where}",
            cut(make, keep),
            SAID_OR_REFUSED,
            given=True,
            words="cut|damage|cannot read|broken|incomplete|missing|no images",
        )
cases.add("the list of pages is zeros", zeroed_tail(plain(), 0.01), SAID_OR_REFUSED, given=True)
cases.add("the last third is zeros, page by page", zeroed_tail(pages(), 0.33), SAID_OR_REFUSED, given=True)
cases.add("little-endian that says it is big", poked(plain(), 0, b"MM"), ONLY_REFUSED, given=True)
cases.add(
    "big-endian that says it is little", poked(plain(byteorder=">"), 0, b"II"), ONLY_REFUSED, given=True
)
cases.add("a bit of the magic number flipped", flipped(plain(), 2, 1), ONLY_REFUSED, given=True)
cases.add("the first page's offset is wrong", flipped(plain(), 5, 0x40), ONLY_REFUSED, given=True)
cases.add("the first page's offset is 0", poked(plain(), 4, bytes(4)), ONLY_REFUSED, given=True)
cases.add(
    "the width is one too large", tag_changed(plain(), 256, value=WIDTH + 1), SAID_OR_REFUSED, given=True
)
cases.add(
    "the height is halved",
    tag_changed(plain(metadata=None), 257, value=HEIGHT // 2),
    SAID_OR_REFUSED,
    given=True,
)
cases.add(
    "the height is halved on one page",
    tag_changed(pages(), 257, value=HEIGHT // 2, page=5),
    SAID_OR_REFUSED,
    given=True,
)
cases.add(
    "8 bits claimed for 16", tag_changed(plain(metadata=None), 258, value=8), SAID_OR_REFUSED, given=True
)
cases.add(
    "8 bits claimed for 16 on one page",
    tag_changed(pages(), 258, value=8, page=5),
    SAID_OR_REFUSED,
    given=True,
)
cases.add("a compression nobody knows", tag_changed(plain(), 259, value=65001), ONLY_REFUSED, given=True)
cases.add("zlib claimed for plain pixels", tag_changed(plain(), 259, value=8), ONLY_REFUSED, given=True)
cases.add(
    "pixels behind the end of the file",
    tag_changed(pages(), 273, value=2**31, page=4),
    ONLY_REFUSED,
    given=True,
)
cases.add("no bytes in a strip", tag_changed(pages(), 279, value=0, page=4), SAID_OR_REFUSED, given=True)
cases.add(
    "a width of 2 thousand million",
    tag_changed(plain(metadata=None), 256, kind=4, value=2**31 - 1),
    ONLY_REFUSED,
    given=True,
    claims=True,
)
cases.add(
    "a height of 4 thousand million",
    tag_changed(pages(), 257, kind=4, value=2**32 - 1),
    ONLY_REFUSED,
    given=True,
    claims=True,
)
cases.add(
    "400 samples a pixel", tag_changed(pages(), 277, value=400), SAID_OR_REFUSED, given=True, claims=True
)
cases.add(
    "a description of 4 thousand million bytes",
    tag_changed(plain(), 270, count=2**32 - 2),
    NEVER_WRONG,
    given=True,
    claims=True,
)
cases.add("the pages go round in a ring", next_page_changed(pages(), FRAMES - 1, 8), NEVER_WRONG, given=True)
cases.add(
    "the list of pages ends early in nothing",
    next_page_changed(pages(), 5, 2**31),
    SAID_OR_REFUSED,
    given=True,
)


def many_tags(folder):
    path = pages()(folder)
    data = bytearray(path.read_bytes())
    at = int.from_bytes(data[4:8], "little")
    data[at : at + 2] = b"\xff\xff"
    path.write_bytes(bytes(data))
    return path


cases.add("65,535 tags claimed", many_tags, NEVER_WRONG, given=True, claims=True)


def shaped(new):
    """tifffile's own note of the shape says something else."""

    def made(folder):
        path = plain()(folder)
        note = tifffile.TiffFile(path)
        with note:
            old = note.pages.first.description
        text = old.replace("[12, 64, 80]", new)
        assert text != old
        tifffile.tiffcomment(path, text)
        return path

    return made


cases.add("a note of twice the frames", shaped("[24, 64, 80]"), NEVER_WRONG, given=True)
cases.add("a note of half the frames", shaped("[6, 64, 80]"), NEVER_WRONG, given=True)
cases.add("a note of height and width swapped", shaped("[12, 80, 64]"), NEVER_WRONG, given=True)
cases.add("a note of no shape", shaped("[]"), NEVER_WRONG, given=True)
cases.add("a note of text for a shape", shaped('"many"'), NEVER_WRONG, given=True)
