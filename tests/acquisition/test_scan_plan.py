import math
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from useq import MDASequence

from acquisition.scan.plan import approach_um, end_um, plan_scan, planned_images, planned_positions
from acquisition.settings import LimitsSettings, ScanSettings
from stream.errors import ConfigurationError

FREE = LimitsSettings()
micrometres = st.floats(-5000, 5000).map(lambda value: round(value, 3))
steps = st.floats(0.05, 50).map(lambda value: round(value, 3))


@settings(deadline=None)
@given(start=micrometres, stop=micrometres, step=steps, images=st.integers(1, 10))
def test_the_plan_covers_the_range_with_the_step_and_never_leaves_it(start, stop, step, images):
    assume(abs(stop - start) / step < 300)
    wanted = ScanSettings(start_um=start, stop_um=stop, step_um=step, images=images)
    plan = plan_scan(wanted, FREE, 0.0)
    positions = planned_positions(plan)
    down = stop < start
    assert positions[0] == start
    for before, after in pairwise(positions):
        assert after - before == pytest.approx(-step if down else step, abs=1e-6)
    assert min(start, stop) - 1e-4 <= min(positions)
    assert max(positions) <= max(start, stop) + 1e-4
    assert abs(stop - positions[-1]) < step
    events = list(plan)
    assert len(events) == len(positions) * images == len(positions) * planned_images(plan)
    assert [event.z_pos for event in events] == [z for z in positions for _ in range(images)]


@given(range_um=st.floats(0.1, 2000), step=steps, focus=micrometres)
def test_a_range_is_centred_on_where_the_focus_is(range_um, step, focus):
    assume(range_um / step < 300)
    plan = plan_scan(ScanSettings(range_um=range_um, step_um=step), FREE, focus)
    positions = planned_positions(plan)
    assert (positions[0] + positions[-1]) / 2 == pytest.approx(focus, abs=1e-6)
    assert range_um - step < positions[-1] - positions[0] + 1e-3
    assert positions[-1] - positions[0] < range_um + 1e-3


def test_the_plan_is_one_that_other_programs_read():
    plan = plan_scan(ScanSettings(start_um=0, stop_um=9), FREE, 0.0)
    again = MDASequence.model_validate_json(plan.model_dump_json(exclude_unset=True))
    assert planned_positions(again) == [0, 3, 6, 9]
    assert planned_images(again) == 4


def test_the_papers_scan_has_120_planes_of_4_images():
    plan = plan_scan(ScanSettings(start_um=0, stop_um=357), FREE, 0.0)
    assert (len(planned_positions(plan)), planned_images(plan)) == (120, 4)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"start_um": 0},
        {"start_um": 0, "stop_um": 1, "range_um": 3},
        {"range_um": 3, "stop_um": 1},
        {"range_um": 30, "tolerance_um": 2},
        {"range_um": 30, "step_um": 0},
        {"range_um": 30, "references": ["grey"]},
    ],
)
def test_settings_that_contradict_each_other_are_refused(values):
    with pytest.raises(ValidationError):
        ScanSettings(**values)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"start_um": 0, "stop_um": 60}, r"the scan goes to 51 um.*0 to 50"),
        ({"start_um": 0, "stop_um": 30, "backlash_um": 5}, r"the approach goes to -5 um"),
        ({"start_um": 30, "stop_um": 0, "end_um": 70}, r"the safe end goes to 70 um.*scan\.end_um"),
    ],
)
def test_a_scan_that_would_leave_the_limits_is_refused_before_anything_moves(values, what):
    with pytest.raises(ConfigurationError, match=what):
        plan_scan(ScanSettings(**values), LimitsSettings(min_focus_um=0, max_focus_um=50), 10.0)


def test_a_scan_of_millions_of_planes_is_a_mistake():
    with pytest.raises(ConfigurationError, match="step_um"):
        plan_scan(ScanSettings(range_um=1e6, step_um=0.01), FREE, 0.0)


def test_a_range_around_a_focus_that_nobody_knows_is_refused():
    with pytest.raises(ConfigurationError, match="range_um"):
        plan_scan(ScanSettings(range_um=30), FREE, math.nan)


@pytest.mark.parametrize(("start", "stop", "expected"), [(0, 30, -4), (30, 0, 34)])
def test_planes_are_approached_in_the_direction_of_the_scan(start, stop, expected):
    settings = ScanSettings(start_um=start, stop_um=stop, backlash_um=4)
    positions = planned_positions(plan_scan(settings, FREE, 0.0))
    assert approach_um(settings, positions, 0) == expected


def test_the_safe_end_is_the_scans_then_the_experiments_then_where_the_focus_was():
    safe = LimitsSettings(safe_focus_um=7, min_focus_um=0, max_focus_um=50)
    assert end_um(ScanSettings(range_um=3), FREE, 12.5) == 12.5
    assert end_um(ScanSettings(range_um=3), safe, 12.5) == 7
    assert end_um(ScanSettings(range_um=3, end_um=0), safe, 12.5) == 0
