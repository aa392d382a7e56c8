"""Tables of detections: CSV of this and other programs, Parquet, HDF5. 20 frames/s are given."""

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from damage import cut, flipped, poked, renamed
from known_video import FRAMES, PIXEL_UM, STEP_PX, X_PX, Y_PX
from mutation import (
    NEVER_WRONG,
    ONLY_REFUSED,
    ONLY_RIGHT,
    RIGHT_OR_REFUSED,
    SAID_OR_REFUSED,
    Cases,
)

csv, arrow, h5 = Cases("csv"), Cases("parquet"), Cases("h5 table")


def columns():
    """`frame, x_um, y_um` of all particles, frame by frame."""
    frame = np.repeat(np.arange(FRAMES), X_PX.size)
    x_um = PIXEL_UM * (np.tile(X_PX, FRAMES) + STEP_PX * frame)
    return {"frame": frame, "x_um": x_um, "y_um": PIXEL_UM * np.tile(Y_PX, FRAMES)}


def lines(table=None, *, separator=",", point=".", digits=4, header=None):
    """The table as text: a header and a line a row."""
    table = columns() if table is None else table
    rows = [separator.join(table) if header is None else header]
    for row in zip(*table.values(), strict=True):
        cells = [
            str(int(value)) if name == "frame" else f"{value:.{digits}f}"
            for name, value in zip(table, row, strict=True)
        ]
        rows.append(separator.join(cell.replace(".", point) for cell in cells))
    return rows


def table(rows=None, *, name="found.csv", encoding="utf-8", end="\n", change=None):
    """A CSV file of these lines; `change(rows)` edits them, or the bytes of the file if it returns bytes."""

    def made(folder):
        text = lines() if rows is None else list(rows)
        text = text if change is None else change(text)
        data = text if isinstance(text, bytes) else (end.join(text) + end).encode(encoding)
        (folder / name).write_bytes(data)
        return folder / name

    return made


def with_row(number, new):
    """Another line `number` (the header is 0); a function is given the old one."""

    def change(rows):
        rows[number] = new(rows[number]) if callable(new) else new
        return rows

    return change


def add(name, make, may, **more):
    """A CSV case, tracked."""
    csv.add(name, make, may, tracked=True, **more)


def shuffled(rows):
    """The rows in no order."""
    order = np.random.default_rng(3).permutation(len(rows) - 1) + 1
    return [rows[0], *(rows[k] for k in order)]


depth = columns() | {
    "z_um": np.full(72, 2.5),
    "brightness": np.full(72, 150.0),
    "confidence": np.full(72, 0.9),
}
for name, make in {
    "as it is": table(),
    "with depth, brightness, confidence": table(lines(depth)),
    "columns in another order": table(lines({key: columns()[key] for key in ("y_um", "frame", "x_um")})),
    "columns that nobody asked for": table(lines(columns() | {"mass": np.ones(72), "size": np.ones(72)})),
    "lines end with CR LF": table(end="\r\n"),
    "a byte order mark": table(encoding="utf-8-sig"),
    "no newline at the end": table(change=lambda rows: "\n".join(rows).encode()),
    "empty lines at the end": table(change=lambda rows: [*rows, "", "", ""]),
    "an empty line in the middle": table(change=lambda rows: [*rows[:20], "", *rows[20:]]),
    "quotes around all": table(
        change=lambda rows: [",".join(f'"{cell}"' for cell in row.split(",")) for row in rows]
    ),
    "spaces behind the commas": table(change=lambda rows: [row.replace(",", ", ") for row in rows]),
    "an index before": table(
        change=lambda rows: ["," + rows[0], *(f"{k},{row}" for k, row in enumerate(rows[1:]))]
    ),
    "from the last frame to the first": table(change=lambda rows: [rows[0], *rows[:0:-1]]),
    "rows in no order": table(change=shuffled),
    "frames as 3.0": table(change=lambda rows: [rows[0], *(row.replace(",", ".0,", 1) for row in rows[1:])]),
    "numbers as 1e+01": table(
        change=lambda rows: [
            rows[0],
            *(
                ",".join([row.split(",")[0], *(f"{float(cell):.6e}" for cell in row.split(",")[1:])])
                for row in rows[1:]
            ),
        ]
    ),
    "frames from 1": table(lines(columns() | {"frame": columns()["frame"] + 1})),
    "frames from 1000": table(lines(columns() | {"frame": columns()["frame"] + 1000})),
    "a suffix in capitals": table(name="FOUND.CSV"),
    "an unknown column in Latin-1 written as UTF-8": table(lines(columns() | {"größe_µm": np.ones(72)})),
}.items():
    add(name, make, ONLY_RIGHT)

