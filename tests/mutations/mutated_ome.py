"""OME-TIFF: sizes, times, positions, axes and series of its XML."""

import re

import numpy as np
import tifffile
from damage import cut, poked, renamed, substituted
from known_video import FRAMES, PIXEL_UM, RATE_HZ, Truth, video
from mutation import (
    NEVER_WRONG,
    ONLY_REFUSED,
    ONLY_RIGHT,
    ONLY_SAID,
    RIGHT_OR_SAID,
    SAID_OR_REFUSED,
    Cases,
)

cases = Cases("ome-tiff")

GOOD = {
    "axes": "TYX", "PhysicalSizeX": PIXEL_UM, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": PIXEL_UM,
    "PhysicalSizeYUnit": "µm", "TimeIncrement": 1 / RATE_HZ, "TimeIncrementUnit": "s",
}  # fmt: skip
TIMES = np.arange(FRAMES) / RATE_HZ


def ome(changes=None, edits=(), stack=None, name="video.ome.tif", raw=None, **options):
    """The good file with other metadata (None: without), its XML edited, or replaced by the bytes `raw`."""

    def made(folder):
        metadata = {key: value for key, value in (GOOD | (changes or {})).items() if value is not None}
        path = folder / name
        data = video() if stack is None else stack
        tifffile.imwrite(
            path, data, ome=True, **{"photometric": "minisblack", "metadata": metadata} | options
        )
        if edits or raw is not None:
            with tifffile.TiffFile(path) as file:
                text = file.ome_metadata
            tifffile.tiffcomment(path, substituted(text, *edits).encode() if raw is None else raw(text))
        return path

    return made


def stamped(times, unit="s", changes=None, **options):
    """A DeltaT on every plane; None for a plane without one."""

    def edit(folder):
        planes = {"DeltaT": [0.0 if time is None else float(time) for time in times]}
        planes["DeltaTUnit"] = [unit] * len(times)
        path = ome({"Plane": planes} | (changes or {}), **options)(folder)
        with tifffile.TiffFile(path) as file:
            text = file.ome_metadata
        numbers = iter(range(len(times)))
        text = re.sub(
            r"<Plane [^>]*>",
            lambda found: (
                found[0]
                if times[next(numbers)] is not None
                else re.sub(r' DeltaT(Unit)?="[^"]*"', "", found[0])
            ),
            text,
        )
        tifffile.tiffcomment(path, text.encode())
        return path

    return edit


NO_RATE = {"TimeIncrement": None, "TimeIncrementUnit": None}
cases.add("as it is", ome(), ONLY_RIGHT)

# sizes of a pixel
for name, changes in {
    "sizes in nm": {
        "PhysicalSizeX": 500,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 500,
        "PhysicalSizeYUnit": "nm",
    },
    "sizes in mm": {
        "PhysicalSizeX": 5e-4,
        "PhysicalSizeXUnit": "mm",
        "PhysicalSizeY": 5e-4,
        "PhysicalSizeYUnit": "mm",
    },
    "sizes in two units": {"PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm"},
    "sizes without a unit": {"PhysicalSizeXUnit": None, "PhysicalSizeYUnit": None},
    "an increment in ms": {"TimeIncrement": 50, "TimeIncrementUnit": "ms"},
    "an increment in minutes": {"TimeIncrement": 0.05 / 60, "TimeIncrementUnit": "min"},
    "an increment without a unit": {"TimeIncrementUnit": None},
    "axes of length 1": {"axes": "TYX"},
}.items():
    cases.add(name, ome(changes), ONLY_RIGHT)
cases.add(
    "sizes in angstrom",
    ome({"PhysicalSizeX": 5000, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 5000, "PhysicalSizeYUnit": "Å"}),
    RIGHT_OR_SAID,
)
for unit in ("micrometers", "micron", "um", "MICROMETER", "Âµm", "microm"):
    cases.add(f"the unit is written {unit}", ome(edits=[('Unit="µm"', f'Unit="{unit}"')]), RIGHT_OR_SAID)
