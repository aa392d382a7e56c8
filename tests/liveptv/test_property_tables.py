"""Properties of particles go through tables of detections, data frames, and what other programs read of tracks."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import zarr

from liveptv.api.dataframes import detection_table, detections_frame
from liveptv.tables import DetectionTableWriter, iter_detections, read_detection_table
from stream.messages import Detections, FrameInfo, Properties, Tracks
from tracking.export.convert import export
from tracking.trajectories.file import TrajectoryWriter


def info(frame: int) -> FrameInfo:
    return FrameInfo("run", frame, frame, 0.1 * frame, 0, 0.0)


def found(frame: int, count: int = 3, known: bool = True) -> Detections:
    table = Detections.from_columns(info(frame), x_um=np.arange(count), y_um=1.0, z_um=2.0, brightness=5.0)
    if not known:
        return table
    sizes = Properties.from_columns(
        {
            "radius_um": 0.1 + 0.123456 * np.arange(count),
            "sigma_radius_um": 0.01,
            "refractive_index": np.full(count, np.nan),
            "sigma_refractive_index": np.nan,
        },
        count,
    )
    return replace(table, properties=sizes)


def tracks(frame: int) -> Tracks:
    rows = Tracks.from_columns(
        info(frame), track=[0, 1], x_um=[1.0, 2.0], y_um=1.0, z_um=0.5, flags=0, detection=[0, 1],
        vx_um_s=0.0, vy_um_s=0.0, vz_um_s=0.0,
    )  # fmt: skip
    mean = Properties.from_columns({"radius_um": [0.25, 0.5], "sigma_radius_um": [0.01, np.nan]}, 2)
    return replace(rows, properties=mean, detected=replace(mean, values=mean.values + 0.125))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".h5"])
def test_a_table_of_detections_keeps_properties_also_where_they_begin_late(tmp_path, suffix):
    path = tmp_path / f"found{suffix}"
    given = [found(0, known=False), found(1), found(2, 2)]
    with DetectionTableWriter(path) as writer:
        for one in given:
            writer.append(one)
            writer._write()  # as if each frame filled a block
    table = read_detection_table(path)
    assert table.properties.names[0] == "radius_um"
    back = list(iter_detections(table, 10.0, "run"))
    assert np.isnan(back[0].properties.value("radius_um")).all()
    for one, again in zip(given[1:], back[1:], strict=True):
        for of in ("value", "error"):
            np.testing.assert_allclose(
                getattr(again.properties, of)("radius_um"),
                getattr(one.properties, of)("radius_um"),
                rtol=1e-6,
            )


def test_the_unit_of_a_property_is_in_the_table(tmp_path):
    for suffix in (".parquet", ".h5"):
        with DetectionTableWriter(tmp_path / f"found{suffix}") as writer:
            writer.append(found(0))
    field = pyarrow.parquet.read_schema(tmp_path / "found.parquet").field("radius_um")
    assert field.metadata == {b"unit": b"um"}
    with h5py.File(tmp_path / "found.h5") as file:
        assert file["sigma_radius_um"].attrs["unit"] == "um"
        assert file["refractive_index"].attrs["unit"] == "1"


def test_a_data_frame_of_detections_has_them_and_gives_them_to_the_tracker():
    frame = detections_frame([found(0), found(1, known=False)])
    assert frame["radius_um"].isna().tolist() == [False] * 3 + [True] * 3
    table = detection_table(frame.sample(frac=1.0, random_state=0))
    assert "radius_um" in table.properties
    first = next(iter_detections(table, 10.0, "run"))
    np.testing.assert_allclose(np.sort(first.properties.value("radius_um")), found(0).properties.values[0])


def test_a_column_without_a_standard_error_is_somebody_elses():
    table = detection_table(pd.DataFrame({"frame": [0], "x_um": [1.0], "y_um": [1.0], "mass": [7.0]}))
    assert table.properties.names == ()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tracks.h5"
    with TrajectoryWriter(path, run_id="run", attributes={"pixel_size_um": 0.5}) as writer:
        for frame in range(4):
            writer.append(tracks(frame))
        writer.finalize({}, "done")
    return path


def test_tables_of_tracks_have_the_mean_and_what_each_detection_said(file, tmp_path):
    export(file, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as text:
        row = next(csv.DictReader(text))
    assert (row["radius_um"], row["sigma_radius_um"], row["detected_radius_um"]) == (
        "0.25",
        "0.01000977",
        "0.375",
    )
    export(file, tmp_path / "out.parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "out.parquet")
    assert schema.field("radius_um").metadata == {b"unit": b"um"}


def test_other_programs_get_them_where_their_format_has_room(file, tmp_path):
    export(file, tmp_path / "out.geff")
    group = zarr.open_group(tmp_path / "out.geff", mode="r")
    np.testing.assert_allclose(group["nodes/props/radius_um/values"][:], [0.25, 0.5] * 4)
    facts = group.attrs["geff"]["node_props_metadata"]["radius_um"]
    assert facts["unit"] == "micrometer"
    export(file, tmp_path / "out.xml")
    text = (tmp_path / "out.xml").read_text()
    assert 'feature="RADIUS_UM"' in text
    assert 'RADIUS_UM="0.25"' in text
    export(file, tmp_path / "out.vtp")
    assert b'Name="radius_um"' in (tmp_path / "out.vtp").read_bytes()
    assert json.loads(json.dumps(facts))["name"] == "radius_um"
