import json
import re
from itertools import pairwise

import numpy as np
import pandas
import pytest
from figure_contents import drawn, panels  # noqa: F401
from matplotlib.figure import Figure

from calibration.evaluation import DISTANCE_BINS_UM
from calibration.matching import match_tables
from liveptv.cli import run_command_line
from liveptv.reports.depth_figures import recall_over_depth
from liveptv.reports.neighbour_figures import false_by_distance, missed_by_distance
from liveptv.reports.standard_error_figures import pulls_histogram


@pytest.fixture
def tables(tmp_path):
    """Ten frames of 200 particles, and detections: every tenth missed, every fiftieth twice, errors as stated."""
    rng = np.random.default_rng(0)
    count = 2000
    truth = pandas.DataFrame(
        {
            "frame": np.repeat(np.arange(10), 200),
            "x_um": rng.uniform(0, 1000, count),
            "y_um": rng.uniform(0, 600, count),
            "z_um": rng.uniform(-100, 100, count),
        }
    )
    found = truth.copy()
    for axis, sigma in (("x", 0.1), ("y", 0.2), ("z", 2.0)):
        found[f"{axis}_um"] += rng.normal(0, sigma, count)
        found[f"sigma_{axis}_um"] = sigma
    twice = found.iloc[5::50].assign(x_um=found.x_um + 5)
    found = pandas.concat([found[np.arange(count) % 10 != 0], twice])
    return truth, found


@pytest.fixture
def files(tmp_path, tables):
    return written(tmp_path, *tables)


def written(folder, truth, found):
    paths = folder / "truth.csv", folder / "found.csv"
    for table, path in zip((truth, found), paths, strict=True):
        table.to_csv(path, index=False)
    return paths


def evaluate(files, *options):
    truth, found = files
    return run_command_line(["evaluate", "--truth", str(truth), "--found", str(found), *map(str, options)])


def page_of(files, *options):
    """The text of the page that the command writes, without its pictures."""
    page = files[0].with_name("page.html")
    assert evaluate(files, "-o", page, *options) == 0
    return re.sub(r"base64,[^\"]*", "", page.read_text("utf-8"))


def test_the_page_is_one_file_with_the_scores_and_the_figures(tmp_path, files, capsys):
    text = page_of(files)
    assert "written to" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "page.html", "truth.csv"]
    assert text.count("data:image/png;") == 2 * 4  # light and dark
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "10 frames, 2000 true particles, 1840 detections" in text
    assert "<b>10.00 %</b><span>missed (1 - recall)</span>" in text
    assert "<b>2.17 %</b><span>false (1 - precision)</span>" in text
    assert "<b>100 %</b><span>of the depth range covered</span>" in text
    assert 'class="trouble"' not in text
    assert "by true depth" in text


def test_a_page_is_not_replaced_unasked_and_no_table_ever(files, capsys):
    page = files[0].with_name("page.html")
    page.write_text("mine")
    assert evaluate(files, "-o", page) == 1
    assert "exists" in capsys.readouterr().err
    assert page.read_text() == "mine"
    assert "<table>" in page_of(files, "--overwrite")
    before = files[0].read_bytes()
    assert evaluate(files, "-o", files[0], "--overwrite") == 2
    assert "must end in .html" in capsys.readouterr().err
    assert files[0].read_bytes() == before


def test_particles_without_depth_and_stated_errors_have_a_page_without_them(tmp_path, tables):
    truth, found = tables
    text = page_of(written(tmp_path, truth[["frame", "x_um", "y_um"]], found[["frame", "x_um", "y_um"]]))
    assert text.count("data:image/png;") == 2
    assert "rms z" not in text
    assert "within 4 µm in the plane</p>" in text


def test_tables_with_other_origins_are_told_from_a_bad_detector(tmp_path, tables):
    truth, found = tables
    assert "z is off by +9" in page_of(written(tmp_path, truth, found.assign(z_um=found.z_um + 9)))
    far = written(tmp_path, truth, found.assign(x_um=found.x_um + 5000))
    assert "No detection is near a true particle" in page_of(far, "--overwrite")


def test_trajectories_are_scored_on_the_page_too(tmp_path, tables):
    truth, found = tables
    named = [table.assign(track=np.arange(len(table)) % 200) for table in (truth, found.iloc[:1800])]
    text = page_of(written(tmp_path, *named))
    assert "<h2>Trajectories</h2>" in text
    assert "precision of the links" in text


def test_what_is_printed_fits_a_terminal_of_eighty_columns(files, capsys):
    assert evaluate(files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1] == "10.0 % missed (recall 0.9000), 2.2 % false (precision 0.9783)"
    said = next(line.split() for line in lines if line.startswith("all "))
    assert said[1:4] == ["2000", "10.0", "%"]
    np.testing.assert_allclose([float(value) for value in said[4:7]], [0.1, 0.2, 2.0], rtol=0.1)
    np.testing.assert_allclose([float(value) for value in said[7:]], 1.0, rtol=0.1)
    assert lines[-1].startswith("100 % of the depths from -100 to 100 um covered")


def test_without_a_truth_or_detections_no_rate_is_made_up(tmp_path, tables, capsys):
    truth, found = tables
    assert evaluate(written(tmp_path, truth, found[found.frame < 0])) == 0
    assert "100.0 % missed (recall 0.0000), - false (precision -)" in capsys.readouterr().out
    assert evaluate(written(tmp_path, truth[truth.frame < 0], found), "-o", tmp_path / "page.html") == 0
    assert "- missed (recall -), 100.0 % false (precision 0.0000)" in capsys.readouterr().out


def test_json_stays_json_when_a_page_is_written(tmp_path, files, capsys, drawn):  # noqa: F811
    assert evaluate(files, "--json", "-o", tmp_path / "page.html") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["depth_covered"] == 1.0
    assert sum(part["particles"] for part in scores["by_depth"]) == 2000
    assert scores["errors"]["z"]["calibration_robust"] == pytest.approx(1.0, rel=0.1)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 2 * len(drawn) > 0  # light and dark
    assert all(panel.x_label and (panel.lines or panel.bars.size) for f in drawn for panel in panels(f))


def test_figures_show_the_numbers_that_the_tables_have(tables):
    truth, found = (table.to_dict("list") for table in tables)
    matched = match_tables(truth, found)
    axes = Figure().subplots(2, 2)
    missed_by_distance(axes[0, 0], matched, DISTANCE_BINS_UM)
    lone = matched.neighbour_um >= 28
    assert axes[0, 0].patches[-1].get_height() == pytest.approx(100 * (~matched.found[lone]).mean())
    recall_over_depth(axes[0, 1], matched, np.linspace(-100, 100, 5))
    assert np.mean(axes[0, 1].lines[0].get_ydata()) == pytest.approx(90, abs=1)
    false_by_distance(axes[1, 0], matched, DISTANCE_BINS_UM)
    heights = [bar.get_height() for bar in axes[1, 0].patches]
    assert sum(heights) == matched.false_um.size == 40
    assert len(heights) == len(list(pairwise(DISTANCE_BINS_UM)))
    pulls_histogram(axes[1, 1], matched, "z")
    density, edges, _ = axes[1, 1].patches[0].get_data()
    assert (density * np.diff(edges)).sum() == pytest.approx(1)
