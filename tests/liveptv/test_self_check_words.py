from hypothesis import given
from hypothesis import strategies as st

from engines.selfcheck.gauges import gauges_of
from liveptv.session.self_check import checks_of, in_words

FACTS = {
    "changes": {"separation": [-7.41, 0.42], "turned": [0.02, 0.05]},
    "wider_px2": [0.01, None, 1.35, 0, 0, 0, 0, 0, 0],
    "chi_square_field": [1.0] * 9,
    "chi_square_depth": [1.0, 1.1, 1.2, 1.1, 1.0],
    "light": 0.8,
    "brightness": [0.81, 0.01],
    "dust_px": [[3, 4]],
}
TRACKS = {
    "check_focus_drift_um": 2.93,
    "check_focus_drift_error_um": 0.21,
    "check_scatter_x": 1.02,
    "check_scatter_z": 1.53,
    "check_widened_z": 1.53,
    "check_cut_in_two": 0.041,
    "particles": 60.0,
}


def test_what_both_stages_report_is_said_in_words():
    rows = {row["name"]: row["value"] for row in in_words(checks_of([gauges_of(FACTS), TRACKS]))}
    assert rows["focal planes, apart since the calibration"] == "-7.4 ± 0.4 µm"
    assert rows["blur beside the calibration's, by region"].startswith("+0.01 ? +1.35 / ")
    assert rows["light since the beginning"] == "80 %"
    assert rows["focus drift since the beginning"] == "+2.9 ± 0.2 µm"
    assert rows["scatter along tracks over stated error, x, y, z"] == (
        "1.02, ?, 1.53; stated errors widened: z by 1.53"
    )
    assert rows["particles seen twice"] == "4.1 %"
    assert rows["places with dust"] == "1"


@given(st.sets(st.sampled_from(sorted({**gauges_of(FACTS), **TRACKS}))))
def test_what_is_not_known_is_left_out(names):
    known = {name: value for name, value in {**gauges_of(FACTS), **TRACKS}.items() if name in names}
    rows = in_words(checks_of([known]))
    assert all(row["value"] for row in rows)
    assert not names & {name for name in known if name.startswith("check_")} or len(rows) <= len(names)


def test_a_run_without_checks_has_no_rows():
    assert in_words(checks_of([{"particles": 3.0}, {}])) == []
