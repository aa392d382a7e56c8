"""`import liveptv` gives in Python what the command line gives, and says clearly what it cannot use."""

import inspect
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile

import liveptv
from liveptv.cli.main import run_command_line

RATE_HZ = 20.0
SHAPE = (160, 200)
PIXEL_UM = 0.8


@pytest.fixture(scope="module")
def truth():
    """Twelve particles that drift along x."""
    rng = np.random.default_rng(5)
    x, y, z = rng.uniform([10, 10, -90], [140, 110, 90], (12, 3)).T
    frames = [
        pd.DataFrame({"frame": t, "particle": np.arange(12), "x_um": x + 0.75 * t, "y_um": y, "z_um": z})
        for t in range(8)
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def images(truth):
    return liveptv.simulate(truth, SHAPE, seed=1)


@pytest.fixture(scope="module")
def found(images):
    return liveptv.detect(images, liveptv.SHIPPED_MODEL)


@pytest.fixture
def video(images, tmp_path):
    path = tmp_path / "video.tif"
    tifffile.imwrite(
        path,
        images,
        imagej=True,
        metadata={"axes": "TYX", "finterval": 1 / RATE_HZ, "unit": "um"},
        resolution=(1 / PIXEL_UM, 1 / PIXEL_UM),
    )
    return path


def test_simulated_particles_are_found_where_they_are(found, truth):
    for frame, here in truth.groupby("frame"):
        mine = found[found.frame == frame]
        apart = np.hypot(
            mine.x_um.to_numpy()[:, None] - here.x_um.to_numpy(),
            mine.y_um.to_numpy()[:, None] - here.y_um.to_numpy(),
        )
        nearest = apart.argmin(axis=0)
        close = apart.min(axis=0) < 1.0
        assert close.sum() >= 9  # of 12, of which some overlap
        assert np.median(np.abs(mine.z_um.to_numpy()[nearest] - here.z_um)[close]) < 5.0


def test_a_table_of_detections_is_that_of_the_command_line(found, video, tmp_path):
    table = tmp_path / "found.csv"
    assert run_command_line(["detect", str(video), "-m", str(liveptv.SHIPPED_MODEL), "-o", str(table)]) == 0
    expected = pd.read_csv(table)
    assert list(found.columns) == list(expected.columns)
    assert np.array_equal(found.frame, expected.frame)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3, equal_nan=True)


def test_an_array_a_path_and_a_recording_give_the_same(images, video):
    settings = {"diameter_px": 15, "polarity": "dark", "pixel_size_um": PIXEL_UM}
    by_array = liveptv.detect(images, **settings)
    with liveptv.read_recording(video) as recording:
        by_recording = liveptv.detect(recording, **settings)
    pd.testing.assert_frame_equal(by_array, by_recording)
    pd.testing.assert_frame_equal(by_array, liveptv.detect(str(video), **settings))
    assert by_array.z_um.isna().all()  # in 2D


def test_a_file_without_a_pixel_size_has_that_of_the_model(images, found, tmp_path, caplog):
    bare = tmp_path / "bare.tif"
    tifffile.imwrite(bare, images, metadata=None)
    pd.testing.assert_frame_equal(liveptv.detect(bare, liveptv.SHIPPED_MODEL), found)
    assert "bare.tif: " in caplog.text  # what was assumed is said


def test_one_image_is_a_recording_of_one_frame(images):
    one = liveptv.detect(images[3], diameter_px=15, polarity="dark")
    assert len(one) >= 5
    assert set(one.frame) == {0}


@pytest.mark.parametrize(
    ("give", "settings", "match"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), {}, r"\(H, W\) or \(T, H, W\), not of shape \(2, 3, 4, 5\)"),
        (np.zeros((2, 32, 32), np.uint8), {"diametre_px": 9}, "diametre_px"),
        (np.full((2, 32, 32), 0.5), {}, "float64 pixels"),
        (np.zeros((2, 32, 32), np.uint8), {"model": "none.onnx"}, "none.onnx"),
    ],
)
def test_what_cannot_be_detected_in_is_refused_with_the_reason(give, settings, match):
    with pytest.raises(liveptv.LivePTVError, match=match):
        liveptv.detect(give, **settings)


