"""Results of the Python interface are tables, and draw themselves with units on their axes."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tifffile
from test_flow_command import FLOOR_UM, channel_file

import liveptv
from liveptv.cli.main import run_command_line
from liveptv.workflows.train import Trained

matplotlib.use("Agg")

SHAPE = (96, 160)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def truth():
    """Four bright particles in two dimensions that drift along x."""
    x, y = np.array([15.0, 50.0, 85.0, 110.0]), np.array([15.0, 55.0, 30.0, 60.0])
    frames = [pd.DataFrame({"frame": t, "x_um": x + 0.8 * t, "y_um": y, "z_um": 0.0}) for t in range(6)]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def images(truth):
    return liveptv.simulate(truth, SHAPE, snr=20.0)


@pytest.fixture(scope="module")
def found(images):
    return liveptv.detect(images, diameter_px=15, polarity="dark", pixel_size_um=0.8)


@pytest.fixture
def channel(tmp_path):
    return channel_file(tmp_path / "tracks.h5", tracks=120)


def labels(axes):
    return axes.get_xlabel(), axes.get_ylabel()


PLANE = ("x (µm)", "y (µm)")


def test_simulated_images_are_an_array_with_a_scale(images):
    axes = images.plot(3)
    assert labels(axes) == PLANE
    assert axes.get_xlim() == pytest.approx((-0.4, 160 * 0.8 - 0.4))
    assert axes.get_ylim() == pytest.approx((96 * 0.8 - 0.4, -0.4))  # y points down, as in the image
    assert type(images - 1) is np.ndarray
    assert isinstance(images.max(), np.uint8)
    assert images[2].pixel_size_um == 0.8
    again = pickle.loads(pickle.dumps(images))
    assert again.pixel_size_um == 0.8
    assert np.array_equal(again, images)
    with pytest.raises(liveptv.LivePTVError, match="there are 6, from frame 0"):
        images.plot(6)


def test_images_become_an_xarray_with_places_in_um(images):
    pytest.importorskip("xarray")
    array = images.to_xarray()
    assert array.dims == ("frame", "y", "x")
    assert float(array.x[-1]) == pytest.approx(159 * 0.8)


def test_detections_are_drawn_where_they_are_in_the_image(found, images):
    _, given = plt.subplots()
    axes = found.plot(images, frame=2, axes=given)
    assert axes is given
    assert labels(axes) == PLANE
    drawn = axes.collections[0].get_offsets()
    here = found[found.frame == 2]
    assert np.allclose(np.asarray(drawn), here[["x_um", "y_um"]])
    assert "4 particles" in axes.get_title()
    assert len(found.plot().images) == 0


def test_the_tables_are_those_of_pandas(found):
    some = found[found.frame < 2]
    assert isinstance(some, liveptv.DetectionFrame)
    assert some.attrs["pixel_size_um"] == 0.8
    assert found.plot(x="x_um", y="y_um", kind="scatter").get_xlabel() == "x_um"
    assert found.plot.scatter("x_um", "y_um").get_ylabel() == "y_um"
    assert found[["brightness"]].plot() is not None  # without positions it is pandas' plot
    assert isinstance(found.groupby("frame").size(), pd.Series)


def test_a_circle_needs_the_size_of_a_pixel(found, images):
    bare = liveptv.DetectionFrame(pd.DataFrame(found).reset_index(drop=True))
    bare.attrs.clear()
    with pytest.raises(liveptv.LivePTVError, match="give pixel_size_um"):
        bare.plot(np.asarray(images))
    assert bare.plot(np.asarray(images), pixel_size_um=0.8) is not None


def test_trajectories_are_coloured_by_what_is_asked_for(found):
    tracks = liveptv.track(found, 20.0)
    axes = tracks.plot()
    assert labels(axes) == PLANE
    assert axes.yaxis_inverted()
    assert axes.get_aspect() == 1.0
    values = np.asarray(axes.collections[0].get_array())
    assert len(values) == tracks.track.nunique()
    assert np.median(values) == pytest.approx(0.8 * 20.0, rel=0.1)
    assert tracks.plot("time").collections[0].get_array().max() < 0.3
    assert tracks.plot("depth").collections[0].get_array() is None  # in 2D no depth is known
    with pytest.raises(liveptv.LivePTVError, match="not 'size'"):
        tracks.plot("size")
    with pytest.raises(liveptv.LivePTVError, match="no column 'vx_um_s'"):
        tracks.drop(columns="vx_um_s").plot()
    with pytest.raises(liveptv.LivePTVError, match="nothing to draw"):
        tracks.iloc[:1].plot()


def test_scores_are_those_of_the_command_line(found, truth, tmp_path, capsys):
    scores = liveptv.evaluate(found, truth)
    assert scores.missed == 0
    assert list(scores.to_pandas().index) == ["x", "y"]
    assert "error of x (µm)" in labels(scores.plot())
    truth.to_csv(tmp_path / "truth.csv", index=False)
    found.to_csv(tmp_path / "found.csv", index=False)
    files = ["--truth", str(tmp_path / "truth.csv"), "--found", str(tmp_path / "found.csv")]
    assert run_command_line(["evaluate", *files, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["missed"] == scores.facts["missed"]
    assert printed["errors"]["x"]["rms_um"] == pytest.approx(scores.to_pandas().rms_um["x"], rel=1e-3)
    with pytest.raises(liveptv.LivePTVError, match="recall over depth needs"):
        scores.plot_recall()


def test_errors_and_recall_are_drawn_over_depth(truth):
    rng = np.random.default_rng(0)
    true = pd.DataFrame(
        {"frame": np.repeat(np.arange(30), 4), "x_um": np.tile([0, 30, 60, 90], 30), "y_um": 5.0}
    )
    true["z_um"] = rng.uniform(-50, 50, len(true))
    seen = true.assign(z_um=true.z_um + rng.normal(0, 1, len(true)))[true.z_um < 25]
    scores = liveptv.evaluate(seen, true)
    assert scores.to_pandas().rms_um["z"] == pytest.approx(1.0, rel=0.25)
    assert labels(scores.plot()) == ("true depth z (µm)", "found minus true depth (µm)")
    recall = scores.plot_recall().lines[0].get_ydata()
    assert (recall[0], recall[-1]) == (100, 0)
    assert scores.by_depth().missed.iloc[-1] == 1


def test_the_flow_is_that_of_the_command_line(channel, capsys):
    found = liveptv.flow(channel, viscosity_mpa_s=1.0)
    assert run_command_line(["flow", str(channel), "--viscosity", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() == found.facts.keys()
    for name in ("flow_rate_ul_s", "pressure_gradient_pa_m"):
        assert printed[name] == pytest.approx(found.facts[name], rel=1e-3)
    table = found.to_pandas()
    assert table.value["floor_um"] == pytest.approx(FLOOR_UM, abs=4 * table.standard_error["floor_um"])
    assert {"flow_rate_ul_s", "wall_shear_mean_pa", "pressure_gradient_pa_m"} <= set(table.index)
    assert "set-point 0.0015" in repr(found)
    axes = found.plot()
    assert labels(axes) == ("velocity along the channel (µm/s)", "height above the floor (µm)")
    assert labels(found.plot_map()) == ("y from the middle (µm)", "height above the floor (µm)")


def test_the_flow_over_the_section_ends_at_its_walls(channel):
    pytest.importorskip("xarray")
    round_one = liveptv.flow(channel, "circle:100").to_xarray(points=21)
    assert np.isnan(round_one.velocity[0, 0])
    assert np.isfinite(round_one.velocity[10, 10])
    assert round_one.velocity.attrs["units"] == "um/s"


def test_a_trajectory_file_draws_its_profile_and_its_diffusion(channel):
    view = liveptv.open_trajectories(channel)
    table = view.profile().to_pandas()
    assert {"height_um", "velocity_um_s", "standard_error_um_s", "tracks"} == set(table.columns)
    assert labels(view.profile().plot()) == ("velocity along x (µm/s)", "height in the channel (µm)")
    assert labels(view.plot("depth")) == PLANE
    spread = liveptv.diffusion(channel)
    assert labels(spread.plot()) == ("height in the channel (µm)", "D (µm²/s)")
    axes = spread.plot_msd(lags=5)
    assert labels(axes) == ("lag (s)", "mean squared displacement (µm²)")
    drawn = axes.containers[0].lines[0].get_ydata()
    assert np.allclose(drawn, spread.msd(lags=5).x_um2)


def test_too_short_trajectories_have_no_profile(tmp_path):
    view = liveptv.open_trajectories(channel_file(tmp_path / "short.h5", tracks=5, frames=4))
    with pytest.raises(liveptv.LivePTVError, match="measure longer"):
        view.profile()


def test_a_training_shows_how_its_scores_went():
    scores = SimpleNamespace(evaluation=SimpleNamespace(missed=0.02, false=0.03))
    course = [
        {"trained_s": 60.0, "missed": 0.3, "false": 0.2},
        {"trained_s": 120.0, "missed": 0.02, "false": None},
    ]
    found = liveptv.Training(Trained(Path("model.onnx"), Path("model.report.html"), None, scores, course))
    assert repr(found) == "<Training model.onnx: 2.0 % missed, 3.0 % false>"
    axes = found.plot()
    assert labels(axes) == ("training time (min)", "missed, false (%)")
    assert np.allclose(axes.lines[0].get_xydata(), [[1, 30], [2, 2]])
    assert list(found.to_pandas().missed) == [0.3, 0.02]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"output": "model.h5"}, "must end in .onnx"),
        ({"size": "huge"}, "must be small or large"),
        ({"optics": "simulated", "learn": ["radius"]}, "belong to images"),
        ({}, "give either"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_the_reason(given, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(liveptv.LivePTVError, match=match):
        liveptv.train(**given)
    assert not list(tmp_path.glob("*.onnx"))


def test_a_calibration_shows_its_widths_and_its_beads(tmp_path):
    x_um, y_um = (axis.ravel() for axis in np.meshgrid([40.0, 110.0, 180.0], [40.0, 110.0]))
    places = pd.DataFrame({"x_um": x_um, "y_um": y_um})
    focus = np.repeat(np.arange(-120.0, 121.0, 6.0), 2)
    scan = pd.concat(places.assign(frame=n, z_um=-at) for n, at in enumerate(focus))
    images = liveptv.simulate(scan, (190, 280), snr=20.0)
    tifffile.imwrite(tmp_path / "scan.tif", images, imagej=True, metadata={"axes": "ZYX"})
    made = liveptv.calibrate(
        tmp_path / "scan.tif", tmp_path / "c.h5", z_step_um=6.0, repeats=2, pixel_size_um=0.8
    )
    again = liveptv.open_calibration(tmp_path / "c.h5")
    assert np.allclose(made.to_pandas(), again.to_pandas(), equal_nan=True)
    assert again.beads().used.sum() == 6
    assert labels(again.plot()) == ("depth z (µm)", "standard deviation (µm)")
    widths = again.to_pandas()
    narrow = widths.z_um[widths.sigma_x_um.idxmin()] - widths.z_um[widths.sigma_y_um.idxmin()]
    assert abs(narrow) == pytest.approx(150.0, abs=20.0)  # the focal lines of the simulated lens


def test_a_recording_shows_an_image_and_the_times_of_its_frames(images, tmp_path):
    path = tmp_path / "video.tif"
    tifffile.imwrite(path, np.asarray(images), imagej=True, metadata={"axes": "TYX", "finterval": 0.05})
    with liveptv.read_recording(path, pixel_size_um=0.8) as video:
        assert labels(video.plot(2)) == PLANE
        assert np.allclose(np.diff(video.to_pandas().time_s), 0.05)