for unit in ("pixel", "reference frame", "furlong", ""):
    cases.add(f"the unit is '{unit}'", ome(edits=[('Unit="µm"', f'Unit="{unit}"')]), ONLY_SAID, words="pixel")
for size in ("0", "-0.5", "NaN", "INF", "1e30", "half", ""):
    cases.add(
        f"the size of a pixel is '{size}'",
        ome(edits=[(r'(PhysicalSize[XY])="[^"]*"', rf'\1="{size}"')]),
        SAID_OR_REFUSED,
        words="pixel",
    )
cases.add(
    "a decimal comma in the size of a pixel",
    ome(edits=[(r'(PhysicalSize[XY])="[^"]*"', r'\1="0,5"')]),
    RIGHT_OR_SAID,
)
cases.add("no size of a pixel", ome(dict.fromkeys(list(GOOD)[1:5])), ONLY_SAID, words="pixel")
cases.add("no size in x", ome(dict.fromkeys(["PhysicalSizeX", "PhysicalSizeXUnit"])), RIGHT_OR_SAID)
cases.add("no size in y", ome(dict.fromkeys(["PhysicalSizeY", "PhysicalSizeYUnit"])), RIGHT_OR_SAID)
cases.add(
    "pixels twice as tall as wide",
    ome({"PhysicalSizeY": 2 * PIXEL_UM}),
    SAID_OR_REFUSED,
    words="square|tall|Y",
)
cases.add(
    "pixels twice as wide as tall",
    ome({"PhysicalSizeX": 2 * PIXEL_UM}),
    SAID_OR_REFUSED,
    words="square|wide|X",
    truth=Truth(pixel_um=2 * PIXEL_UM),
)
cases.add("y in a unit of its own", ome({"PhysicalSizeYUnit": "mm"}), SAID_OR_REFUSED, words="square|tall|Y")

# times
for value in ("0", "-0.05", "NaN", "INF", "soon", "1e-30"):
    cases.add(
        f"an increment of '{value}'",
        ome(edits=[(r'TimeIncrement="[^"]*"', f'TimeIncrement="{value}"')]),
        SAID_OR_REFUSED,
        words="frame",
    )
cases.add(
    "an increment in an unknown unit",
    ome(edits=[('TimeIncrementUnit="s"', 'TimeIncrementUnit="tick"')]),
    ONLY_SAID,
    words="frame",
)
cases.add(
    "a decimal comma in the increment",
    ome(edits=[(r'TimeIncrement="[^"]*"', 'TimeIncrement="0,05"')]),
    RIGHT_OR_SAID,
)
cases.add("no times at all", ome(NO_RATE), ONLY_SAID, words="frame.?rate")
uneven = np.cumsum([0, 1, 1, 2, 1, 1, 1, 3, 1, 1, 1, 1]) / RATE_HZ
cases.add("stamps without an increment", stamped(TIMES, changes=NO_RATE), ONLY_RIGHT)
cases.add("stamps in ms", stamped(1e3 * TIMES, "ms", NO_RATE), ONLY_RIGHT)
cases.add("stamps that begin late", stamped(TIMES + 17.25, changes=NO_RATE), ONLY_RIGHT)
cases.add("stamps that begin before zero", stamped(TIMES - 0.3, changes=NO_RATE), ONLY_RIGHT)
cases.add(
    "stamps of uneven frames", stamped(uneven, changes=NO_RATE), ONLY_RIGHT, truth=Truth(times_s=uneven)
)
cases.add(
    "stamps and a planned increment that differ",
    stamped(TIMES, changes={"TimeIncrement": 1.0}),
    RIGHT_OR_SAID,
)
for told, changes in {"": NO_RATE, " beside an increment": {}}.items():
    cases.add(
        f"one stamp missing{told}",
        stamped([*TIMES[:5], None, *TIMES[6:]], changes=changes),
        RIGHT_OR_SAID,
        mostly=True,
    )
    cases.add(
        f"the first stamp missing{told}",
        stamped([None, *TIMES[1:]], changes=changes),
        RIGHT_OR_SAID,
        mostly=True,
    )
    cases.add(
        f"the last stamp missing{told}",
        stamped([*TIMES[:-1], None], changes=changes),
        RIGHT_OR_SAID,
        mostly=True,
    )
    cases.add(
        f"one stamp repeated{told}",
        stamped([*TIMES[:5], TIMES[4], *TIMES[6:]], changes=changes),
        RIGHT_OR_SAID,
        mostly=True,
    )
    cases.add(
        f"one stamp far ahead{told}",
        stamped([*TIMES[:5], 30.0, *TIMES[6:]], changes=changes),
        RIGHT_OR_SAID,
        mostly=True,
    )
    cases.add(
        f"one stamp is zero{told}",
        stamped([*TIMES[:5], 0.0, *TIMES[6:]], changes=changes),
        RIGHT_OR_SAID,
        mostly=True,
    )
    cases.add(
        f"one stamp is no number{told}",
        stamped([*TIMES[:5], np.nan, *TIMES[6:]], changes=changes),
        RIGHT_OR_SAID,
        mostly=True,
    )
    cases.add(
        f"stamps in whole tenths{told}", stamped(np.floor(10 * TIMES) / 10, changes=changes), RIGHT_OR_SAID
    )
    cases.add(
        f"every second stamp missing{told}",
        stamped([None if k % 2 else t for k, t in enumerate(TIMES)], changes=changes),
        RIGHT_OR_SAID,
        mostly=True,
    )
