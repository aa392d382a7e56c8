import csv
import json

import h5py
import numpy as np
import pytest
import tifffile
from figure_contents import drawn, panels  # noqa: F401
from pyarrow import parquet

from acquisition.physics.channel_flow import channel_velocity_um_s
from liveptv.cli import files as files_module
from liveptv.cli import run_command_line
from liveptv.cli.console import console
from liveptv.files import FIGURES
from liveptv.models import SHIPPED_MODEL
from liveptv.reports.profile import flow_profile
from tracking.trajectories.file import read_trajectories


def spots(count=20, shape=(96, 128), dark=True):
    """Frames with three particles that move 1, 2 and 3 pixels a frame to the right; (images, truth rows)."""
    rng = np.random.default_rng(2)
    row, column = np.indices(shape)
    images, truth = [], []
    for frame in range(count):
        light = np.full(shape, 120.0)
        for particle, y in enumerate((20.25, 48.5, 75.75)):
            x = 15.0 + (particle + 1) * frame
            blob = 60 * np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 2.5**2))
            light += -blob if dark else blob
            truth.append((frame, x * 0.5, y * 0.5))
        images.append(np.clip(np.round(light + rng.normal(0, 2, shape)), 0, 255).astype(np.uint8))
    return np.stack(images), truth


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "spots.ome.tif"
    images, _ = spots()
    meta = {"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "TimeIncrement": 0.1}
    tifffile.imwrite(path, images, ome=True, photometric="minisblack", metadata=meta)
    return path


def truth_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", "x_um", "y_um", "z_um"])
        writer.writerows([*row, "nan"] for row in rows)
    return path


def failure(capsys, *arguments):
    """The exit status and the one line that a failing command prints."""
    status = run_command_line([str(argument) for argument in arguments])
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ")
    assert "\n" not in err
    return status, err


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".h5"])
@pytest.mark.parametrize("dark", [True, False])
def test_detect_then_evaluate_finds_the_particles_where_they_are(tmp_path, capsys, suffix, dark):
    images, truth = spots(dark=dark)
    video = tmp_path / "spots.tif"
    tifffile.imwrite(video, images, photometric="minisblack")
    found = tmp_path / f"found{suffix}"
    assert run_command_line(["detect", str(video), "-o", str(found), "--pixel-size", "0.5"]) == 0
    table = truth_table(tmp_path / "truth.csv", truth)
    capsys.readouterr()
    assert run_command_line(["evaluate", "--truth", str(table), "--found", str(found), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["missed"], scores["false"]) == (0.0, 0.0)
    assert abs(scores["errors"]["x"]["bias_um"]) < 0.02
    assert scores["errors"]["x"]["rms_um"] < 0.05
    assert run_command_line(["evaluate", "--truth", str(table), "--found", str(found)]) == 0
    assert "0.0 % missed" in capsys.readouterr().out


def test_where_images_do_not_say_how_large_a_pixel_is_it_is_the_models_and_said_so(tmp_path, capsys):
    images, _ = spots(dark=True)
    video, found = tmp_path / "spots.tif", tmp_path / "found.csv"
    tifffile.imwrite(video, images, photometric="minisblack")
    plain = ["--set", "detector.refine=false", "--overwrite"]
    assert run_command_line(["detect", str(video), "-m", str(SHIPPED_MODEL), "-o", str(found), *plain]) == 0
    assert "0.8 um per pixel assumed, as in the model" in capsys.readouterr().out
    status, why = failure(
        capsys, "detect", video, "-m", SHIPPED_MODEL, "-o", found, *plain, "--pixel-size", "0.5"
    )
    assert (status, "trained for 0.8 um a pixel, but the images have 0.5" in why) == (2, True)
    assert run_command_line(["detect", str(video), "-o", str(found), *plain]) == 0
    assert "1 um per pixel assumed (--pixel-size)" in capsys.readouterr().out


def test_images_much_noisier_than_those_a_network_was_trained_on_are_said_to_be(tmp_path, capsys):
    video, found = tmp_path / "noise.tif", tmp_path / "found.csv"
    noise = np.random.default_rng(0).normal(150, 10, (2, 128, 160))
    tifffile.imwrite(video, np.clip(noise, 0, 255).astype(np.uint8), photometric="minisblack")
    plain = ["--set", "detector.refine=false", "--pixel-size", "0.8"]
    assert run_command_line(["detect", str(video), "-m", str(SHIPPED_MODEL), "-o", str(found), *plain]) == 0
    assert "times as noisy as the images that the network was trained on" in capsys.readouterr().out.replace(
        "\n", " "
    )


def test_a_table_without_times_is_tracked_at_a_frame_rate_that_is_said(tmp_path, video, capsys):
    table, tracks = tmp_path / "found.csv", tmp_path / "tracks.h5"
    run_command_line(["detect", str(video), "-o", str(table), "--set", "detector.diameter_px=15"])
    assert run_command_line(["track", str(table), "-o", str(tracks)]) == 0
    assert "1 frame/s assumed (--frame-rate)" in capsys.readouterr().out
    said = ["--frame-rate", "10", "--overwrite"]
    assert run_command_line(["track", str(table), "-o", str(tracks), *said]) == 0
    assert "assumed" not in capsys.readouterr().out


def test_replay_and_detect_then_track_give_the_same_trajectories(tmp_path, video, capsys, drawn):  # noqa: F811
    live, table, offline = tmp_path / "live.h5", tmp_path / "found.h5", tmp_path / "offline.h5"
    options = ["--set", "session.mode=threads", "--set", "detector.diameter_px=15"]
    assert run_command_line(["replay", str(video), "-o", str(live), *options]) == 0
    assert run_command_line(["detect", str(video), "-o", str(table), *options[2:]]) == 0
    assert run_command_line(["track", str(table), "-o", str(offline), "--frame-rate", "10"]) == 0
    one, other = read_trajectories(live), read_trajectories(offline)
    assert len(np.unique(one.track)) == 3
    for name in ("frame", "track", "x_um", "y_um", "vx_um_s"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
    speed = [np.median(one.vx_um_s[one.track == track]) for track in np.unique(one.track)]
    np.testing.assert_allclose(sorted(speed), [5.0, 10.0, 15.0], rtol=0.05)
    assert np.isnan(one.z_um).all()
    assert one.attributes["frame_rate_hz"] == pytest.approx(10)
    assert "3 trajectories" in [panel.title for figure in drawn for panel in panels(figure)]
    page = (tmp_path / "live.report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 6  # frame, profile and diffusion, light and dark
    events = [json.loads(line) for line in (tmp_path / "live.events.jsonl").read_text().splitlines()]
    assert events[-1]["kind"] == "end"


def test_info_of_every_kind_of_file_is_json(tmp_path, video, capsys):
    tracks, table = tmp_path / "tracks.h5", tmp_path / "found.csv"
    run_command_line(["detect", str(video), "-o", str(table), "--set", "detector.diameter_px=15"])
    run_command_line(["track", str(table), "-o", str(tracks)])
    capsys.readouterr()
    kinds = {}
    for path in (video, tracks, table):
        assert run_command_line(["info", str(path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        kinds[found["kind"]] = found
        assert run_command_line(["info", str(path)]) == 0
        assert found["kind"] in capsys.readouterr().out
    assert kinds["recording"]["frames"] == kinds["trajectories"]["frames"] == 20
    assert kinds["detections"]["rows"] == 60
    assert kinds["trajectories"]["configuration"]["tracker"]["mode"] == "flow"


def test_long_lists_and_long_names_leave_room_for_what_is_said(tmp_path, capsys):
    found = {"left out": {"x" * 70: 3}, "z_um": [0.5 * n for n in range(40)], "few": [1, 2]}
    with console.capture() as screen:
        console.print(files_module._tree(found), width=80)
    text = screen.get()
    assert "40, from 0 to 19.5 (--json lists them)" in text
    assert "1, 2" in text
    assert any(line.rstrip().endswith(" 3") for line in text.splitlines())


def test_export_report_and_recover_work_on_a_tracked_file(tmp_path, video, capsys):
    tracks, table = tmp_path / "tracks.h5", tmp_path / "found.csv"
    run_command_line(["detect", str(video), "-o", str(table), "--set", "detector.diameter_px=15"])
    run_command_line(["track", str(table), "-o", str(tracks)])
    for suffix in ("csv", "parquet", "xml", "vtp"):
        assert run_command_line(["export", str(tracks), "-o", str(tmp_path / f"out.{suffix}")]) == 0
    rows = read_trajectories(tracks)
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.DictReader(line for line in file if not line.startswith("#")))
    np.testing.assert_allclose([float(row["x_um"]) for row in table], rows.x_um, rtol=1e-5)
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == len(table) == 60
    assert (tmp_path / "out.xml").read_text().count("<Spot ") == 60
    assert 'NumberOfPoints="60"' in (tmp_path / "out.vtp").read_bytes().decode("latin-1")
    assert run_command_line(["report", str(tracks)]) == 0
    assert "tracks.report.html" in capsys.readouterr().out
    assert run_command_line(["recover", str(tracks)]) == 0
    assert "is complete" in capsys.readouterr().out
    assert failure(capsys, "report", tracks) == (1, f"error: {tmp_path / 'tracks.report.html'} exists; "
                                                    "pass --overwrite to replace it")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["replay", "none.tif"], 1, "no recording none.tif"),
        (["replay", "{text}"], 1, "cannot read"),
        (["replay", "{float}"], 1, "float32 pixels"),
        (["replay", "{video}", "-m", "none.h5"], 2, "no model file none.h5"),
        (["replay", "{video}", "-m", "{text}"], 2, "text.tif"),
        (["replay", "{video}", "-m", "none.onnx"], 2, "none.onnx"),
        (["replay", "{video}", "--set", "detector.polarty=dark"], 2, "unknown key 'detector.polarty'"),
        (["replay", "{video}", "--set", "session.mode=quickly"], 2, "session.mode"),
        (["replay", "{video}", "-o", "{video}", "--overwrite"], 2, "would replace"),
        (["replay", "{video}", "-o", "nowhere/x.h5"], 1, "no folder nowhere"),
        (["run", "none.toml"], 2, "no experiment file"),
        (["run", "{text}"], 2, "text.tif is not"),
        (["detect", "{video}", "-o", "x.xls"], 2, "detection tables end in"),
        (["detect", "{text}", "-o", "{new}"], 1, "cannot read"),
        (["track", "{video}", "-o", "{new}"], 1, "is not a detection table"),
        (["track", "none.csv", "-o", "{new}"], 1, "no file none.csv"),
        (["export", "{text}", "-o", "{new}"], 1, "not an HDF5 file"),
        (["recover", "{text}"], 1, "not an HDF5 file"),
        (["info", "{none}"], 1, "no file"),
        (["info"], 2, "--devices"),
        (["demo", "--set", "microscope.config=nowhere.cfg", "-o", "{folder}"], 1, "nowhere.cfg"),
        (["demo", "--set", "run.sconds=3", "-o", "{folder}"], 2, "unknown key 'run.sconds'"),
    ],
)
def test_bad_input_ends_in_one_line_and_a_status(tmp_path, video, capsys, arguments, status, why):
    text = tmp_path / "text.tif"
    text.write_text("these are not images")
    floats = tmp_path / "float.tif"
    tifffile.imwrite(floats, np.zeros((3, 16, 16), np.float32), photometric="minisblack")
    names = {
        "text": text,
        "float": floats,
        "video": video,
        "new": tmp_path / "new.csv",
        "none": tmp_path / "none.h5",
        "folder": tmp_path / "demo",
    }
    given = [argument.format(**names) for argument in arguments]
    if given[0] == "replay" and "-o" not in given:
        given += ["-o", str(tmp_path / "out.h5")]
    assert failure(capsys, *given)[0] == status
    assert not (tmp_path / "out.h5").exists()
    capsys.readouterr()
    assert why in failure(capsys, *given)[1]


def test_wrong_usage_is_status_two(capsys):
    assert run_command_line(["demo", "--nonsense"]) == 2
    assert run_command_line(["nonsense"]) == 2
    assert run_command_line(["track"]) == 2
    assert run_command_line(["--version"]) == 0


def test_an_existing_output_is_kept_unless_told_otherwise(tmp_path, video, capsys):
    table = tmp_path / "found.csv"
    table.write_text("precious")
    status, why = failure(capsys, "detect", video, "-o", table)
    assert (status, "--overwrite" in why) == (1, True)
    assert table.read_text() == "precious"
    options = ["--overwrite", "--set", "detector.diameter_px=15"]
    assert run_command_line(["detect", str(video), "-o", str(table), *options]) == 0
    assert table.read_text() != "precious"


def test_a_recording_cut_short_is_tracked_up_to_there_and_the_run_fails(tmp_path, capsys):
    video = tmp_path / "cut.tif"
    with tifffile.TiffWriter(video) as writer:
        for image in spots(40)[0]:
            writer.write(image, contiguous=False, photometric="minisblack")
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    tracks = tmp_path / "cut.h5"
    status, why = failure(capsys, "replay", video, "-o", tracks, "--set", "session.mode=threads")
    assert status == 1
    assert "truncated at frame 19" in why or "truncated at frame 20" in why
    assert len(read_trajectories(tracks).frames) >= 19


def test_the_demo_runs_unattended_and_shows_the_profile_of_the_flow(tmp_path, capsys):
    folder = tmp_path / "demo"
    lossless = ["--set", "session.mode=threads", "--set", "link.policy=block"]
    arguments = ["demo", "--seconds", "12", "-o", str(folder), *lossless]
    assert run_command_line(arguments) == 0
    out = capsys.readouterr().out
    assert "frames lost  none" in out
    names = {path.name for path in folder.iterdir()}
    pictures = {f"{name}.png" for name in FIGURES}
    assert names == pictures | {
        "tracks.h5",
        "events.jsonl",
        "report.html",
        "experiment.toml",
        "model.onnx",
    }
    tracks = read_trajectories(folder / "tracks.h5")
    assert tracks.frames["frame"].tolist() == list(range(360))
    profile = flow_profile(tracks)
    assert profile.deviation < 0.05
    middle = channel_velocity_um_s(0, 150, 1000, 300, 0.0246)
    assert profile.theory.max_um_s == pytest.approx(float(middle))
    assert profile.measured.velocity_um_s.max() == pytest.approx(float(middle), rel=0.05)
    with h5py.File(folder / "tracks.h5") as file:
        assert file["snapshot/image"].shape == (512, 768)


def test_a_camera_of_micro_manager_runs_in_the_demos_place(tmp_path, capsys):
    folder = tmp_path / "demo"
    arguments = ["demo", "--seconds", "2", "-o", str(folder), "--set", "session.mode=threads"]
    assert run_command_line([*arguments, "--set", "microscope.config=MMConfig_demo.cfg"]) == 0
    assert "tracked in 2D" in capsys.readouterr().out
    assert read_trajectories(folder / "tracks.h5").frames["frame"].size > 20
