"""ImageJ's TIFF: a description in lines of `name=value`, big-endian, the resolution in the tags."""

import struct

import numpy as np
import tifffile
from damage import cut, poked
from known_video import FRAMES, PIXEL_UM, RATE_HZ, Truth, video
from mutation import NEVER_WRONG, ONLY_REFUSED, ONLY_RIGHT, ONLY_SAID, RIGHT_OR_SAID, SAID_OR_REFUSED, Cases

cases = Cases("imagej")

GOOD = {"images": FRAMES, "frames": FRAMES, "unit": "um", "finterval": 1 / RATE_HZ, "loop": "false"}


def imagej(changes=None, *, stack=None, x_um=PIXEL_UM, y_um=PIXEL_UM, resolution=None, text=None, **options):
    """The good file with other lines in its description (None: without)."""

    def made(folder):
        lines = {key: value for key, value in (GOOD | (changes or {})).items() if value is not None}
        described = "".join(f"{key}={value}\n" for key, value in ({"ImageJ": "1.54f"} | lines).items())
        how = {
            "byteorder": ">",
            "photometric": "minisblack",
            "resolution": resolution or (1 / x_um, 1 / y_um),
        }
        data = video() if stack is None else stack
        tifffile.imwrite(
            folder / "video.tif",
            data,
            metadata=None,
            description=(text or described).encode(),
            **how | options,
        )
        return folder / "video.tif"

    return made


cases.add("as it is", imagej(), ONLY_RIGHT)
for name, changes in {
    "unit micron": {"unit": "micron"},
    "unit with an escaped mu": {"unit": "\\u00B5m"},
    "an interval in ms": {"finterval": 50, "tunit": "ms"},
    "an interval in msec": {"finterval": 50, "tunit": "msec"},
    "an interval in minutes": {"finterval": 0.05 / 60, "tunit": "min"},
    "an interval and another playback speed": {"fps": 7.0},
    "display limits": {"min": 180.0, "max": 400.0},
    "one slice, one channel": {"slices": 1, "channels": 1, "hyperstack": "true"},
}.items():
    cases.add(name, imagej(changes), ONLY_RIGHT)
for name, changes, um in (
    ("nm", "nm", 500.0),
    ("mm", "mm", 5e-4),
    ("cm", "cm", 5e-5),
    ("inch", "inch", 0.5 / 25400),
):
    cases.add(f"unit {name}", imagej({"unit": changes}, x_um=um, y_um=um), ONLY_RIGHT)