# other dialects
german = lines(separator=";", point=",")
for name, make in {
    "semicolons": table(lines(separator=";")),
    "semicolons and decimal commas": table(german),
    "tabs": table(lines(separator="\t")),
    "tabs and decimal commas": table(lines(separator="\t", point=",")),
    "spaces for commas": table(lines(separator=" ")),
    "Latin-1 with a mu": table(lines(columns() | {"size_µm": np.ones(72)}), encoding="latin-1"),
    "semicolons in Latin-1": table(
        lines(columns() | {"Größe": np.ones(72)}, separator=";", point=","), encoding="latin-1"
    ),
    "UTF-16": table(encoding="utf-16"),
    "UTF-16 without a mark": table(encoding="utf-16-le"),
    "lines end with CR": table(end="\r"),
    "a line sep=; first": table(change=lambda rows: ["sep=;", *german]),
    "remarks before the header": table(change=lambda rows: ["# made by somebody", "# at 20 frames/s", *rows]),
    "columns in capitals": table(change=with_row(0, "FRAME,X_UM,Y_UM")),
    "columns with units in brackets": table(change=with_row(0, "frame,x [um],y [um]")),
    "columns with a mu": table(change=with_row(0, "frame,x_µm,y_µm")),
    "x and y in nm": table(
        lines(
            {"frame": columns()["frame"]} | {f"{axis} [nm]": 1e3 * columns()[f"{axis}_um"] for axis in "xy"},
            header="frame,x [nm],y [nm]",
        )
    ),
    "suffix .txt": table(name="found.txt"),
    "suffix .tsv": table(lines(separator="\t"), name="found.tsv"),
}.items():
    add(name, make, NEVER_WRONG)
pixels = {"frame": columns()["frame"], "y": columns()["y_um"] / PIXEL_UM, "x": columns()["x_um"] / PIXEL_UM}
add(
    "trackpy's columns, in pixels",
    table(lines({"y": pixels["y"], "x": pixels["x"], "mass": np.ones(72), "frame": pixels["frame"]})),
    SAID_OR_REFUSED,
    words="pixel|x_um|column",
)
add("columns x and y without a unit", table(lines(pixels)), SAID_OR_REFUSED, words="pixel|x_um|column")
add(
    "columns x_px and y_px",
    table(lines({"frame": pixels["frame"], "x_px": pixels["x"], "y_px": pixels["y"]})),
    SAID_OR_REFUSED,
    words="pixel|px|x_um|column",
)


def trackmate(header_rows=4, unit="micron"):
    """The spots table that TrackMate exports: four header lines, names in capitals."""
    names = [
        "LABEL",
        "ID",
        "TRACK_ID",
        "QUALITY",
        "POSITION_X",
        "POSITION_Y",
        "POSITION_Z",
        "POSITION_T",
        "FRAME",
        "RADIUS",
    ]
    scale = {"micron": 1.0, "pixel": 1 / PIXEL_UM}[unit]
    heads = [
        ",".join(names),
        "Label,Spot ID,Track ID,Quality,X,Y,Z,T,Frame,Radius",
        "Label,Spot ID,Track ID,Quality,X,Y,Z,T,Frame,R",
        f",,,(quality),({unit}),({unit}),({unit}),(sec),,({unit})",
    ]
    table = columns()
    rows = [
        f"ID{k},{k},{k % 6},10.0,{scale * x:.4f},{scale * y:.4f},0.0,{frame / 20:.3f},{frame},2.5"
        for k, (frame, x, y) in enumerate(zip(table["frame"], table["x_um"], table["y_um"], strict=True))
    ]
    return [*heads[:header_rows], *rows]


