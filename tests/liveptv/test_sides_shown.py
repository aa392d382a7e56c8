"""Where images alone leave the side of focus open, the page and the report say how sure it is; else nothing."""

import math

import numpy as np
import pytest
from page_runs import info_of

from liveptv.files import RunFiles
from liveptv.monitor.run_view import RunView
from liveptv.reports.facts import facts
from liveptv.reports.page import write_report
from liveptv.reports.profile import flow_profile
from liveptv.reports.sides import Sides, sides_of
from stream.messages import StageState, Status, TrackFlag, Tracks
from tracking.trajectories.annotation import annotate
from tracking.trajectories.file import TrajectoryWriter, read_trajectories

PARTICLES = 40
TWO = 10
FRAMES = 20
DECIDED_IN = 12
SIGMAS = [name for name in Tracks.COLUMNS if name.startswith("sigma")]


def frame_of(number: int, *, two: int = TWO, predicted: int = 0) -> Tracks:
    """40 particles; the first ten have two depths. Eight of them are decided from frame 12 on, two never.

    In frame 12 it turns out that the first had been on the wrong side.
    """
    index = np.arange(PARTICLES, dtype=float)
    has_two = index < two
    p_side = np.where(has_two, 0.6, math.nan)
    noise = np.random.default_rng(number).normal(0, 0.2, (3, PARTICLES))
    z_um = np.where(has_two, 8.0, index) + noise[2]
    if number >= DECIDED_IN:
        p_side[: min(two, 8)] = 0.99
        z_um[:1] *= -1
    flags = np.where(index >= PARTICLES - predicted, int(TrackFlag.PREDICTED), 0)
    return Tracks.from_columns(
        info_of(number), track=index, x_um=5 + index + number + noise[0], y_um=10 * index + noise[1], z_um=z_um,
        **dict.fromkeys(("vx_um_s", "vy_um_s", "vz_um_s"), 50.0), **dict.fromkeys(SIGMAS, 0.5),
        detection=np.where(flags, -1, index),
        z_other_um=np.where(has_two, -z_um, math.nan), p_side=p_side, flags=flags,
        revised=np.where((index == 0) & has_two & (number == DECIDED_IN), DECIDED_IN, math.nan),
    )  # fmt: skip


@pytest.fixture
def files(tmp_path):
    def write(**options):
        found = RunFiles.within(tmp_path)
        with TrajectoryWriter(found.tracks, run_id="r", attributes={"image_shape": [400, 400]}) as file:
            for number in range(FRAMES):
                file.append(frame_of(number, **options))
            file.finalize({}, "done")
        return found

    return write


def view(**options) -> RunView:
    run = RunView()
    for number in range(FRAMES):
        run.take(frame_of(number, **options))
    run.take(Status("r", "track", StageState.RUNNING, {"revised": 1}, {}))
    return run


def test_of_a_run_each_particle_counts_once_and_as_its_track_ended(files):
    found = sides_of(read_trajectories(files().tracks))
    assert (found.particles, found.two, found.sure, found.changes) == (PARTICLES, TWO, 8, 1)
    assert found.p_side == pytest.approx((8 * 0.99 + 2 * 0.6) / TWO, abs=2e-3)  # the file keeps 7 bits


def test_changes_of_mind_that_were_taken_back_are_counted_by_the_tracker(files):
    made = files()
    annotate(made.tracks, {"accounts": {"track": {"revised": 3}}})
    assert sides_of(read_trajectories(made.tracks)).changes == 3


def test_the_report_says_how_sure_the_sides_are(files):
    made = files()
    write_report(made)
    page = made.report.read_text("utf-8")
    said = page[page.index("Side of focus</h2>") :]
    assert "10 of 40 particles (25 %) could be on either side of focus" in said
    assert "8 of them are decided" in said
    assert "8.9 % of the chosen sides are expected to be wrong" in said
    assert "changed its mind once" in said
    trajectories = read_trajectories(made.tracks)
    named = {row["name"]: row["value"] for row in facts(trajectories, flow_profile(trajectories))}
    assert named["side of focus"].startswith("91.1 % sure")


def test_the_page_says_it_of_the_last_ten_seconds():
    said = view().summary()["sides"]
    assert said.startswith("10 of 40 particles (25 %)")
    sure = 8 * (FRAMES - DECIDED_IN) / FRAMES
    assert f"{sure:.2g} of them are decided" in said
    assert "changed its mind once" in said


def test_predicted_particles_have_no_image_that_could_be_open():
    assert view(predicted=30).summary()["sides"].startswith("10 of 10 particles (100 %)")


def test_a_clock_that_is_set_back_does_not_keep_what_was_before():
    run = RunView()
    for number in (*range(1000, 1000 + FRAMES), *range(FRAMES)):
        run.take(frame_of(number, two=TWO if number < FRAMES else 40))
    assert run.summary()["sides"].startswith("10 of 40 particles (25 %)")


def test_where_no_image_leaves_the_side_open_nothing_is_shown(files):
    made = files(two=0)
    write_report(made)
    assert sides_of(read_trajectories(made.tracks)) is None
    assert "ide of focus" not in made.report.read_text("utf-8")
    assert view(two=0).summary()["sides"] == ""
    assert RunView().summary()["sides"] == ""


@pytest.mark.parametrize(("changes", "said"), [(0, "not changed its mind"), (4, "changed its mind 4 times")])
def test_how_often_the_tracker_changed_its_mind_is_said(changes, said):
    assert said in Sides(1000, 3, 3, 0.999, changes).in_words()
    assert "3 of 1000 particles (0.3 %)" in Sides(1000, 3, 3, 0.999, changes).in_words()