cases.add("little-endian", imagej(byteorder="<"), ONLY_RIGHT)
cases.add("8-bit", imagej(stack=(video() // 4).astype(np.uint8)), ONLY_RIGHT, truth=Truth(stack=video() // 4))

# scales
for unit in ("pixel", "", "furlong", None):
    cases.add(f"unit {unit!r}", imagej({"unit": unit}), ONLY_SAID, words="pixel")
cases.add("unit um. with a full stop", imagej({"unit": "um."}), RIGHT_OR_SAID)
cases.add("a unit for y of its own", imagej({"yunit": "mm"}), SAID_OR_REFUSED, words="square|y")
cases.add("no resolution", imagej(resolution=(1, 1)), NEVER_WRONG, truth=Truth(pixel_um=1.0))


def with_resolution(numerator, denominator):
    """A fraction that tifffile would not write."""

    def made(folder):
        path = imagej()(folder)
        with tifffile.TiffFile(path) as file:
            places = [file.pages.first.tags[name].valueoffset for name in ("XResolution", "YResolution")]
        data = bytearray(path.read_bytes())
        for place in places:
            struct.pack_into(">II", data, place, numerator, denominator)
        path.write_bytes(bytes(data))
        return path

    return made


for numerator, denominator in ((0, 1), (1, 0), (0, 0)):
    cases.add(
        f"a resolution of {numerator}/{denominator}",
        with_resolution(numerator, denominator),
        SAID_OR_REFUSED,
        words="pixel",
    )
cases.add("pixels twice as tall as wide", imagej(y_um=2 * PIXEL_UM), SAID_OR_REFUSED, words="square|tall|y")
cases.add(
    "pixels twice as wide as tall",
    imagej(x_um=2 * PIXEL_UM),
    SAID_OR_REFUSED,
    words="square|wide|x",
    truth=Truth(pixel_um=2 * PIXEL_UM),
)
cases.add("pixels taller by a rounding", imagej(y_um=1.0002 * PIXEL_UM), ONLY_RIGHT)

# times
for value in (0, -0.05, "NaN", "Infinity", "soon", "1e-30", None):
    cases.add(
        f"an interval of {value}",
        imagej({"finterval": value}),
        SAID_OR_REFUSED,
        words="frame.?rate|frame/s|time|interval",
    )
cases.add("a decimal comma in the interval", imagej({"finterval": "0,05"}), RIGHT_OR_SAID)
cases.add("only a playback speed", imagej({"finterval": None, "fps": 7.0}), ONLY_SAID, words="frame")
cases.add(
    "a playback speed and an interval of zero", imagej({"finterval": 0, "fps": 7.0}), ONLY_SAID, words="frame"
)
cases.add("an interval in an unknown unit", imagej({"tunit": "tick"}), ONLY_SAID, words="frame")

# axes
SLICES = {"frames": None, "slices": FRAMES}
cases.add("a time-lapse called slices", imagej(SLICES), RIGHT_OR_SAID)
cases.add("a time-lapse called slices, with a spacing", imagej(SLICES | {"spacing": 1.0}), RIGHT_OR_SAID)
cases.add(
    "a time-lapse called slices, no interval", imagej(SLICES | {"finterval": None}), ONLY_SAID, words="frame"
)
cases.add("a time-lapse called slices, as hyperstack", imagej(SLICES | {"hyperstack": "true"}), RIGHT_OR_SAID)
cases.add("a time-lapse called images only", imagej({"frames": None}), RIGHT_OR_SAID)
cases.add(
    "a time-lapse called channels", imagej({"frames": None, "channels": FRAMES}), NEVER_WRONG, words="channel"
)
cases.add(
    "two channels",
    imagej({"frames": 6, "channels": 2, "hyperstack": "true"}),
    SAID_OR_REFUSED,
    words="channel",
)
cases.add(
    "two channels shown as one",
    imagej({"frames": 6, "channels": 2, "mode": "composite"}),
    SAID_OR_REFUSED,
    words="channel",
)
cases.add(
    "six volumes of two planes",
    imagej({"frames": 6, "slices": 2, "hyperstack": "true", "spacing": 2.0}),
    RIGHT_OR_SAID,
    truth=Truth(focus_um=np.tile([0.0, 2.0], 6), times_s=np.arange(FRAMES) / RATE_HZ / 2),
)
cases.add(
    "more frames than pages",
    imagej({"images": 20, "frames": 20}),
    SAID_OR_REFUSED,
    words="cut|missing|damage|pages|20",
)
cases.add("fewer frames than pages", imagej({"images": 8, "frames": 8}), RIGHT_OR_SAID)
cases.add("frames and slices that do not fit", imagej({"frames": 5, "slices": 3}), NEVER_WRONG)
cases.add(
    "a thousand million frames", imagej({"images": 10**9, "frames": 10**9}), SAID_OR_REFUSED, claims=True
)
cases.add("zero frames", imagej({"images": 0, "frames": 0}), NEVER_WRONG)
cases.add("a negative number of frames", imagej({"images": -12, "frames": -12}), NEVER_WRONG)
cases.add("frames in words", imagej({"images": "twelve", "frames": "twelve"}), NEVER_WRONG)

# kinds
cases.add("32-bit", imagej(stack=video().astype("float32")), NEVER_WRONG, words="float32")
colour = np.repeat((video() // 4).astype(np.uint8)[..., None], 3, -1)
cases.add(
    "RGB",
    imagej(stack=colour, photometric="rgb"),
    SAID_OR_REFUSED,
    words="colou?r",
    truth=Truth(stack=video() // 4),
)
cases.add("garbage in the description", imagej(text="ImageJ=\n\n===\nframes\n=12\x01"), NEVER_WRONG)
cases.add(
    "only its first line",
    imagej(text="ImageJ=1.54f\n"),
    ONLY_SAID,
    words="frame(.|\n)*pixel|pixel(.|\n)*frame",
)


def one_page(changes=None, keep=None):
    """As ImageJ writes above 4 GB: one page, then all images in a row."""

    def made(folder):
        path = imagej(changes, stack=video()[0])(folder)
        with tifffile.TiffFile(path) as file:
            (start,) = file.pages.first.dataoffsets
        data = path.read_bytes()[:start] + video().astype(">u2").tobytes()
        path.write_bytes(data[:keep])
        return path

    return made


cases.add("one page, then all images", one_page(), ONLY_RIGHT)
cases.add(
    "one page, then all images, cut in the eighth", one_page(keep=80_000), SAID_OR_REFUSED, words="cut|damage"
)
cases.add(
    "one page, then all images, cut in the first",
    one_page(keep=6_000),
    ONLY_REFUSED,
    words="cut|damage|cannot read",
)
cases.add(
    "one page, more images claimed",
    one_page({"images": 40, "frames": 40}),
    SAID_OR_REFUSED,
    words="cut|damage|missing|40|pages",
)
cases.add("byte order lies", poked(imagej(), 0, b"II"), ONLY_REFUSED)
for where, keep in {"to 5 bytes": 5, "in the first tags": 80, "to a half": 0.5, "by 30 bytes": -30}.items():
    cases.add(
        f"cut {where}",
        cut(imagej(), keep),
        SAID_OR_REFUSED,
        words="cut|damage|cannot read|broken|no images|missing",
    )