add("TrackMate's spots", table(trackmate()), NEVER_WRONG)
add(
    "TrackMate's spots, one header line",
    table(trackmate(1)),
    NEVER_WRONG,
    words="unit|um|column|TrackMate|POSITION",
)
add("TrackMate's spots in pixels", table(trackmate(unit="pixel")), SAID_OR_REFUSED, words="pixel|column")
storm = {
    "id": np.arange(72), "frame": columns()["frame"] + 1,
    "x [nm]": 1e3 * columns()["x_um"], "y [nm]": 1e3 * columns()["y_um"],
    "sigma [nm]": np.full(72, 130.0), "intensity [photon]": np.full(72, 900.0),
}  # fmt: skip
add("ThunderSTORM's table", table(lines(storm, header=",".join(f'"{name}"' for name in storm))), NEVER_WRONG)

# what is missing, doubled, or no number
add("no y", table(lines({key: columns()[key] for key in ("frame", "x_um")})), ONLY_REFUSED, words="y_um")
add("no frame", table(lines({key: columns()[key] for key in ("x_um", "y_um")})), ONLY_REFUSED, words="frame")
add("no header", table(change=lambda rows: rows[1:]), ONLY_REFUSED, words="column|header")
add(
    "the header once more in the middle",
    table(change=lambda rows: [*rows[:30], rows[0], *rows[30:]]),
    SAID_OR_REFUSED,
)
add("the header last", table(change=lambda rows: [*rows[1:], rows[0]]), ONLY_REFUSED)
add(
    "x_um twice, the same",
    table(change=lambda rows: [f"{row},{row.split(',')[1]}" for row in rows]),
    NEVER_WRONG,
)
add(
    "x_um twice, the second first",
    table(lines(columns() | {"other": np.ones(72)}, header="frame,x_um,y_um,x_um")),
    NEVER_WRONG,
)
add(
    "x_um twice, the wrong one first",
    table(
        lines(
            {
                "frame": columns()["frame"],
                "other": np.ones(72),
                "y_um": columns()["y_um"],
                "x_um": columns()["x_um"],
            },
            header="frame,x_um,y_um,x_um",
        )
    ),
    SAID_OR_REFUSED,
    words="x_um|twice|column",
)
for value in (
    "",
    "NaN",
    "nan",
    "inf",
    "-inf",
    "null",
    "NA",
    "1,5",
    "abc",
    "1.2.3",
    "0x1F",
    "1_000",
    "--",
    "1e999",
    "12 um",
    "#N/A",
):
    add(
        f"one x is '{value}'",
        table(
            change=with_row(30, lambda row, value=value: f"{row.split(',')[0]},{value},{row.split(',')[2]}")
        ),
        SAID_OR_REFUSED,
        words="line 31|x_um|fields",
    )
for value in ("", "-1", "2.5", "1e12", "nan", "two", "1e400", "99999999999999999999"):
    add(
        f"one frame is '{value}'",
        table(change=with_row(30, lambda row, value=value: f"{value},{row.split(',', 1)[1]}")),
        SAID_OR_REFUSED,
        words="line 31|frame",
    )
