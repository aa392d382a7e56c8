"""OME-Zarr 0.4 and 0.5, and plain Zarr arrays of both formats."""

import json
import shutil

import numpy as np
import zarr
from known_video import HEIGHT, PIXEL_UM, RATE_HZ, WIDTH, Truth, video
from mutation import (
    NEVER_WRONG,
    ONLY_REFUSED,
    ONLY_RIGHT,
    ONLY_SAID,
    RIGHT_OR_SAID,
    SAID_OR_REFUSED,
    Cases,
)

TIME = {"name": "t", "type": "time", "unit": "second"}
SPACE = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
SCALE = [1 / RATE_HZ, PIXEL_UM, PIXEL_UM]


def scaled(*values):
    """A list of transformations with one scale."""
    return [{"type": "scale", "scale": list(values)}]


def ome_zarr(
    version, *, image=None, stack=None, name="video.ome.zarr", after=None, array=None, attributes=None
):
    """A good image with other keys in its `multiscales` (None: without); `after(path)` damages it."""

    def made(folder):
        path = folder / name
        group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
        data = video() if stack is None else stack
        how = {"chunks": (1,) * (data.ndim - 2) + data.shape[-2:], "shape": data.shape, "dtype": data.dtype}
        group.create_array("0", **how | (array or {}))[...] = data
        facts = {
            "version": version,
            "name": "video",
            "axes": [TIME, *SPACE],
            "datasets": [{"path": "0", "coordinateTransformations": scaled(*SCALE)}],
        } | (image or {})
        facts = {key: value for key, value in facts.items() if value is not None}
        ome = {"multiscales": [facts]} | (attributes or {})
        group.attrs.update(ome if version == "0.4" else {"ome": {"version": version} | ome})
        if after is not None:
            after(path)
        return path

    return made


def level(*transformations):
    """A dataset with these transformations."""
    return [{"path": "0", "coordinateTransformations": list(transformations)}]


def attributes_file(path):
    """Where the attributes of a group are."""
    old = path / ".zattrs"
    return old if old.exists() else path / "zarr.json"


def edited(old, new):
    """Replace text in the JSON of the group's attributes."""

    def after(path):
        file = attributes_file(path)
        text = file.read_text()
        assert old in text, f"no {old} in {text}"
        file.write_text(text.replace(old, new))

    return after


def chunks(path):
    """The files of the chunks, in the order of time."""
    files = [
        file
        for file in (path / "0").rglob("*")
        if file.is_file() and not file.name.startswith((".z", "zarr"))
    ]
    return sorted(
        files,
        key=lambda file: [
            int(part)
            for part in file.relative_to(path / "0").as_posix().replace("c/", "").replace(".", "/").split("/")
        ],
    )


def on_chunk(number, act):
    """Do something to the file of one frame."""
    return lambda path: act(chunks(path)[number])


def halve(file):
    """Keep half of a file."""
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def scribble(file):
    """Other bytes in the middle of a file."""
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(range(40))
    file.write_bytes(bytes(data))


def metadata_of_array(path, **changes):
    """Change keys in the array's own metadata."""
    file = path / "0" / ".zarray"
    file = file if file.exists() else path / "0" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def unit(time="second", space="micrometer"):
    """Axes with these units; None for none."""
    axes = [TIME | {"unit": time}, *(axis | {"unit": space} for axis in SPACE)]
    return [{key: value for key, value in axis.items() if value is not None} for axis in axes]


