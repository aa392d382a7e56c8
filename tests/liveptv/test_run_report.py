"""The report of a finished run: what is in it, and that it draws it, in a browser where there is one."""

import base64
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from test_flow_results import simulated_file

from liveptv.files import RunFiles
from liveptv.reports.distributions import displacements_um, distributions
from liveptv.reports.drawings import MOST_POINTS, drawings
from liveptv.reports.facts import facts, not_fitted_in_words
from liveptv.reports.look import DARK, LIGHT, PAGE, dark, darkened, scripts
from liveptv.reports.page import SCRIPTS, write_report
from liveptv.reports.profile import flow_profile
from liveptv.reports.publishing import embedded
from liveptv.reports.run_figures import trajectory_figure
from liveptv.reports.run_tables import MOST_EVENTS, events_table, losses_in_words, stages_table, went_wrong
from liveptv.session.events import EventLog
from stream.messages import TrackFlag
from tracking.trajectories.annotation import annotate
from tracking.trajectories.file import read_trajectories
from tracking.trajectories.schema import FRAME

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    found = RunFiles.within(tmp_path_factory.mktemp("run"))
    simulated_file(found.tracks)
    with EventLog(found.events) as events:
        events.write("start", "run r")
        events.write("mark", "a note </script><b>of somebody's</b>")
        events.write("lost", "detect ended without reporting why (killed by SIGKILL)")
        events.write("wish", "page: set_flow 5: refused: outside the limits", accepted=False)
    write_report(found)
    return found


def test_the_report_is_one_file_that_asks_for_nothing(files):
    page = files.report.read_text("utf-8")
    assert not re.search(r'(?:src|href|srcset)="(?!data:)', page)
    assert not re.search(r"https?://", re.sub(r'xmlns="[^"]*"', "", page))
    assert "prefers-color-scheme: dark" in page
    assert "</script><b>" not in page


