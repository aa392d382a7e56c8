"""The messages: tables whose rows have names, and the numbers that must not be mixed up."""

from __future__ import annotations

import numpy as np
import pytest

from stream.messages import Command, CommandKind, Detections, FrameInfo, TrackFlag, Tracks

INFO = FrameInfo("run", 0, 0, 0.0, 0, 0.0)


def test_a_column_is_a_view_of_its_row_of_the_table() -> None:
    table = np.arange(45.0).reshape(15, 3)
    found = Detections(INFO, table)
    assert len(found) == 3
    np.testing.assert_array_equal(found.y_um, [3, 4, 5])
    assert np.shares_memory(found.confidence, table)
    assert Detections.COLUMNS[2] == "z_um"


def test_columns_left_out_are_nan() -> None:
    found = Detections.from_columns(INFO, x_um=[1, 2], brightness=7)
    np.testing.assert_array_equal(found.x_um, [1, 2])
    np.testing.assert_array_equal(found.brightness, [7, 7])
    assert np.isnan(found.z_um).all()


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match="no column"):
        Detections.from_columns(INFO, x=[1])


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        Detections.from_columns(INFO, x_um=[1, 2, 3], y_um=[1, 2])


@pytest.mark.parametrize("shape", [(14,), (13, 3), (3, 14), (14, 3, 1)])
def test_a_table_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        Detections(INFO, np.zeros(shape))


def test_a_frame_without_particles_has_an_empty_table() -> None:
    assert len(Tracks.empty(INFO)) == 0
    assert Tracks.empty(INFO).table.shape == (len(Tracks.COLUMNS), 0)


def test_detections_and_tracks_do_not_share_their_columns() -> None:
    assert Detections.COLUMNS[0] == "x_um"
    assert Tracks.COLUMNS[0] == "track"
    assert TrackFlag.PREDICTED | TrackFlag.SECOND_DETECTION == 3


def test_rows_count_that_are_confirmed_detected_and_of_one_particle() -> None:
    flags = list(range(16))
    counted = Tracks.from_columns(FrameInfo("run", 0, 0, 0.0, 0, 0.0), flags=np.array(flags, float)).counted
    assert [flag for flag in flags if counted[flag]] == [TrackFlag.NONE, TrackFlag.REDUCED]


def test_every_command_has_an_id_of_its_own() -> None:
    assert Command(CommandKind.STOP).command_id != Command(CommandKind.STOP).command_id


def test_flags_that_are_left_out_are_none() -> None:
    assert Detections.from_columns(INFO, x_um=[1, 2]).flags.tolist() == [0.0, 0.0]
    assert Tracks.from_columns(INFO, x_um=[1, 2]).flags.tolist() == [0.0, 0.0]
    assert Detections.COLUMNS[-1] == Tracks.COLUMNS[-1] == "flags"