add(
    "one frame is far away",
    table(change=with_row(72, lambda row: f"3000000,{row.split(',', 1)[1]}")),
    SAID_OR_REFUSED,
    words="frame",
)
add(
    "a row is too short",
    table(change=with_row(30, lambda row: row.rsplit(",", 1)[0])),
    SAID_OR_REFUSED,
    words="line 31",
)
add("a row is too long", table(change=with_row(30, lambda row: f"{row},7,8")), NEVER_WRONG)
add(
    "all rows are longer than the header",
    table(change=lambda rows: [rows[0], *(f"{k},{row}" for k, row in enumerate(rows[1:]))]),
    SAID_OR_REFUSED,
    words="fields|column|header|line|x_um|frame",
)
add(
    "the last row is cut",
    table(change=lambda rows: "\n".join(rows)[:-9].encode()),
    SAID_OR_REFUSED,
    words="line 73",
)
add("a quote is not closed", table(change=with_row(30, lambda row: '"' + row)), SAID_OR_REFUSED)
add(
    "NUL bytes",
    table(change=lambda rows: "\n".join(rows).encode().replace(b"\n3,", b"\n\0\0,", 1)),
    SAID_OR_REFUSED,
)
add(
    "NUL bytes behind the end",
    table(change=lambda rows: ("\n".join(rows) + "\n").encode() + bytes(4096)),
    SAID_OR_REFUSED,
)
add("only a header", table(change=lambda rows: rows[:1]), ONLY_REFUSED, words="no detections|empty|rows")
add("nothing", table(change=lambda rows: b""), ONLY_REFUSED)
add("only newlines", table(change=lambda rows: b"\n\n\n\n"), ONLY_REFUSED)
add("a picture", table(change=lambda rows: b"\x89PNG\r\n\x1a\n" + bytes(range(256))), ONLY_REFUSED)
add(
    "a spreadsheet named .csv",
    table(change=lambda rows: b"PK\3\4\x14\0\6\0\x08\0" + bytes(range(256)) * 4),
    ONLY_REFUSED,
)
add("a header of 10 MB", table(change=lambda rows: b"x" * 10_000_000), ONLY_REFUSED)
add("a field of 1 MB", table(change=with_row(30, lambda row: row + "1" * 1_000_000)), NEVER_WRONG)
add(
    "a thousand digits",
    table(change=with_row(30, lambda row: f"{row.split(',')[0]},{'9' * 1000},3.0")),
    SAID_OR_REFUSED,
)


def as_parquet(changes=None, *, drop=(), **how):
    """The table as Parquet with other columns."""

    def made(folder):
        values = {key: value for key, value in (columns() | (changes or {})).items() if key not in drop}
        parquet.write_table(pa.table(values), folder / "found.parquet", **how)
        return folder / "found.parquet"

    return made


def padd(name, make, may, **more):
    """A Parquet case, tracked."""
    arrow.add(name, make, may, tracked=True, **more)


some = columns()["x_um"].tolist()
padd("as it is", as_parquet(), ONLY_RIGHT)
padd("Zstandard", as_parquet(compression="zstd"), ONLY_RIGHT)
padd("float32", as_parquet({"x_um": columns()["x_um"].astype("float32")}), ONLY_RIGHT)
padd("frames as uint8", as_parquet({"frame": columns()["frame"].astype("uint8")}), ONLY_RIGHT)
padd("frames as float", as_parquet({"frame": columns()["frame"].astype(float)}), ONLY_RIGHT)
padd("small row groups", as_parquet(row_group_size=10), ONLY_RIGHT)
padd(
    "from the last frame to the first",
    as_parquet({key: value[::-1] for key, value in columns().items()}),
    ONLY_RIGHT,
)
padd("numbers as text", as_parquet({"x_um": [str(value) for value in some]}), NEVER_WRONG)
padd("one x is empty", as_parquet({"x_um": [*some[:5], None, *some[6:]]}), SAID_OR_REFUSED, words="x_um")
padd(
    "one x is NaN", as_parquet({"x_um": [*some[:5], float("nan"), *some[6:]]}), SAID_OR_REFUSED, words="x_um"
)
padd(
    "one frame is empty",
    as_parquet({"frame": [0, None, *columns()["frame"][2:].tolist()]}),
    SAID_OR_REFUSED,
    words="frame",
)
padd("frames are dates", as_parquet({"frame": pa.array(columns()["frame"], pa.timestamp("ms"))}), NEVER_WRONG)
padd("x is words", as_parquet({"x_um": ["here"] * 72}), ONLY_REFUSED)
padd("x is lists", as_parquet({"x_um": [[value] for value in some]}), ONLY_REFUSED)
padd("no y", as_parquet(drop=["y_um"]), ONLY_REFUSED, words="y_um")
padd("no rows", as_parquet({key: value[:0] for key, value in columns().items()}), ONLY_REFUSED)
padd("the magic number is flipped", flipped(as_parquet(), 1), NEVER_WRONG)
padd("the footer is flipped", flipped(as_parquet(), -40), NEVER_WRONG)
padd("the footer claims 2 GB", poked(as_parquet(), -8, b"\xff\xff\xff\x7f"), ONLY_REFUSED, claims=True)
padd("it is a CSV", renamed(table(), "found.parquet"), ONLY_REFUSED)
for where, keep in {"to 3 bytes": 3, "to a half": 0.5, "by one byte": -1}.items():
    padd(f"cut {where}", cut(as_parquet(), keep), ONLY_REFUSED)