def test_the_report_says_what_happened_and_what_went_wrong(files):
    page = files.report.read_text("utf-8")
    wrong = page[page.index("What went wrong") : page.index("Every frame accounted for")]
    assert "killed by SIGKILL" in wrong
    assert "outside the limits" in wrong
    assert "a note" not in wrong
    assert "a note &lt;/script&gt;" in page[page.index("What happened") :]


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"reduced": 50}, "25.0 % of positions, for want of time"),
        ({"reduced": 50, "not_compiled": 50}, "25.0 % of positions, as the fit was still being compiled"),
        (
            {"reduced": 50, "not_compiled": 10},
            "25.0 % of positions: 5.0 % as the fit was still being compiled, 20.0 % for want of time",
        ),
    ],
)
def test_positions_that_were_not_fitted_are_said_with_the_reason(files, counts, says):
    found = read_trajectories(files.tracks)
    flags = found.flags.copy()
    flags[: len(found) // 4] |= np.uint8(TrackFlag.REDUCED)
    some = replace(found, flags=flags, attributes=found.attributes | {"accounts": {"detect": counts}})
    assert not_fitted_in_words(some) == says
    assert {"name": "not fitted", "value": says} in facts(some, flow_profile(some))


def test_nothing_is_said_of_less_than_half_a_percent_that_were_not_fitted(files):
    found = read_trajectories(files.tracks)
    flags = found.flags.copy()
    flags[: len(found) // 250] |= np.uint8(TrackFlag.REDUCED)
    assert not_fitted_in_words(found) == not_fitted_in_words(replace(found, flags=flags)) == ""


def test_the_drawings_are_the_trajectories(files):
    trajectories = read_trajectories(files.tracks)
    profile = flow_profile(trajectories)
    shown = drawings(trajectories, profile)
    field = shown["space"]
    points = np.frombuffer(base64.b64decode(field["points"]), "<f4").reshape(3, -1)
    assert sum(field["counts"]) == points.shape[1]
    assert max(field["counts"]) <= MOST_POINTS
    assert points[0].min() >= trajectories.x_um.min() - 1e-3
    assert points[2].max() <= np.nanmax(trajectories.z_um + trajectories.of_frame("focus_um")) + 1e-3
    assert len(shown["profile"]["height_um"]) == len(profile.measured.height_um)
    json.loads(embedded(shown))


def test_trajectories_of_a_program_that_tells_no_velocities_are_coloured_by_the_speed_from_their_ends(files):
    trajectories = read_trajectories(files.tracks)
    nowhere = np.full_like(trajectories.vx_um_s, np.nan)
    told, found = (
        np.asarray(trajectory_figure(each, depth=True).axes[0].collections[0].get_array())
        for each in (trajectories, replace(trajectories, vx_um_s=nowhere, vy_um_s=nowhere))
    )
    assert found == pytest.approx(told, rel=0.1)
    assert np.ptp(told) > 5.0


def test_displacements_are_velocities_times_the_time_between_frames(files):
    trajectories = read_trajectories(files.tracks)
    moved = displacements_um(trajectories, trajectories.z_um)
    frame_s = np.median(np.diff(trajectories.frames["time_s"]))
    speed = flow_profile(trajectories).tracks.velocity_um_s[0]
    assert np.median(moved[0]) / frame_s == pytest.approx(np.median(speed), rel=0.1)
    kinds = distributions(trajectories, flow_profile(trajectories))
    assert [one.title for one in kinds["displacement"]] == ["along x", "along y", "along z"]
    assert sum(kinds["velocity"][0].counts) == pytest.approx(speed.size, rel=0.02)


def test_a_report_is_made_of_a_run_without_depth_or_with_next_to_nothing_in_it(tmp_path):
    for name, options in {"flat": {"planar": True}, "few": {"frames": 20, "tracks": 2}}.items():
        (tmp_path / name).mkdir()
        files = RunFiles.within(tmp_path / name)
        simulated_file(files.tracks, **options)
        text = write_report(files).page.read_text("utf-8")
        assert "What went wrong" in text
        data = json.loads(re.search(r'id="drawings">(.*?)</script>', text, re.DOTALL)[1])
        assert data["histograms"]["depth"] == [] or name == "few"


def test_the_page_and_the_reports_share_their_colours_and_their_scripts():
    assert LIGHT.keys() == DARK.keys()
    text = scripts(SCRIPTS)
    assert "import " not in text
    assert not re.search(r"^export ", text, re.MULTILINE)
    for name in SCRIPTS:
        wanted = set(re.findall(r'from "\./(\w+)\.js"', (PAGE / f"{name}.js").read_text()))
        assert wanted <= set(SCRIPTS[: SCRIPTS.index(name)]), f"{name} comes before what it imports"


@given(st.tuples(*[st.floats(0, 1)] * 3))
def test_greys_are_turned_over_in_the_dark_and_other_colours_are_as_bright_or_brighter(rgb):
    grey = np.ptp(rgb) < 0.12
    light = float(np.array(rgb) @ (0.299, 0.587, 0.114))
    darkest = np.array(dark(rgb)[:3])
    if grey and light < 0.2:
        assert darkest.min() > 0.5
    if grey and light > 0.9:
        assert darkest.max() < 0.4
    if not grey:
        assert darkest @ (0.299, 0.587, 0.114) >= light - 0.01


def test_a_figure_in_the_dark_has_the_dark_pages_colours():
    figure = Figure()
    axes = figure.add_subplot()
    (line,) = axes.plot([0, 1], color=LIGHT["one"])
    (dots,) = axes.plot([0, 1], ".", color=LIGHT["ink"])
    shown = axes.pcolormesh(np.eye(2))
    before = shown.cmap.name
    darkened(figure)
    assert np.allclose(line.get_color()[:3], [int(DARK["one"][i : i + 2], 16) / 255 for i in (1, 3, 5)])
    assert min(dots.get_markerfacecolor()[:3]) > 0.5
    assert max(axes.get_facecolor()[:3]) < 0.3
    assert shown.cmap.name == before


def test_of_very_many_events_the_first_and_the_last_are_shown():
    events = [{"wall_s": float(i), "kind": "note", "text": str(i)} for i in range(1000)]
    rows = events_table(events, 0.0)
    assert len(rows) == MOST_EVENTS + 1
    assert (rows[0]["text"], rows[-1]["text"]) == ("0", "999")
    assert "800 more" in rows[MOST_EVENTS // 2]["text"]


def test_a_controller_that_failed_is_among_what_went_wrong_and_one_that_was_switched_is_not():
    failed = {"kind": "controller", "text": "controller mine failed on frame 7"}
    switched = {"kind": "controller", "text": "page asked for hold_flow", "on": True}
    assert went_wrong([failed, switched]) == ["controller mine failed on frame 7"]


def test_each_stage_is_a_row_with_what_it_lost():
    accounts = {"detect": {"received": 9, "dropped": 2, "left_out_no_fit": 3}, "acquire": {"sent": 11}}
    rows = stages_table({"accounts": accounts})
    assert [row["stage"] for row in rows] == ["acquire", "detect"]
    assert (rows[1]["dropped"], rows[1]["rest"]) == ("2", "left out no fit 3")


def entries(count):
    """The entries of the first frames of a file."""
    frames = np.zeros(count, FRAME)
    frames["frame"] = frames["camera_frame"] = np.arange(count)
    frames["age_ms"] = np.nan
    return frames


def test_how_old_the_results_were_is_said_with_the_losses():
    frames = entries(100)
    frames["age_ms"] = 48.0
    words = losses_in_words({"accounts": {"acquire": {"received": 100}, "write": {"received": 100}}}, frames)
    assert words == "No frame was lost. Results were 48 ms old (median), 48 ms (99 %)."


def test_frames_that_were_on_their_way_when_a_stage_was_lost_are_among_the_losses():
    accounts = {"acquire": {"received": 895, "to_detect.dropped": 2}, "write": {"received": 890}}
    words = losses_in_words({"accounts": accounts}, entries(890))
    assert words == (
        "The camera took 895 frames, 890 are in the file. "
        "Lost: 2 before the detector; 3 on their way when the run ended."
    )
    whole = {"acquire": {"received": 9}, "write": {"received": 9}}
    assert losses_in_words({"accounts": whole}, entries(9)) == "No frame was lost."


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_draws_the_report_without_asking_anybody(files):
    playwright = pytest.importorskip("playwright.sync_api")
    troubles, asked = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(color_scheme="dark")
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(files.report.as_uri())
        page.wait_for_timeout(300)
        drawn = page.evaluate(
            "() => [...document.querySelectorAll('canvas.chart')].map((c) => { const d = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; return d.filter((v, i) => i % 4 === 3 && v).length; })"
        )
        browser.close()
    assert not troubles
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert len(drawn) >= 9
    assert min(drawn) > 500


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (
            {"looks": 1, "last": "no term changes"},
            "looked at once, and nothing was proposed. Last: no term changes.",
        ),
        (
            {
                "looks": 3,
                "last": "as proposed before",
                "proposal": "recalibration proposed: focal planes ...",
            },
            "Recalibration proposed: focal planes .... (The run was looked at 3 times.)",
        ),
    ],
)
def test_a_recalibration_that_was_proposed_during_the_run_is_in_the_report(files, tmp_path, facts, says):
    other = RunFiles.within(tmp_path)
    shutil.copy(files.tracks, other.tracks)
    assert "Recalibration</h2>" not in files.report.read_text("utf-8")
    annotate(other.tracks, {"recalibration": facts})
    write_report(other)
    assert says in other.report.read_text("utf-8")
