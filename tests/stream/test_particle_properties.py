"""Properties of particles: named, with standard errors, and beside the columns of every table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream.messages import NO_PROPERTIES, Detections, FrameInfo, Properties, Tracks
from stream.particle_properties import MOST_PROPERTIES, property_columns

INFO = FrameInfo("run", 0, 0, 0.0, 0, 0.0)
FOUND = Detections.from_columns(INFO, x_um=[1.0, 2.0, 3.0], y_um=0.0)
SIZES = Properties.from_columns({"radius_um": [0.1, 0.2, np.nan], "sigma_radius_um": 0.01}, 3)


def test_a_property_has_a_value_and_a_standard_error_for_each_particle() -> None:
    np.testing.assert_array_equal(SIZES.value("radius_um"), [0.1, 0.2, np.nan])
    np.testing.assert_array_equal(SIZES.error("radius_um"), [0.01, 0.01, 0.01])
    assert "radius_um" in SIZES
    assert len(SIZES) == 1


def test_a_standard_error_that_nobody_states_is_not_known() -> None:
    assert np.isnan(Properties.from_columns({"radius_um": [1.0]}, 1).errors).all()


def test_nothing_is_known_of_particles_by_default() -> None:
    assert FOUND.properties is NO_PROPERTIES
    assert Tracks.empty(INFO).property_columns() == {}


def test_the_columns_of_a_track_say_what_is_its_own_and_what_its_detection_said() -> None:
    tracks = replace(
        Tracks.from_columns(INFO, track=[0, 1, 2]),
        properties=SIZES,
        detected=Properties.unknown(SIZES.names, 3),
    )
    assert tuple(tracks.property_columns()) == property_columns(SIZES.names, Tracks.PREFIXES)
    assert [*tracks.property_columns()] == [
        "radius_um", "sigma_radius_um", "detected_radius_um", "sigma_detected_radius_um",
    ]  # fmt: skip


def test_some_particles_keep_their_properties() -> None:
    np.testing.assert_array_equal(SIZES.of([1, 0]).values, [[0.2, 0.1]])


@pytest.mark.parametrize(
    "name",
    ["", "Radius", "1st", "radius um", "r" * 41, "sigma_radius_um", "detected_radius_um", "größe", "a\n"],
)
def test_a_name_that_cannot_be_a_column_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a property"):
        Properties((name,), np.zeros((1, 2)), np.zeros((1, 2)))


@pytest.mark.parametrize("name", ["x_um", "kind", "track", "time_s", "frame", "p_side"])
def test_a_property_cannot_take_the_name_of_a_column(name: str) -> None:
    with pytest.raises(ValueError, match="tables have such a column"):
        replace(FOUND, properties=Properties.unknown((name,), 3))


def test_two_properties_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        Properties.unknown(("a", "a"), 2)


def test_more_properties_than_rows_can_carry_are_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        Properties.unknown([f"p{i}" for i in range(MOST_PROPERTIES + 1)], 2)


def test_properties_of_another_number_of_particles_are_refused() -> None:
    with pytest.raises(ValueError, match="properties of 3 particles in Detections of 2"):
        Detections.from_columns(INFO, x_um=[1, 2]).__class__(INFO, FOUND.table[:, :2], SIZES)


def test_values_and_errors_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="standard errors"):
        Properties(("a",), np.zeros((1, 2)), np.zeros((1, 3)))


def test_a_track_and_its_detection_have_the_same_properties() -> None:
    with pytest.raises(ValueError, match="two sets of names"):
        replace(Tracks.from_columns(INFO, track=[0, 1, 2]), properties=SIZES)


def test_asking_for_a_property_that_is_not_there_says_which_there_are() -> None:
    with pytest.raises(KeyError, match="no property 'mass' \\(there is: radius_um\\)"):
        SIZES.value("mass")
