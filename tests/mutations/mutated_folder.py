"""Folders of images, as cameras and other programs leave them. They say neither pixel size nor frame rate."""

import json

import numpy as np
import tifffile
from known_video import FRAMES, PIXEL_UM, RATE_HZ, Truth, frames_of, video
from mutation import (
    NEVER_WRONG,
    ONLY_REFUSED,
    ONLY_RIGHT,
    ONLY_SAID,
    RIGHT_OR_SAID,
    SAID_OR_REFUSED,
    Cases,
)
from PIL import Image

cases = Cases("folder")


def film(folder):
    """An AVI's first bytes."""
    (folder / "video.avi").write_bytes(b"RIFF\0\0\0\0AVI LIST")
    return folder / "video.avi"


def write(path, image):
    """One image in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in {".tif", ".tiff"}:
        tifffile.imwrite(path, image, photometric="minisblack", metadata=None)
    else:
        Image.fromarray(image).save(path)


def folder_of(name="img_{:04d}.tif", numbers=range(FRAMES), images=None, after=None):
    """A folder with image `k` under the name of number `k`; `after(folder)` changes it."""

    def made(folder):
        home = folder / "images"
        home.mkdir()
        for number in numbers:
            image = (video() if images is None else images)[number]
            write(home / (name(number) if callable(name) else name.format(number)), image)
        if after is not None:
            after(home)
        return home

    return made


def with_file(name, content):
    """One more file, of bytes or of an image."""

    def after(home):
        if isinstance(content, bytes):
            (home / name).write_bytes(content)
        else:
            write(home / name, content)

    return after


for name, make in {
    "TIFF": folder_of(),
    "TIFF, .tiff": folder_of("img_{:04d}.tiff"),
    "TIFF, capitals": folder_of("IMG_{:04d}.TIF"),
    "TIFF and .tiff mixed": folder_of(lambda k: f"img_{k:04d}.tif{'f' * (k % 2)}"),
    "PNG": folder_of("img_{:04d}.png"),
    "no leading zeros": folder_of("img{}.tif"),
    "numbers from 1": folder_of(lambda k: f"img_{k + 1:03d}.tif"),
    "numbers from 995 beyond 999": folder_of(lambda k: f"img_{995 + k}.tif"),
    "only numbers": folder_of("{:03d}.tif"),
    "a date in the name": folder_of("2024-03-17 flow 3 ul_s {:03d}.tif"),
    "a number behind the frame's": folder_of("img_{:04d}_cam1.tif"),
    "names in brackets": folder_of("frame ({}).tif"),
    "other files beside them": folder_of(after=with_file("Thumbs.db", b"\0\1")),
    "notes beside them": folder_of(after=with_file("notes.txt", b"flow 3 ul/s")),
    "a Mac's shadow files": folder_of(after=with_file("._img_0003.tif", b"\0\5\x16\7")),
    "an empty folder inside": folder_of(after=lambda home: (home / "analysis").mkdir()),
}.items():
    cases.add(name, make, ONLY_RIGHT, given=True)
small = (video() // 4).astype(np.uint8)
for suffix in ("png", "bmp", "pgm", "tif"):
    cases.add(
        f"8-bit {suffix}",
        folder_of("img_{:04d}." + suffix, images=small),
        ONLY_RIGHT,
        given=True,
        truth=Truth(stack=video() // 4),
    )
cases.add(
    "JPEG",
    folder_of("img_{:04d}.jpg", images=small),
    NEVER_WRONG,
    given=True,
    truth=Truth(stack=video() // 4, alike=0.95),
)
cases.add("nothing given", folder_of(), ONLY_SAID, words="frame(.|\n)*pixel|pixel(.|\n)*frame")
cases.add(
    "copies: frame.tif, frame (1).tif",
    folder_of(lambda k: f"frame ({k}).tif" if k else "frame.tif"),
    RIGHT_OR_SAID,
    given=True,
)
cases.add(
    "copies: frame.tif, frame_1.tif",
    folder_of(lambda k: f"frame_{k}.tif" if k else "frame.tif"),
    RIGHT_OR_SAID,
    given=True,
)

# what is missing
for name, numbers in {
    "a gap of three": [0, 1, 2, 3, 4, 8, 9, 10, 11],
    "a gap of one": [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11],
    "two gaps": [0, 1, 2, 5, 6, 7, 10, 11],
    "a gap behind the first": [0, 4, 5, 6, 7, 8, 9, 10, 11],
}.items():
    for suffix in ("tif", "png"):
        cases.add(
            f"{name}, {suffix}",
            folder_of("img_{:04d}." + suffix, numbers),
            RIGHT_OR_SAID,
            given=True,
            truth=frames_of(FRAMES, order=numbers),
        )
cases.add(
    "numbers in steps of 50, as stamps in ms",
    folder_of(lambda k: f"img_{50 * k}.tif"),
    RIGHT_OR_SAID,
    given=True,
)
cases.add("numbers in steps of 2", folder_of(lambda k: f"img_{2 * k:04d}.tif"), RIGHT_OR_SAID, given=True)
cases.add(
    "numbers in steps of 2 with a gap",
    folder_of(lambda k: f"img_{2 * k:04d}.tif", [0, 1, 2, 3, 7, 8, 9, 10, 11]),
    RIGHT_OR_SAID,
    given=True,
    truth=frames_of(FRAMES, order=[0, 1, 2, 3, 7, 8, 9, 10, 11]),
)
cases.add(
    "the same number twice", folder_of(after=with_file("img_4.tif", video()[4])), SAID_OR_REFUSED, given=True
)

# more than one of anything
OTHER = video(seed=2)


def twice(name, after=None):
    """Two recordings in one folder: `name(k, which)`."""

    def made(folder):
        home = folder / "images"
        for which, stack in enumerate((video(), OTHER)):
            for k in range(FRAMES):
                write(home / name(k, which), stack[k])
        if after is not None:
            after(home)
        return home

    return made


for what, name in {
    "two positions of Micro-Manager": lambda k, p: f"img_channel000_position{p:03d}_time{k:09d}_z000.tif",
    "two channels of Micro-Manager": lambda k, p: f"img_channel{p:03d}_position000_time{k:09d}_z000.tif",
    "two depths of Micro-Manager": lambda k, p: f"img_channel000_position000_time{k:09d}_z{p:03d}.tif",
    "two cameras": lambda k, p: f"cam{p + 1}_{k:04d}.tif",
    "two cameras, the number first": lambda k, p: f"{k:04d}_cam{p + 1}.tif",
    "two runs by name": lambda k, p: f"{('before', 'after')[p]}_{k:04d}.tif",
    "two wells": lambda k, p: f"{'AB'[p]}01_{k:03d}.png",
}.items():
    cases.add(
        what,
        twice(name),
        SAID_OR_REFUSED,
        given=True,
        words="position|channel|camera|series|name|kinds|several|cam|before|A01|z0",
    )
cases.add(
    "positions in folders",
    twice(lambda k, p: f"Pos{p}/img_{k:09d}_Default_000.tif"),
    ONLY_REFUSED,
    given=True,
)
summary = {"Summary": {"PixelSize_um": PIXEL_UM, "Interval_ms": 1e3 / RATE_HZ}}
cases.add(
    "Micro-Manager's files with its metadata",
    folder_of(
        "img_channel000_position000_time{:09d}_z000.tif",
        after=with_file("metadata.txt", json.dumps(summary).encode()),
    ),
    RIGHT_OR_SAID,
)
cases.add(
    "Micro-Manager's files with damaged metadata",
    folder_of(
        "img_channel000_position000_time{:09d}_z000.tif", after=with_file("metadata.txt", b'{"Summary": {')
    ),
    ONLY_SAID,
)
cases.add(
    "a mean of them beside them",
    folder_of(after=with_file("AVG_images.tif", video()[0])),
    SAID_OR_REFUSED,
    given=True,
)
cases.add(
    "a dark picture beside them",
    folder_of(after=with_file("dark.tif", video()[0])),
    SAID_OR_REFUSED,
    given=True,
)

# odd ones among them
cases.add(
    "one of another size",
    folder_of(after=with_file("img_0005.tif", video()[5, :60])),
    SAID_OR_REFUSED,
    given=True,
)
cases.add(
    "the first of another size",
    folder_of(after=with_file("img_0000.tif", video()[0, :60])),
    SAID_OR_REFUSED,
    given=True,
    truth=Truth(stack=[video()[0, :60], *video()[1:]]),
)
cases.add(
    "one of another type", folder_of(after=with_file("img_0005.tif", small[5])), SAID_OR_REFUSED, given=True
)
cases.add(
    "one of floating point",
    folder_of(after=with_file("img_0005.tif", video()[5].astype("float32"))),
    SAID_OR_REFUSED,
    given=True,
)
cases.add(
    "one of another kind", folder_of(after=with_file("img_0012.png", video()[5])), SAID_OR_REFUSED, given=True
)
cases.add(
    "one is garbage",
    folder_of(after=with_file("img_0005.tif", b"this is not an image")),
    SAID_OR_REFUSED,
    given=True,
    words="img_0005",
)
cases.add(
    "one is empty",
    folder_of(after=with_file("img_0005.tif", b"")),
    SAID_OR_REFUSED,
    given=True,
    words="img_0005",
)
cases.add(
    "one PNG is empty",
    folder_of("img_{:04d}.png", after=with_file("img_0005.png", b"")),
    SAID_OR_REFUSED,
    given=True,
    words="img_0005",
)
cases.add(
    "the first is empty",
    folder_of(after=with_file("img_0000.tif", b"")),
    SAID_OR_REFUSED,
    given=True,
    words="img_0000",
)
cases.add(
    "one is a folder",
    folder_of(
        numbers=[0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11], after=lambda home: (home / "img_0005.tif").mkdir()
    ),
    SAID_OR_REFUSED,
    given=True,
)
cases.add(
    "one holds a stack",
    folder_of(after=with_file("img_0005.tif", video())),
    SAID_OR_REFUSED,
    given=True,
    words="img_0005",
)


def cut_last(suffix):
    """The last file is half of itself."""

    def after(home):
        path = home / f"img_0011.{suffix}"
        path.write_bytes(path.read_bytes()[:2000])

    return after


for suffix in ("tif", "png", "bmp", "pgm"):
    cases.add(
        f"the last {suffix} is cut",
        folder_of("img_{:04d}." + suffix, images=small, after=cut_last(suffix)),
        SAID_OR_REFUSED,
        given=True,
        words="img_0011",
        truth=Truth(stack=video() // 4),
    )
cases.add(
    "colour",
    folder_of("img_{:04d}.png", images=np.repeat(small[..., None], 3, -1)),
    SAID_OR_REFUSED,
    given=True,
    words="colou?r",
    truth=Truth(stack=video() // 4),
)


def palettes(home):
    """The images have a palette in which 0 is white."""
    for k in range(FRAMES):
        picture = Image.fromarray(small[k], mode="P")
        picture.putpalette([255 - level for level in range(256) for _ in range(3)])
        picture.save(home / f"img_{k:04d}.png")


cases.add(
    "a palette that turns grey around",
    folder_of(numbers=[], after=palettes),
    SAID_OR_REFUSED,
    given=True,
    words="palette|colou?r",
    truth=Truth(stack=video() // 4),
)
cases.add("black and white", folder_of("img_{:04d}.png", images=video() > 220), ONLY_REFUSED, given=True)
cases.add("an empty folder", folder_of(numbers=[]), ONLY_REFUSED, words="no images")
cases.add(
    "a folder of text",
    folder_of(numbers=[], after=with_file("notes.txt", b"nothing")),
    ONLY_REFUSED,
    words="no images",
)
cases.add("one image", folder_of(numbers=[0]), RIGHT_OR_SAID, given=True, truth=Truth(order=(0,)))
cases.add(
    "one of its images",
    lambda folder: folder_of("img_{:04d}.png")(folder) / "img_0003.png",
    NEVER_WRONG,
    given=True,
    truth=Truth(order=(3,)),
)
cases.add("a film", film, ONLY_REFUSED, words="film|video")