cases.add(
    "all stamps are zero", stamped(0 * TIMES, changes=NO_RATE), ONLY_SAID, words="frame.?rate|time|stamp"
)
cases.add("all stamps are zero beside an increment", stamped(0 * TIMES), RIGHT_OR_SAID)
cases.add(
    "stamps that fall", stamped(TIMES[::-1], changes=NO_RATE), SAID_OR_REFUSED, words="time|stamp|frame.?rate"
)
cases.add(
    "stamps in an unknown unit",
    stamped(TIMES, "tick", NO_RATE),
    SAID_OR_REFUSED,
    words="time|stamp|frame.?rate",
)
cases.add(
    "only the first frame has a stamp",
    stamped([0.0] + [None] * 11, changes=NO_RATE),
    ONLY_SAID,
    words="time|stamp|frame.?rate",
)


def placed(heights, unit="µm"):
    """A focus position on every plane."""
    return stamped(
        TIMES,
        changes={
            "Plane": {
                "DeltaT": list(TIMES),
                "PositionZ": [float(z) for z in heights],
                "PositionZUnit": [unit] * len(heights),
            }
        },
    )


heights = 3.0 * np.arange(FRAMES)
cases.add("the focus is at 12.5 um in all", placed([12.5] * FRAMES), ONLY_RIGHT)
cases.add("the focus moves", placed(heights), ONLY_RIGHT, truth=Truth(focus_um=heights))
cases.add("the focus moves, in mm", placed(heights / 1e3, "mm"), ONLY_RIGHT, truth=Truth(focus_um=heights))
cases.add(
    "the focus moves in the reference frame of a stage",
    placed(heights, "reference frame"),
    NEVER_WRONG,
    words="focus|position|reference",
)

# axes
SCAN_STEP = {"PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"}
for axes in ("TCZYX", "TZCYX", "CTZYX", "ZCTYX"):
    shape = tuple(FRAMES if axis == "T" else 1 for axis in axes[:-2])
    cases.add(
        f"axes {axes}, each but T of length 1",
        ome({"axes": axes}, stack=video().reshape(*shape, 64, 80)),
        ONLY_RIGHT,
    )
