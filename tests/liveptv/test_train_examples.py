"""Networks that are trained on a few examples of an object, and what they detect."""

import numpy as np
import pytest
import tifffile

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from calibration.training.settings import TrainingSettings
from liveptv.cli.main import run_command_line
from liveptv.models import SHIPPED_MODEL
from liveptv.tables import read_detection_table
from liveptv.workflows.examples import Examples, parse_at, recipe_of
from liveptv.workflows.train import train_model
from stream.errors import ConfigurationError

SHAPE = 160, 192
STEPS = 120
PIXEL_UM = 0.4


def recording(path, rng):
    """Two images of spots on a lattice, a pixel off it at random; their places (N, 2) in the first."""
    lattice = np.stack(np.meshgrid(np.arange(20, 180, 24), np.arange(20, 150, 24)), axis=-1).reshape(-1, 2)
    rows, columns = np.indices(SHAPE)
    images, places = [], []
    for _ in range(2):
        at = lattice + rng.uniform(-1, 1, lattice.shape)
        image = np.full(SHAPE, 100.0)
        for x, y in at:
            image -= 40 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2.0**2))
        images.append(rng.normal(image, 2.0))
        places.append(at)
    tifffile.imwrite(path, np.rint(images).astype(np.uint8), metadata={"axes": "TYX"})
    return places[0]


def test_a_few_examples_make_a_network_that_detects_in_the_plane(tmp_path):
    video, model, table = tmp_path / "video.tif", tmp_path / "m.onnx", tmp_path / "found.csv"
    places = recording(video, np.random.default_rng(0))
    at = parse_at([f"{x:.0f},{y:.0f}" for x, y in places[[8, 17, 30]]])
    lines = []
    recipe, digest = recipe_of(Examples((video,), at, None, PIXEL_UM), lines.append)
    *seen, modelled = lines
    assert len(seen) == 3
    assert all("round" in line for line in seen)
    assert "images change with their size" in modelled
    settings = TrainingSettings(
        minutes=600, steps=STEPS, crop_px=64, start_from=SHIPPED_MODEL, score_every_s=1e6
    )
    trained = train_model(model, recipe, digest, settings, lambda _progress: None)
    assert trained is not None
    assert not trained.card.depth
    assert trained.card.made_from == "3 examples in video.tif"
    assert run_command_line(["detect", str(video), "-m", str(model), "-o", str(table)]) == 0
    found = read_detection_table(table).columns()
    assert np.isnan(found["z_um"]).all()
    first = found["frame"] == 0
    seen = np.column_stack([found["x_um"], found["y_um"]])[first] / PIXEL_UM
    apart = np.hypot(*(places[:, None] - seen[None]).transpose(2, 0, 1))
    assert (apart.min(axis=1) < 0.7).mean() > 0.9
    assert (apart.min(axis=0) < 2.0).mean() > 0.9
    nearest = apart.argmin(axis=0)
    error = (seen - places[nearest])[apart.min(axis=0) < 2.0] * PIXEL_UM
    stated = np.column_stack([found["sigma_x_um"], found["sigma_y_um"]])[first][apart.min(axis=0) < 2.0]
    assert 0.3 < np.sqrt(((error / stated) ** 2).mean()) < 2.5


@pytest.mark.parametrize("text", ["12", "1,2,3,4", "a,b", "1,nan", "1,2,-1", ""])
def test_a_place_is_two_numbers_and_perhaps_an_image(text):
    with pytest.raises(ConfigurationError, match="is no place; give x and y in pixels"):
        parse_at([text])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--at", "10,10"], "--at and --background belong to --examples"),
        (["--examples", "{folder}/video.tif", "--optics", "simulated"], "give either a calibration"),
        (["--examples", "{folder}/nowhere.tif"], "nowhere.tif"),
        (["--examples", "{folder}/video.tif", "--at", "8,80"], "the crop at 8,80"),
        (["--examples", "{folder}/video.tif", "--examples", "{folder}/video.tif", "--at", "9,9"], "once"),
    ],
)
def test_examples_that_cannot_be_used_are_one_line(arguments, says, tmp_path, capsys):
    recording(tmp_path / "video.tif", np.random.default_rng(0))
    given = [argument.format(folder=tmp_path) for argument in arguments]
    assert run_command_line(["train", *given, "-o", str(tmp_path / "m.onnx")]) != 0
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "m.onnx").exists()