def cases_of(version):
    """The mutations that both versions have."""
    cases = Cases(f"ome-zarr {version}")

    def add(title, may, words="", truth=None, claims=False, **how):
        more = {"truth": truth} if truth is not None else {}
        cases.add(title, ome_zarr(version, **how), may, words=words, claims=claims, **more)

    add("as it is", ONLY_RIGHT)
    # scales
    add(
        "the scale at the level of the multiscales",
        ONLY_RIGHT,
        image={"datasets": level(*scaled(1, 1, 1)), "coordinateTransformations": scaled(*SCALE)},
    )
    add(
        "the scale in both, multiplied",
        ONLY_RIGHT,
        image={"datasets": level(*scaled(1, 0.25, 0.25)), "coordinateTransformations": scaled(0.05, 2, 2)},
    )
    add(
        "time in one level, space in the other",
        ONLY_RIGHT,
        image={
            "datasets": level(*scaled(1, PIXEL_UM, PIXEL_UM)),
            "coordinateTransformations": scaled(0.05, 1, 1),
        },
    )
    add(
        "the scale only at the level of the multiscales",
        ONLY_RIGHT,
        image={"datasets": [{"path": "0"}], "coordinateTransformations": scaled(*SCALE)},
    )
    add(
        "a translation beside the scale",
        ONLY_RIGHT,
        image={"datasets": level(*scaled(*SCALE), {"type": "translation", "translation": [0, 10, 20]})},
    )
    add("no scale", ONLY_SAID, "pixel", image={"datasets": [{"path": "0"}]})
    add(
        "only a translation",
        ONLY_SAID,
        "pixel",
        image={"datasets": level({"type": "translation", "translation": [0, 1, 1]})},
    )
    add("an identity", SAID_OR_REFUSED, "pixel|identity", image={"datasets": level({"type": "identity"})})
    add(
        "a transformation nobody knows",
        SAID_OR_REFUSED,
        "pixel|transform",
        image={"datasets": level({"type": "affine", "affine": [[1, 0], [0, 1]]})},
    )
    add(
        "a scale in a file of its own",
        SAID_OR_REFUSED,
        "pixel|transform|scale",
        image={"datasets": level({"type": "scale", "path": "scale"})},
    )
    add(
        "a scale of two numbers for three axes",
        SAID_OR_REFUSED,
        "scale|axes|pixel",
        image={"datasets": level(*scaled(PIXEL_UM, PIXEL_UM))},
    )
    add(
        "a scale of four numbers for three axes",
        SAID_OR_REFUSED,
        "scale|axes|pixel",
        image={"datasets": level(*scaled(0.05, 1, PIXEL_UM, PIXEL_UM))},
    )
    for value in (0, -PIXEL_UM, "0.5 um", None, 1e300):
        may = SAID_OR_REFUSED
        add(f"a pixel of {value}", may, "pixel|scale", image={"datasets": level(*scaled(0.05, value, value))})
        add(
            f"an interval of {value}",
            may,
            "frame|scale|time",
            image={"datasets": level(*scaled(value, 0.5, 0.5))},
        )
    add("a pixel of NaN", SAID_OR_REFUSED, "pixel|scale|read", after=edited("0.5", "NaN"))
    add(
        "pixels twice as tall as wide",
        SAID_OR_REFUSED,
        "square|tall|y",
        image={"datasets": level(*scaled(0.05, 2 * PIXEL_UM, PIXEL_UM))},
    )
    add(
        "pixels taller by the scale above",
        SAID_OR_REFUSED,
        "square|tall|y",
        image={"coordinateTransformations": scaled(1, 2, 1)},
    )
    add(
        "y in a unit of its own",
        SAID_OR_REFUSED,
        "square|tall|y|unit",
        image={"axes": [TIME, SPACE[0] | {"unit": "millimeter"}, SPACE[1]]},
    )
    add(
        "sizes in nm",
        ONLY_RIGHT,
        image={"axes": unit(space="nanometer"), "datasets": level(*scaled(0.05, 500, 500))},
    )
    add(
        "sizes in mm",
        ONLY_RIGHT,
        image={"axes": unit(space="millimeter"), "datasets": level(*scaled(0.05, 5e-4, 5e-4))},
    )
    add(
        "sizes in angstrom",
        RIGHT_OR_SAID,
        image={"axes": unit(space="angstrom"), "datasets": level(*scaled(0.05, 5e3, 5e3))},
    )
    add(
        "times in ms",
        ONLY_RIGHT,
        image={"axes": unit("millisecond"), "datasets": level(*scaled(50, 0.5, 0.5))},
    )
    add(
        "times in minutes",
        ONLY_RIGHT,
        image={"axes": unit("minute"), "datasets": level(*scaled(0.05 / 60, 0.5, 0.5))},
    )
    for name in ("micrometers", "um", "µm"):
        add(f"the unit is written {name}", RIGHT_OR_SAID, image={"axes": unit(space=name)})
    add("no units", NEVER_WRONG, image={"axes": unit(None, None)})
    add("an unknown unit of space", ONLY_SAID, "pixel", image={"axes": unit(space="furlong")})
    add("an unknown unit of time", ONLY_SAID, "frame", image={"axes": unit("tick")})
    add("units that are numbers", NEVER_WRONG, image={"axes": unit(3, 4)})
    # axes
    five = [
        TIME,
        {"name": "c", "type": "channel"},
        {"name": "z", "type": "space", "unit": "micrometer"},
        *SPACE,
    ]
    add(
        "five axes, each but t of length 1",
        ONLY_RIGHT,
        stack=video()[:, None, None],
        image={"axes": five, "datasets": level(*scaled(0.05, 1, 1, 0.5, 0.5))},
    )
    add(
        "five axes, two channels",
        SAID_OR_REFUSED,
        "channel",
        stack=video().reshape(6, 2, 1, HEIGHT, WIDTH),
        image={"axes": five, "datasets": level(*scaled(0.05, 1, 1, 0.5, 0.5))},
    )
    add("four axes named for three", SAID_OR_REFUSED, "axes", image={"axes": [TIME, five[2], *SPACE]})
    add("two axes named for three", SAID_OR_REFUSED, "axes", image={"axes": SPACE})
    add("axes with x before y", NEVER_WRONG, image={"axes": [TIME, SPACE[1], SPACE[0]]})
    add(
        "y and x before the times",
        NEVER_WRONG,
        stack=np.moveaxis(video(), 0, -1),
        image={"axes": [*SPACE, TIME], "datasets": level(*scaled(0.5, 0.5, 0.05))},
    )
    add("the same axis twice", SAID_OR_REFUSED, image={"axes": [TIME, SPACE[0], SPACE[0]]})
    add("axes of only names", NEVER_WRONG, image={"axes": ["t", "y", "x"]})
    add(
        "axes in capitals",
        RIGHT_OR_SAID,
        image={"axes": [TIME | {"name": "T"}, *(a | {"name": a["name"].upper()} for a in SPACE)]},
    )
    add("an axis with a long name", NEVER_WRONG, image={"axes": [TIME | {"name": "time"}, *SPACE]})
    add("no axes", NEVER_WRONG, image={"axes": None})
    add("axes are a number", SAID_OR_REFUSED, image={"axes": 3})
    add(
        "a time-lapse called z",
        NEVER_WRONG,
        image={"axes": [five[2], *SPACE], "datasets": level(*scaled(1, 0.5, 0.5))},
    )
    add("a time-lapse called channels", NEVER_WRONG, image={"axes": [five[1], *SPACE]})
    # structure
    add("two images in one group", NEVER_WRONG, after=lambda path: second_image(path, version))
    add("the array is not there", ONLY_REFUSED, after=lambda path: shutil.rmtree(path / "0"))
    add("a level is named that is not there", ONLY_REFUSED, image={"datasets": [{"path": "7"}]})
    add("no datasets", ONLY_REFUSED, image={"datasets": []})
    add("datasets are text", ONLY_REFUSED, image={"datasets": "0"})
    add("multiscales is empty", ONLY_REFUSED, attributes={"multiscales": []})
    add("multiscales is text", ONLY_REFUSED, attributes={"multiscales": "yes"})
    add("the attributes are cut", ONLY_REFUSED, after=lambda path: halve(attributes_file(path)))
    add("the attributes are empty", ONLY_REFUSED, after=lambda path: attributes_file(path).write_text(""))
    add("the attributes are a list", ONLY_REFUSED, after=lambda path: attributes_file(path).write_text("[]"))
    add(
        "the attributes are not UTF-8",
        ONLY_REFUSED,
        after=lambda path: attributes_file(path).write_bytes(b"\xff\xfe\0{"),
    )
    add("a path out of the folder", NEVER_WRONG, image={"datasets": [{"path": "../../etc"}]})
    add("a name without .zarr", ONLY_RIGHT, name="video")
    add(
        "the metadata of the array is cut",
        ONLY_REFUSED,
        after=lambda path: halve(
            next(file for file in (path / "0" / ".zarray", path / "0" / "zarr.json") if file.exists())
        ),
    )
    # chunks
    add(
        "a chunk is missing",
        SAID_OR_REFUSED,
        "missing|chunk|lost|written",
        after=on_chunk(5, lambda file: file.unlink()),
    )
    add(
        "the last chunks are missing",
        SAID_OR_REFUSED,
        "missing|chunk|lost|written",
        after=lambda path: [file.unlink() for file in chunks(path)[9:]],
    )
    add(
        "all chunks are missing",
        SAID_OR_REFUSED,
        "missing|chunk|lost|empty|written",
        after=lambda path: [file.unlink() for file in chunks(path)],
    )
    add("a chunk is cut", SAID_OR_REFUSED, after=on_chunk(5, halve))
    add("a chunk is empty", SAID_OR_REFUSED, after=on_chunk(5, lambda file: file.write_bytes(b"")))
    add(
        "the header of a chunk is scribbled over",
        SAID_OR_REFUSED,
        after=on_chunk(5, lambda file: file.write_bytes(b"not it")),
    )
    add(
        "an uncompressed chunk is cut", SAID_OR_REFUSED, after=on_chunk(5, halve), array={"compressors": None}
    )
    add(
        "more frames claimed than chunks",
        SAID_OR_REFUSED,
        "missing|chunk|lost|written",
        after=lambda path: metadata_of_array(path, shape=[20, HEIGHT, WIDTH]),
    )
    add(
        "a million frames claimed",
        SAID_OR_REFUSED,
        "missing|chunk|lost|written",
        claims=True,
        after=lambda path: metadata_of_array(path, shape=[10**6, HEIGHT, WIDTH]),
    )
    add(
        "frames of a million by a million pixels claimed",
        SAID_OR_REFUSED,
        claims=True,
        after=lambda path: metadata_of_array(path, shape=[12, 10**6, 10**6]),
    )
    add(
        "a negative shape",
        ONLY_REFUSED,
        after=lambda path: metadata_of_array(path, shape=[-12, HEIGHT, WIDTH]),
    )
    add("the shape is text", ONLY_REFUSED, after=lambda path: metadata_of_array(path, shape="many"))
    # how it is stored
    add("no compression", ONLY_RIGHT, array={"compressors": None})
    add("three frames a chunk", ONLY_RIGHT, array={"chunks": (3, HEIGHT, WIDTH)})
    add("frames in four chunks", ONLY_RIGHT, array={"chunks": (1, HEIGHT // 2, WIDTH // 2)})
    add("chunks beyond the edge", ONLY_RIGHT, array={"chunks": (5, 50, 50)})
    add("uint8", ONLY_RIGHT, stack=(video() // 4).astype(np.uint8), truth=Truth(stack=video() // 4))
    for kind in ("int16", "float32", "float64", "int32"):
        add(f"{kind} pixels", NEVER_WRONG, kind, stack=video().astype(kind))
    add("black and white", ONLY_REFUSED, "bool", stack=video() > 220)
    if version == "0.4":
        add("big-endian", ONLY_RIGHT, stack=video().astype(">u2"))
        add("nested chunks", ONLY_RIGHT, array={"chunk_key_encoding": {"name": "v2", "separator": "/"}})
        add(
            "a compressor nobody knows",
            ONLY_REFUSED,
            after=lambda path: metadata_of_array(path, compressor={"id": "magic"}),
        )
        add(
            "big-endian that says it is little",
            NEVER_WRONG,
            stack=video().astype(">u2"),
            array={"compressors": None},
            after=lambda path: metadata_of_array(path, dtype=">u2"),
        )
        add("no attributes", ONLY_REFUSED, after=lambda path: attributes_file(path).unlink())
    else:
        add("shards", ONLY_RIGHT, array={"shards": (4, HEIGHT, WIDTH)})
        add(
            "a shard is missing",
            SAID_OR_REFUSED,
            "missing|chunk|lost|written",
            array={"shards": (4, HEIGHT, WIDTH)},
            after=on_chunk(1, lambda file: file.unlink()),
        )
        add(
            "a codec nobody knows",
            ONLY_REFUSED,
            after=lambda path: metadata_of_array(path, codecs=[{"name": "magic"}]),
        )
        add("the version is that of 0.4", RIGHT_OR_SAID, image={"version": "0.4"})
    return cases


def second_image(path, version):
    """Another image in the list of multiscales, with an array of its own."""
    group = zarr.open_group(str(path), mode="a")
    group.create_array("1", shape=video().shape, dtype="uint16", chunks=(1, HEIGHT, WIDTH))[...] = video(
        seed=2
    )
    where = dict(group.attrs) if version == "0.4" else group.attrs["ome"]
    first = where["multiscales"][0]
    other = first | {"name": "other", "datasets": [first["datasets"][0] | {"path": "1"}]}
    new = where | {"multiscales": [first, other]}
    group.attrs.update(new if version == "0.4" else {"ome": new})


def collection(path_opened):
    """A group of images, each in a group of its own, as converters write them."""

    def made(folder):
        path = folder / "all.zarr"
        group = zarr.create_group(str(path), zarr_format=2)
        group.attrs.update({"bioformats2raw.layout": 3})
        for number in (0, 1):
            ome_zarr("0.4", name=f"all.zarr/{number}")(folder)
        return path / path_opened

    return made


zarr_plain = Cases("zarr")


def array(stack=None, zarr_format=3, after=None, name="video.zarr", **how):
    """One array, no group."""

    def made(folder):
        data = video() if stack is None else stack
        found = zarr.create_array(
            str(folder / name),
            shape=data.shape,
            dtype=data.dtype,
            zarr_format=zarr_format,
            **{"chunks": (1, *data.shape[1:])} | how,
        )
        found[...] = data
        if after is not None:
            after(folder / name)
        return folder / name

    return made


def empty(folder):
    """A folder without anything."""
    (folder / "video.zarr").mkdir()
    return folder / "video.zarr"


for form in (2, 3):
    zarr_plain.add(f"format {form}", array(zarr_format=form), ONLY_RIGHT, given=True)
    zarr_plain.add(
        f"format {form}, nothing given",
        array(zarr_format=form),
        ONLY_SAID,
        words="frame(.|\n)*pixel|pixel(.|\n)*frame",
    )
zarr_plain.add(
    "named dimensions, time last",
    array(np.moveaxis(video(), 0, -1), dimension_names=("y", "x", "t")),
    NEVER_WRONG,
    given=True,
)
zarr_plain.add("an axis of length 1 behind", array(video()[..., None]), NEVER_WRONG, given=True)
zarr_plain.add("an axis of length 1 between", array(video()[:, None]), ONLY_RIGHT, given=True)
zarr_plain.add("one axis", array(np.arange(12, dtype="uint16"), chunks=(12,)), ONLY_REFUSED, given=True)
zarr_plain.add("six axes", array(video()[:, None, None, None]), NEVER_WRONG, given=True)
zarr_plain.add("zero frames", array(video()[:0], chunks=(1, HEIGHT, WIDTH)), ONLY_REFUSED, given=True)
zarr_plain.add("an empty folder that ends in .zarr", empty, ONLY_REFUSED)
zarr_plain.add("a group of images", collection(""), NEVER_WRONG)
zarr_plain.add("the first of a group of images", collection("0"), ONLY_RIGHT)
zarr_plain.add("the array in an image", lambda folder: ome_zarr("0.4")(folder) / "0", RIGHT_OR_SAID)
zarr_plain.add("a file of it", lambda folder: ome_zarr("0.5")(folder) / "zarr.json", ONLY_REFUSED)


all_cases = [*cases_of("0.4").all, *cases_of("0.5").all, *zarr_plain.all]