cases.add("a time-lapse called z, with its increment", ome({"axes": "ZYX"}), RIGHT_OR_SAID)
cases.add(
    "a time-lapse called z, with stamps", stamped(TIMES, changes={"axes": "ZYX"} | NO_RATE), RIGHT_OR_SAID
)
cases.add("a time-lapse called z, with a step", ome({"axes": "ZYX"} | SCAN_STEP), RIGHT_OR_SAID)
cases.add("a time-lapse called channels", ome({"axes": "CYX"}), NEVER_WRONG, words="channel")
cases.add(
    "two channels",
    ome({"axes": "TCYX"}, stack=video().reshape(6, 2, 64, 80)),
    SAID_OR_REFUSED,
    words="channel",
)
cases.add(
    "channels before times",
    ome({"axes": "CTYX"}, stack=video().reshape(2, 6, 64, 80)),
    SAID_OR_REFUSED,
    words="channel",
)
volume = np.tile(2.0 * np.arange(3), 4)
cases.add(
    "four volumes of three planes",
    ome({"axes": "TZYX"} | SCAN_STEP, stack=video().reshape(4, 3, 64, 80)),
    RIGHT_OR_SAID,
    truth=Truth(focus_um=volume, times_s=TIMES / 3),
)

# series
OTHER = video(FRAMES, seed=2)


def series(*stacks, changes=None):
    """Several images in one file."""

    def made(folder):
        with tifffile.TiffWriter(folder / "video.ome.tif", ome=True) as file:
            for stack in stacks:
                known = (
                    GOOD if stack.ndim == 3 else {key: GOOD[key] for key in GOOD if "Increment" not in key}
                )
                known = known | {"axes": "TYX" if stack.ndim == 3 else "YX"}
                file.write(stack, photometric="minisblack", metadata=known | (changes or {}))
        return folder / "video.ome.tif"

    return made


cases.add("two positions", series(video(), OTHER), SAID_OR_REFUSED, words="series|position|images")
cases.add("three positions", series(video(), OTHER, OTHER), SAID_OR_REFUSED, words="series|position|images")
cases.add(
    "two positions, the second aborted",
    series(video(), OTHER[:-1]),
    SAID_OR_REFUSED,
    words="series|position|images",
)
cases.add(
    "two positions, the second aborted at its first frame",
    series(video(), OTHER[0]),
    SAID_OR_REFUSED,
    words="series|position|images",
)
cases.add(
    "two positions, the first aborted",
    series(OTHER[:-3], video()),
    SAID_OR_REFUSED,
    words="series|position|images",
)
cases.add("a preview behind the frames", series(video(), video()[0, ::4, ::4]), RIGHT_OR_SAID)

