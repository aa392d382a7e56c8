import re
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from trajectory_files import tracks, write

from stream.messages import TrackFlag
from tracking.trajectories.file import TrajectoryWriter, read_trajectories
from tracking.trajectories.schema import FRAME_COLUMNS, MORE_COLUMNS, ROW_COLUMNS, ColumnSpec

TEXT = Path(__file__).parents[2].joinpath("docs", "files.md").read_text("utf-8")
OTHERS = ("xarray", "napari")
TENTATIVE, PREDICTED, SECOND_DETECTION = TrackFlag.TENTATIVE, TrackFlag.PREDICTED, TrackFlag.SECOND_DETECTION


def run_the_code(folder: Path, monkeypatch) -> dict:
    """Run the Python of the page in order, in a folder with a `tracks.h5`; returns its names.

    What needs a package that is not installed and not needed by us is left out.
    """
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        if all(find_spec(package) for package in OTHERS if f"import {package}\n" in block):
            exec(block, names)
    return names


def test_the_code_in_the_page_gives_what_the_reader_gives(tmp_path, monkeypatch):
    path = tmp_path / "tracks.h5"
    frames = [
        tracks(0, 4, [0, TENTATIVE, TENTATIVE, 0]),
        tracks(1, [0, 1, 3], [PREDICTED, 0, SECOND_DETECTION]),
        tracks(2, 0),
        tracks(4, [1, 0]),
    ]
    found = run_the_code(write(path, frames).parent, monkeypatch)
    expected = read_trajectories(path)
    assert len(found["rows"]) == 9
    assert found["table"]["particle"].tolist() == expected.track.tolist()
    assert found["table"]["frame"].tolist() == expected.frame.tolist()
    assert np.array_equal(found["table"]["x"], expected.x_um)


def test_the_code_in_the_page_reads_a_file_that_is_being_written(tmp_path, monkeypatch):
    with TrajectoryWriter(tmp_path / "tracks.h5", run_id="run", attributes={}) as writer:
        writer.append(tracks(0))
        writer.commit()
        writer.append(tracks(1))
        assert len(run_the_code(tmp_path, monkeypatch)["rows"]) == 3


@pytest.mark.parametrize("package", ["trackpy", *OTHERS])
def test_other_programs_get_the_trajectories_in_one_line(tmp_path, monkeypatch, package):
    pytest.importorskip(package)
    frames = [tracks(frame, z_um=5.0) for frame in range(4)]
    found = run_the_code(write(tmp_path / "tracks.h5", frames).parent, monkeypatch)
    if package == "trackpy":
        assert len(found["longer"]) == 12
    if package == "xarray":
        assert found["dataset"].sizes == {"row": 12}
        assert found["dataset"].x_um.values.tolist() == found["table"]["x"].tolist()
    if package == "napari":
        assert found["layer"].data[:5, :2].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0]]
        assert (found["layer"].data[:, 2] == 5.0).all()


@pytest.mark.parametrize(
    ("heading", "columns"),
    [("/tracks/rows", ROW_COLUMNS), ("/tracks/more", MORE_COLUMNS), ("/frames", FRAME_COLUMNS)],
)
def test_the_page_names_every_column_with_its_type_and_unit(heading: str, columns: tuple[ColumnSpec, ...]):
    section = TEXT.partition(f"### `{heading}`")[2].partition("\n### ")[0]
    named = {}
    for line in re.findall(r"^\| `.*", section, re.MULTILINE):
        names, types, unit = (cell.strip() for cell in line.split("|")[1:4])
        for name, kind in zip(re.findall(r"\w+", names), cycle(types.split(", "))):
            named[name] = (kind, unit)
    expected = {column.name: (np.dtype(column.dtype).name, column.unit.strip("1")) for column in columns}
    assert named == expected
