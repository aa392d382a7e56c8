"""Live runs with a detector of the user's own: its results, its failures, and what is kept of it."""

import h5py
import numpy as np
import pytest
from small_run import Run, small_experiment

import liveptv
from liveptv.workflows.retrack import retrack, settings_for
from stream.errors import ConfigurationError
from tracking.trajectories.file import read_trajectories

DARKEST = """
import numpy as np

class Darkest:
    # the darkest pixel of each block, where it is dark enough

    def __init__(self, block=16, fails=""):
        self.block, self.fails = block, {int(n) for n in fails.split()}

    def find(self, image, info):
        if info.frame in self.fails:
            raise RuntimeError("nothing works")
        b = self.block
        rows, columns = image.shape[0] // b, image.shape[1] // b
        blocks = image[: rows * b, : columns * b].reshape(rows, b, columns, b).swapaxes(1, 2).reshape(-1, b * b)
        place, depth = blocks.argmin(axis=1), np.median(image) - blocks.min(axis=1)
        number = np.arange(len(blocks))
        y, x = number // columns * b + place // b, number % columns * b + place % b
        keep = depth > 0.5 * depth.max()
        return {"x_px": x[keep], "y_px": y[keep], "sigma_x_px": 0.5, "sigma_y_px": 0.5, "brightness": depth[keep]}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "darkest.py"
    path.write_text(DARKEST)
    return path


def own(tmp_path, file, options=None, **more):
    experiment = small_experiment(tmp_path, real_time=False, frames=40)
    detector = {"file": file, "options": options or {}, **more}
    data = experiment.model_dump(exclude_unset=True) | {"detector": detector}
    return liveptv.experiment(data)


def test_a_run_takes_its_particles_from_the_users_file_and_declares_the_frames_in_which_it_fails(
    tmp_path, file
):
    run = Run(own(tmp_path, file, {"fails": "7 8 30"}))
    frames, attributes = run.frames()
    assert run.result.ok
    assert frames == [n for n in range(40) if n not in {7, 8, 30}]
    assert run.outcome.account.lost == {"in which the detector failed": 3}
    assert attributes["accounts"]["detect"]["failed_frames"] == 3
    assert attributes["accounts"]["detect"]["particles"] > 40
    assert attributes["code"]["detector"]["text"] == DARKEST
    assert attributes["code"]["detector"]["sha256"] == attributes["model"]["sha256"]
    assert len(read_trajectories(run.files.tracks, include_flagged=True)) > 40
    assert run.says(
        f"the detector {file} is Python code and will be run", "darkest.py, line 12: RuntimeError"
    )
    assert run.says("Darkest detector on python")
    output = tmp_path / "again.h5"
    again = settings_for(run.files.tracks)
    retrack(
        run.files.tracks, again.model_copy(update={"run": again.run.model_copy(update={"output": output})})
    )
    with h5py.File(run.files.tracks) as first, h5py.File(output) as second:
        assert first["tracks/rows"][:].tobytes() == second["tracks/rows"][:].tobytes()
        assert len(first["tracks/rows"]) > 40


def test_a_run_ends_once_too_many_frames_in_succession_have_failed(tmp_path, file):
    run = Run(own(tmp_path, file, {"fails": "10 11 12 13"}, failed_frames=3))
    frames, _ = run.frames()
    assert not run.result.ok
    assert frames == list(range(10))
    (failure,) = (text for text in run.result.failures if "failed_frames is 3" in text)
    assert "darkest.py, line 12: RuntimeError: nothing works" in failure
    assert not run.says("started again")


@pytest.mark.parametrize(("text", "words"), [(None, "no detector file"), ("def find(:", "SyntaxError")])
def test_a_file_that_is_missing_or_no_python_is_refused_before_anything_starts(text, words, tmp_path):
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        Run(own(tmp_path, path))
    assert not (tmp_path / "tracks.h5").exists()


def test_from_python_its_detections_come_as_a_table(tmp_path, file):
    images = np.full((3, 64, 64), 100, np.uint16)
    images[:, 10, 20] = [50, 40, 30]
    found = liveptv.detect(images, file=file, options={"block": 64, "fails": "1"}, pixel_size_um=0.5)
    assert found.frame.tolist() == [0, 2]
    assert found.x_um.tolist() == [10.0, 10.0]
    assert found.y_um.tolist() == [5.0, 5.0]
    assert found.brightness.tolist() == [50.0, 70.0]