# the XML and what lies in the file
cases.add(
    "the XML is cut in the middle", ome(raw=lambda text: text[: len(text) // 2].encode()), SAID_OR_REFUSED
)
cases.add(
    "the XML of an old namespace",
    ome(
        edits=[
            ("2016-06", "2011-06"),
            (r' PhysicalSize.Unit="[^"]*"', ""),
            (r' TimeIncrementUnit="[^"]*"', ""),
        ]
    ),
    ONLY_RIGHT,
)
cases.add("the XML in Latin-1", ome(raw=lambda text: text.encode("latin-1")), NEVER_WRONG)
cases.add("the XML says uint8", ome(edits=[('Type="uint16"', 'Type="uint8"')]), NEVER_WRONG)
cases.add("the XML says big-endian", ome(edits=[(r"<Pixels ", '<Pixels BigEndian="true" ')]), ONLY_RIGHT)
cases.add(
    "more frames in the XML than in the file",
    ome(edits=[('SizeT="12"', 'SizeT="20"')]),
    SAID_OR_REFUSED,
    words="cut|missing|damage|pages",
)
cases.add("fewer frames in the XML than in the file", ome(edits=[('SizeT="12"', 'SizeT="8"')]), NEVER_WRONG)
cases.add(
    "width and height swapped in the XML",
    ome(edits=[('SizeX="80" SizeY="64"', 'SizeX="64" SizeY="80"')]),
    NEVER_WRONG,
)
cases.add(
    "a million frames in the XML",
    ome(edits=[('SizeT="12"', 'SizeT="1000000"')]),
    SAID_OR_REFUSED,
    claims=True,
)
cases.add(
    "a thousand million frames in the XML",
    ome(edits=[('SizeT="12"', 'SizeT="1000000000"')]),
    SAID_OR_REFUSED,
    claims=True,
)
cases.add("a negative number of frames in the XML", ome(edits=[('SizeT="12"', 'SizeT="-12"')]), NEVER_WRONG)
cases.add("no number of frames in the XML", ome(edits=[('SizeT="12" ', "")]), NEVER_WRONG)
cases.add("a description in the XML", ome({"Description": "5 % glycerol; <b>"}), ONLY_RIGHT)
cases.add("renamed", renamed(ome(), "other.tif"), ONLY_RIGHT)
cases.add("renamed with a suffix of its own", renamed(ome(), "video.dat"), ONLY_RIGHT)
cases.add("zlib in tiles", ome(compression="zlib", tile=(32, 32)), ONLY_RIGHT)
cases.add("big-endian", ome(byteorder=">"), ONLY_RIGHT)
cases.add("BigTIFF", ome(bigtiff=True), ONLY_RIGHT)
cases.add("float32 pixels", ome(stack=video().astype("float32")), NEVER_WRONG, words="float32")
cases.add("byte order lies", poked(ome(), 0, b"MM"), ONLY_REFUSED)
for where, keep in {"to 7 bytes": 7, "in the first tags": 100, "to a half": 0.5, "by 9 bytes": -9}.items():
    cases.add(
        f"cut {where}", cut(ome(), keep), SAID_OR_REFUSED, words="cut|damage|cannot read|broken|no images"
    )


def turned(text):
    """The XML says that the pages lie in the file from the last frame to the first."""
    data = "".join(f'<TiffData IFD="{FRAMES - 1 - k}" FirstT="{k}" PlaneCount="1"/>' for k in range(FRAMES))
    return substituted(text, (r"<TiffData[^>]*/?>(</TiffData>)?", data)).encode()


cases.add(
    "the pages lie in reverse order",
    ome(raw=turned),
    ONLY_RIGHT,
    truth=Truth(order=tuple(range(FRAMES - 1, -1, -1)), times_s=TIMES[::-1]),
)


def set_of_files(opened, missing=""):
    """An OME set: frames 0 to 5 in one file, 6 to 11 in a second one; both name both."""

    def made(folder):
        names, ids = ("set_1.ome.tif", "set_2.ome.tif"), ("urn:uuid:a", "urn:uuid:b")
        data = "".join(
            f'<TiffData IFD="{k % 6}" FirstT="{k}" PlaneCount="1"><UUID FileName="{names[k // 6]}">{ids[k // 6]}'
            "</UUID></TiffData>"
            for k in range(FRAMES)
        )
        for number, name in enumerate(names):
            path = ome(stack=video()[6 * number : 6 * number + 6], name=name)(folder)
            with tifffile.TiffFile(path) as file:
                text = file.ome_metadata
            text = substituted(
                text,
                ('SizeT="6"', 'SizeT="12"'),
                (r"<TiffData[^>]*/?>(</TiffData>)?", data),
                (r'UUID="[^"]*"', f'UUID="{ids[number]}"'),
            )
            tifffile.tiffcomment(path, text.encode())
        if missing:
            (folder / missing).unlink()
        return folder / opened

    return made


cases.add("a set of two files, by its first", set_of_files("set_1.ome.tif"), ONLY_RIGHT)
cases.add("a set of two files, by its second", set_of_files("set_2.ome.tif"), ONLY_RIGHT)
cases.add(
    "a set of two files, the second missing",
    set_of_files("set_1.ome.tif", "set_2.ome.tif"),
    SAID_OR_REFUSED,
    words="missing|set_2",
)
cases.add(
    "a set of two files, the first missing",
    set_of_files("set_2.ome.tif", "set_1.ome.tif"),
    SAID_OR_REFUSED,
    words="missing|set_1",
)