def test_trajectories_are_those_of_the_command_line(found, tmp_path):
    table, tracks = tmp_path / "found.csv", tmp_path / "tracks.h5"
    found.to_csv(table, index=False)
    assert run_command_line(["track", str(table), "-o", str(tracks), "--frame-rate", str(RATE_HZ)]) == 0
    pd.testing.assert_frame_equal(
        liveptv.track(found, RATE_HZ), liveptv.open_trajectories(tracks).to_pandas()
    )


def test_a_drift_is_measured_as_a_velocity(found):
    tracks = liveptv.track(found, RATE_HZ)
    long = tracks.groupby("track").filter(lambda rows: len(rows) >= 6)
    speed = long.groupby("track").apply(lambda rows: np.polyfit(rows.time_s, rows.x_um, 1)[0])
    assert len(speed) >= 8
    assert np.median(speed) == pytest.approx(0.75 * RATE_HZ, rel=0.03)


def test_the_order_of_rows_and_further_columns_do_not_matter(found):
    shuffled = found.assign(note="mine").sample(frac=1.0, random_state=1)
    first, second = liveptv.track(found, RATE_HZ), liveptv.track(shuffled, RATE_HZ)
    assert first.track.nunique() == second.track.nunique()
    assert np.allclose(np.sort(first.x_um), np.sort(second.x_um))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.rename(columns={"x_um": "x"}), "no column 'x_um'; it has frame, x, "),
        (lambda t: t.assign(frame=t.frame + 0.5), "whole numbers"),
        (lambda t: t.assign(y_um="left"), "'y_um' must hold numbers"),
        (lambda t: t.assign(x_um=t.x_um.where(t.index != 4)), "'x_um' is not finite in row 4"),
        (lambda t: t.iloc[:0], "has no detections"),
    ],
)
def test_a_table_that_cannot_be_tracked_is_refused_with_the_reason(found, change, match):
    with pytest.raises(liveptv.LivePTVError, match=match):
        liveptv.track(change(found), RATE_HZ)


def test_a_trajectory_file_is_kept_where_asked_and_not_replaced(found, tmp_path):
    kept = tmp_path / "kept.h5"
    rows = liveptv.track(found, RATE_HZ, output=kept)
    view = liveptv.open_trajectories(kept)
    pd.testing.assert_frame_equal(rows, view.to_pandas())
    assert view.finished
    frames = view.frames()
    assert list(frames.frame) == list(range(8))
    assert np.allclose(frames.time_s, np.arange(8) / RATE_HZ)
    assert len(view.to_pandas(flagged=True, predicted=True)) >= len(rows)
    with pytest.raises(liveptv.LivePTVError, match="exists"):
        liveptv.track(found, RATE_HZ, output=kept)
    liveptv.track(found, RATE_HZ, output=kept, overwrite=True)


def test_as_xarray_each_column_has_its_unit(found, tmp_path):
    pytest.importorskip("xarray")
    kept = tmp_path / "kept.h5"
    rows = liveptv.track(found, RATE_HZ, output=kept)
    dataset = liveptv.open_trajectories(kept).to_xarray()
    assert dataset.sizes == {"row": len(rows)}
    assert dataset.vx_um_s.attrs["units"] == "um/s"
    assert set(dataset.coords) == {"track", "frame", "time_s"}
    assert np.array_equal(dataset.z_um, rows.z_um)


def test_a_missing_library_is_named_with_what_to_install(found, tmp_path, monkeypatch):
    kept = tmp_path / "kept.h5"
    liveptv.track(found, RATE_HZ, output=kept)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(liveptv.LivePTVError, match="pip install xarray"):
        liveptv.open_trajectories(kept).to_xarray()


