"""Random trajectory files, their way through another format and back, and the comparison of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from trajectory_files import tracks, write

from stream.messages import TrackFlag
from tracking.export import export
from tracking.imports import Assumed, read_foreign, recognise, write_foreign
from tracking.trajectories.file import read_trajectories

PREDICTED, SECOND, TENTATIVE, REDUCED = (
    TrackFlag.PREDICTED,
    TrackFlag.SECOND_DETECTION,
    TrackFlag.TENTATIVE,
    TrackFlag.REDUCED,
)
FORMATS = {
    "geff": ("t.geff", None),
    "trackmate": ("t.xml", None),
    "vtp": ("t.vtp", None),
    "flowtracks h5": ("f.h5", "flowtracks"),
    "flowtracks zarr": ("f.zarr", "flowtracks"),
}
MEASURED = (
    "sigma_x_um", "sigma_y_um", "sigma_z_um", "vx_um_s", "vy_um_s", "vz_um_s", "sigma_vx_um_s", "sigma_vy_um_s",
    "sigma_vz_um_s", "brightness", "confidence", "z_other_um", "p_side", "kind", "p_kind",
)  # fmt: skip

number = st.floats(-5e3, 5e3, allow_nan=False, width=32)
probability = st.one_of(st.just(float("nan")), st.floats(0, 1, width=32))
flags = st.sampled_from([0, 0, 0, PREDICTED, SECOND, TENTATIVE, REDUCED, PREDICTED | TENTATIVE])


@st.composite
def some_tracks(draw):
    """Tracks of some frames, with gaps, in any state; what is known differs from file to file and row to row."""
    known = draw(st.sets(st.sampled_from(MEASURED)))
    depth = draw(st.sampled_from(["all", "some", "no"]))
    found = []
    for frame in sorted(draw(st.sets(st.integers(0, 9), min_size=1, max_size=5))):
        numbers = draw(st.lists(st.integers(0, 6), unique=True, max_size=4))
        each = {"min_size": len(numbers), "max_size": len(numbers)}
        columns = {name: draw(st.lists(number, **each)) for name in ("x_um", "y_um", "z_um")}
        if depth != "all":
            hidden = [depth == "no" or draw(st.booleans()) for _ in numbers]
            columns["z_um"] = np.where(hidden, np.nan, columns["z_um"])
        for name in known:
            if name == "kind":
                columns[name] = [draw(st.sampled_from([np.nan, 0, 1, 2])) for _ in numbers]
            else:
                columns[name] = draw(st.lists(probability, **each))
        own = draw(st.lists(flags, **each))
        columns["detection"] = np.where(np.array(own, int) & PREDICTED, -1, np.arange(len(own)))
        found.append(tracks(frame, numbers, own, **columns))
    return found


def everything(path: Path):
    """All rows of a file, whether they count or not."""
    return read_trajectories(path, include_predicted=True, include_flagged=True)


def there(path: Path, name: str, **options):
    """The file in another format, with all of its rows."""
    file, to = FORMATS[name]
    output = path.with_name(file)
    export(path, output, to=to, overwrite=True, include_predicted=True, include_flagged=True, **options)
    return output


def back(path: Path, output: Path | None = None, assumed: Assumed | None = None):
    """Another program's file as a trajectory file: its path, and the report."""
    output = output or path.with_name("back.h5")
    assumed = assumed or Assumed()
    found = read_foreign(path, recognise(path), assumed)
    report = write_foreign(found, path, output, run_id="imported", assumed=assumed, overwrite=True)
    return output, report


def written(folder: Path, frames, attributes=None) -> Path:
    """A trajectory file of these tracks."""
    path = folder / "tracks.h5"
    path.unlink(missing_ok=True)
    return write(path, frames, attributes)


def differing(path: Path, other: Path) -> list[str]:
    """The columns in which two files differ; rows are compared by track and frame."""
    first, second = everything(path), everything(other)
    if len(first) != len(second):
        return [f"{len(first)} and {len(second)} rows"]
    a, b = (np.lexsort((t.track, t.frame)) for t in (first, second))
    names = [name for name in first.columns().keys() | second.columns().keys() if name != "revised"]
    return [
        name
        for name in names
        if not np.array_equal(getattr(first, name)[a], getattr(second, name)[b], equal_nan=True)
    ]
