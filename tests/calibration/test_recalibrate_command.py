"""`liveptv recalibrate`: a new version of the model, with its history; never in place, never without a reason."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from recorded_particles import PIXEL_UM, flat_field_model, gaussian_psf, record

from calibration.recalibration.terms import with_depths
from engines.network.card_text import KEY
from engines.network.model import OnnxModel
from engines.network.model_card import card_of
from engines.network.properties import with_properties
from engines.refine import psf_text
from liveptv.cli import run_command_line
from liveptv.models import SHIPPED_MODEL
from stream.messages import FrameInfo, Tracks
from tracking.trajectories.file import TrajectoryWriter

GREY = 4000.0
SCAN_UM = (-12.0, -6.0, 0.0, 6.0, 12.0)


def write_model(path, psf):
    """The shipped network with another PSF model: the command does not run the network."""
    metadata = OnnxModel(SHIPPED_MODEL).metadata
    card = card_of(metadata, "shipped").model_copy(
        update={"pixel_size_um": PIXEL_UM, "polarity": "bright", "middle_um": 0.0, "half_range_um": 30.0}
    )
    changed = {KEY: card.model_dump_json(), psf_text.KEY: psf_text.pack(psf.for_fit(read=0.5, shot=0.5))}
    path.write_bytes(with_properties(SHIPPED_MODEL.read_bytes(), changed))
    return path


def write_run(folder, run, model, **attributes):
    """The trajectory file and the images of a run."""
    numbers = sorted(run.frames)
    images = np.stack([GREY * (1 + run.frames[n]) for n in numbers])
    tifffile.imwrite(folder / "images.tif", np.rint(np.clip(images, 0, 65535)).astype(np.uint16))
    rows = run.recorded
    given = {
        "pixel_size_um": PIXEL_UM,
        "refraction_factor": 1.0,
        "image_shape": [360, 420],
        "configuration": {
            "recording": {"path": str(folder / "images.tif")},
            "detector": {"model": str(model), "bright": None, "dark": None},
        },
        "model": {"sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
        **attributes,
    }
    with TrajectoryWriter(folder / "tracks.h5", run_id="run", attributes=given) as writer:
        for number in numbers:
            mine = rows.frame == number
            info = FrameInfo(
                "run", number, number, 0.02 * number, 0, 1e9 + number, focus_um=float(rows.focus_um[mine][0])
            )
            columns = {
                "x_um": rows.x_px[mine] * PIXEL_UM,
                "y_um": rows.y_px[mine] * PIXEL_UM,
                "z_um": rows.z_um[mine],
                "sigma_x_um": 0.1 * PIXEL_UM,
                "sigma_y_um": 0.1 * PIXEL_UM,
                "sigma_z_um": 0.5,
                "detection": np.arange(mine.sum()),
            }
            writer.append(Tracks.from_columns(info, track=rows.track[mine], flags=0, **columns))
        writer.finalize({}, "done")
    return folder / "tracks.h5"


@pytest.fixture
def moved(tmp_path):
    """A run whose focal lines are 1.6 um closer than in its model, and that model."""
    model = write_model(tmp_path / "model.onnx", gaussian_psf())
    return write_run(tmp_path, record(gaussian_psf((9.2, -9.2))), model), model


def test_the_new_version_has_the_new_terms_and_says_where_they_are_from(moved, tmp_path, capsys):
    tracks, model = moved
    before = model.read_bytes()
    assert run_command_line(["recalibrate", str(tracks), "-o", str(tmp_path / "model2.onnx")]) == 0
    said = capsys.readouterr().out
    assert "distance of the focal lines: 2" in said
    assert "left-out particles" in said
    assert "depth scale stays 1: the focus did not move" in said
    assert "reduced chi-square" in said
    assert model.read_bytes() == before
    new = OnnxModel(tmp_path / "model2.onnx")
    (entry,) = new.card.recalibrated
    assert entry["from"] == "model.onnx"
    assert entry["from_sha256"] == hashlib.sha256(before).hexdigest()
    assert entry["tracks"] == "tracks.h5"
    (term,) = entry["terms"]
    assert term["before"][0] == pytest.approx(20, abs=0.3)
    assert term["after"][0] - term["before"][0] == pytest.approx(-1.6, abs=0.15)
    assert term["chi_square_after"] < term["chi_square_before"]
    assert entry["chi_square"][1] < entry["chi_square"][0]
    psf = new.psf()
    true = gaussian_psf((9.2, -9.2))
    off = np.abs(
        replace(true, coefficients=psf.coefficients).images([-15.0, 0.0, 9.0])
        - true.images([-15.0, 0.0, 9.0])
    )
    assert off.max() < 0.02 * true.images([0.0]).max() + 0.03
    assert (psf.misfit.variance[..., 2] > 0).all()  # depths are only as good as the new lines


def test_depths_of_the_network_follow_the_depth_scale(tmp_path, capsys):
    true = gaussian_psf(field_model=flat_field_model((0, 1.5, -1.0, 0.8, 0.3, -0.6)))
    model = write_model(tmp_path / "model.onnx", with_depths(gaussian_psf(), 1 / 1.04, 0.0))
    run = record(true, moving=10, stuck=20, focus_um=SCAN_UM, frames=3, scale=1.04, seed=2)
    tracks = write_run(tmp_path, run, model)
    arguments = ["recalibrate", str(tracks), "-o", str(tmp_path / "new.onnx"), "--wall-focus", "0.5"]
    assert run_command_line(arguments) == 0
    new = OnnxModel(tmp_path / "new.onnx")
    assert new.card.half_range_um == pytest.approx(30 * 1.04, rel=0.005)
    assert new.card.middle_um == pytest.approx(0.5, abs=0.15)
    assert new.psf().field.surface_um[1] == pytest.approx(1.5, abs=0.15)
    said = {term["name"] for term in new.card.recalibrated[0]["terms"]}
    assert {"depth scale", "focal surface", "depth offset"} <= said
    again = ["recalibrate", str(tracks), "-m", str(tmp_path / "new.onnx"), "-o", str(tmp_path / "third.onnx")]
    capsys.readouterr()
    assert run_command_line(again) == 1  # nothing is left to update
    assert "nothing to update in new.onnx" in capsys.readouterr().err


def test_nothing_is_written_where_nothing_has_changed(tmp_path, capsys):
    model = write_model(tmp_path / "model.onnx", gaussian_psf())
    tracks = write_run(tmp_path, record(gaussian_psf()), model)
    assert run_command_line(["recalibrate", str(tracks), "-o", str(tmp_path / "new.onnx")]) == 1
    error = capsys.readouterr().err
    assert "nothing to update in model.onnx, and nothing written" in error
    assert "the focus did not move" in error
    assert not list(tmp_path.glob("new*"))


def test_a_second_recalibration_adds_to_the_history(moved, tmp_path):
    tracks, model = moved
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    assert run_command_line(["recalibrate", str(tracks), "-o", str(first)]) == 0
    other = tmp_path / "other"
    other.mkdir()
    tracks = write_run(other, record(gaussian_psf((10.4, -10.4)), seed=7), model)
    assert run_command_line(["recalibrate", str(tracks), "-m", str(first), "-o", str(second)]) == 0
    history = OnnxModel(second).card.recalibrated
    assert [entry["from"] for entry in history] == ["model.onnx", "first.onnx"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["-o", "{model}"], 2, "would replace the input"),
        (["-o", "{tmp}/there.onnx"], 1, "exists"),
        (["-o", "{tmp}/new.h5"], 2, "must end in .onnx"),
        (["-o", "{tmp}/new.onnx", "--images", "{tmp}/none.tif"], 1, "there is no recording"),
        (["-o", "{tmp}/new.onnx", "-m", "{tmp}/tracks.h5"], 2, "is no network"),
        (["-o", "{tmp}/new.onnx", "-m", str(SHIPPED_MODEL)], 2, "model of this microscope"),
        (["-o", "{tmp}/new.onnx", "--bright", "{tmp}/small.tif"], 2, "same camera settings"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(moved, tmp_path, capsys, arguments, status, says):
    tracks, model = moved
    (tmp_path / "there.onnx").write_bytes(b"kept")
    tifffile.imwrite(tmp_path / "small.tif", np.full((30, 40), 9.0, np.float32))
    filled = [text.format(model=model, tmp=tmp_path) for text in arguments]
    assert run_command_line(["recalibrate", str(tracks), *filled]) == status
    error = capsys.readouterr().err.strip()
    assert says in " ".join(error.split())
    assert len(error.splitlines()) == 1
    assert (tmp_path / "there.onnx").read_bytes() == b"kept"


def test_without_the_images_it_says_what_to_pass(moved, tmp_path, capsys):
    tracks, _ = moved
    (tmp_path / "images.tif").unlink()
    assert run_command_line(["recalibrate", str(tracks), "-o", str(tmp_path / "new.onnx")]) == 2
    assert "pass --images" in capsys.readouterr().err


def test_trajectories_without_depth_are_refused(tmp_path, capsys):
    model = write_model(tmp_path / "model.onnx", gaussian_psf())
    run = record(gaussian_psf(), frames=1)
    run.recorded.z_um[:] = np.nan
    tracks = write_run(tmp_path, run, model)
    assert run_command_line(["recalibrate", str(tracks), "-o", str(tmp_path / "new.onnx")]) == 1
    assert "no depth" in capsys.readouterr().err