def as_h5(changes=None, *, drop=(), also=None, **how):
    """The table as HDF5, one dataset a column."""

    def made(folder):
        with h5py.File(folder / "found.h5", "w") as file:
            for key, value in (columns() | (changes or {})).items():
                if key not in drop:
                    file.create_dataset(key, data=value, **how)
            if also is not None:
                also(file)
        return folder / "found.h5"

    return made


def hadd(name, make, may, **more):
    """An HDF5 case, tracked."""
    h5.add(name, make, may, tracked=True, **more)


def unwritten(shape):
    """Columns of which nothing was ever written."""

    def also(file):
        for key in columns():
            file.create_dataset(key, shape, "f8", chunks=(1000,))

    return as_h5(drop=tuple(columns()), also=also)


hadd("as it is", as_h5(), ONLY_RIGHT)
hadd("gzip", as_h5(compression="gzip"), ONLY_RIGHT)
hadd("big-endian", as_h5({"x_um": columns()["x_um"].astype(">f8")}), ONLY_RIGHT)
hadd("frames as float", as_h5({"frame": columns()["frame"].astype(float)}), ONLY_RIGHT)
hadd(
    "another dataset beside them",
    as_h5(also=lambda file: file.create_dataset("image", data=np.zeros((4, 4)))),
    ONLY_RIGHT,
)
hadd("columns of different lengths", as_h5({"x_um": columns()["x_um"][:-1]}), ONLY_REFUSED, words="length")
hadd(
    "columns of two axes", as_h5({key: value[:, None] for key, value in columns().items()}), RIGHT_OR_REFUSED
)
hadd("x is text", as_h5({"x_um": [b"1.0"] * 72}), NEVER_WRONG)
hadd("x is a group", as_h5(drop=["x_um"], also=lambda file: file.create_group("x_um")), ONLY_REFUSED)
hadd("x is one number", as_h5({"x_um": 3.0}), ONLY_REFUSED)
hadd(
    "one x is NaN",
    as_h5({"x_um": np.where(np.arange(72) == 5, np.nan, columns()["x_um"])}),
    SAID_OR_REFUSED,
    words="x_um",
)
hadd(
    "one frame is -1",
    as_h5({"frame": np.where(np.arange(72) == 5, -1, columns()["frame"])}),
    SAID_OR_REFUSED,
    words="frame",
)
hadd("no y", as_h5(drop=["y_um"]), ONLY_REFUSED)
hadd("no rows", as_h5({key: value[:0] for key, value in columns().items()}), ONLY_REFUSED)
hadd(
    "x is a link to nothing",
    as_h5(drop=["x_um"], also=lambda file: file.__setitem__("x_um", h5py.SoftLink("/gone"))),
    ONLY_REFUSED,
)
hadd("a million million rows claimed", unwritten((10**12,)), ONLY_REFUSED, claims=True)
hadd("a thousand million rows claimed", unwritten((10**9,)), ONLY_REFUSED, claims=True)
hadd(
    "records, as pandas writes them",
    as_h5(
        drop=tuple(columns()),
        also=lambda file: file.create_dataset(
            "df/table", data=np.zeros(72, [("index", "i8"), ("values", "f8", (3,))])
        ),
    ),
    ONLY_REFUSED,
)
for where, keep in {"to 5 bytes": 5, "to a half": 0.5, "by 40 bytes": -40}.items():
    hadd(f"cut {where}", cut(as_h5(), keep), ONLY_REFUSED)
all_cases = [*csv.all, *arrow.all, *h5.all]