def test_a_recording_is_read_by_index_and_in_order(video, images):
    with liveptv.read_recording(video) as recording:
        assert recording.shape == images.shape
        assert recording.pixel_size_um == pytest.approx(PIXEL_UM)
        assert recording.frame_rate_hz == pytest.approx(RATE_HZ)
        assert np.array_equal(recording[-1], images[-1])
        assert np.array_equal(recording[2:5], images[2:5])
        assert all(np.array_equal(a, b) for a, b in zip(recording, images, strict=True))
        assert [frame.info.time_s for frame in recording.frames()] == pytest.approx(np.arange(8) / RATE_HZ)
        with pytest.raises(IndexError):
            recording[len(images)]


def test_a_recording_that_is_not_there_is_an_error_of_one_line(tmp_path):
    with pytest.raises(liveptv.LivePTVError, match="there is no recording"):
        liveptv.read_recording(tmp_path / "none.tif")


def test_a_calibration_gives_depth_to_a_detection(tmp_path):
    focus = np.repeat(np.arange(-120.0, 121.0, 4.0), 2)
    x, y = (values.ravel() for values in np.meshgrid([40.0, 110.0, 180.0], [40.0, 110.0]))
    rows = [pd.DataFrame({"frame": n, "x_um": x, "y_um": y, "z_um": -f}) for n, f in enumerate(focus)]
    scan = tmp_path / "scan.tif"
    images = liveptv.simulate(pd.concat(rows), (190, 280), snr=15.0)
    tifffile.imwrite(scan, images, imagej=True, metadata={"axes": "ZYX"})
    steps = []
    found = liveptv.calibrate(
        scan,
        tmp_path / "calibration.h5",
        z_step_um=4.0,
        repeats=2,
        pixel_size_um=PIXEL_UM,
        on_progress=lambda step, part: steps.append(step),
    )
    assert found.particles.used.sum() >= 4
    apart_um = abs(found.focal_planes.xz_um - found.focal_planes.yz_um)
    assert apart_um == pytest.approx(150.0, abs=25.0)
    assert "reading" in steps
    depth = liveptv.detect(images[20], tmp_path / "calibration.h5", pixel_size_um=PIXEL_UM)
    assert depth.z_um.notna().any()
    with pytest.raises(liveptv.LivePTVError, match="exists"):
        liveptv.calibrate(scan, tmp_path / "calibration.h5", z_step_um=4.0, pixel_size_um=PIXEL_UM)


def test_a_run_of_a_recording_leaves_its_files_and_says_how_it_ended(video, tmp_path):
    settings = {
        "recording": {"path": str(video)},
        "detector": {"diameter_px": 15, "polarity": "dark"},
        "session": {"mode": "threads"},
        "link": {"transport": "inproc"},
    }
    shown = []
    ended = liveptv.run(settings, tmp_path / "run.h5", on_progress=shown.append)
    assert ended.ok, ended.failures
    assert (ended.frames, ended.frames_lost) == (8, 0)
    assert ended.report is not None
    assert "<html" in ended.report.read_text(encoding="utf-8")
    assert ended.trajectories().to_pandas().frame.max() == 7
    assert shown


def test_settings_are_checked_before_anything_starts(tmp_path):
    with pytest.raises(liveptv.LivePTVError, match="hang"):
        liveptv.experiment({"session": {"hang": 3}})
    with pytest.raises(liveptv.LivePTVError, match="no experiment file"):
        liveptv.run(tmp_path / "none.toml", tmp_path / "run.h5")


def test_importing_liveptv_loads_nothing_heavy():
    code = (
        "import sys, liveptv; print(sorted({'numpy', 'pandas', 'numba', 'h5py', 'zmq'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in liveptv.__all__ if name[0].islower()])
def test_what_is_public_is_documented_and_typed(name):
    function = getattr(liveptv, name)
    text = inspect.getdoc(function) or ""
    assert len(text.splitlines()[0]) > 20
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'detekt'"):
        liveptv.detekt  # noqa: B018
    assert dir(liveptv) == sorted(liveptv.__all__)
