"""From a few places in a recording to detections without training: matched filters with an image model, and fit."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from liveptv.cli.main import run_command_line
from liveptv.tables import read_detection_table

PIXEL_UM, PEAK, WIDTH, NOISE = 0.4, 0.4, 2.0, 0.02
BOUND_PX = NOISE / PEAK * np.sqrt(2 / np.pi)
"""Cramer-Rao bound of x of a Gaussian spot of known width."""


def recording(path: Path, stretched: float = 1.0) -> np.ndarray:
    """An image of spots on a lattice, a pixel off it at random, `stretched` along y or x; the places (N, 2)."""
    rng = np.random.default_rng(2)
    lattice = np.stack(np.meshgrid(np.arange(20, 180, 24), np.arange(20, 150, 24)), axis=-1).reshape(-1, 2)
    places = lattice + rng.uniform(-1, 1, lattice.shape)
    rows, columns = np.indices((160, 192))
    image = np.ones(rows.shape)
    for n, (x, y) in enumerate(places):
        long = stretched if n % 2 else 1 / stretched
        image -= PEAK * np.exp(-(((columns - x) / long) ** 2 + ((rows - y) * long) ** 2) / (2 * WIDTH**2))
    image += rng.normal(0, NOISE, image.shape)
    tifffile.imwrite(path, np.rint(2000 * image).astype(np.uint16))
    return places


def train(video: Path, places: np.ndarray, output: Path) -> int:
    at = [part for x, y in places for part in ("--at", f"{x:.0f},{y:.0f}")]
    return run_command_line(
        ["train", "--examples", str(video), *at, "--pixel-size", str(PIXEL_UM), "-o", str(output)]
    )


def test_a_few_examples_are_enough_to_find_others_as_exactly_as_noise_allows(tmp_path, capsys):
    video, objects, table = tmp_path / "video.tif", tmp_path / "objects.h5", tmp_path / "found.csv"
    places = recording(video)
    assert train(video, places[[8, 17, 30]], objects) == 0
    assert "images change with their size" in capsys.readouterr().out
    assert run_command_line(["detect", str(video), "-m", str(objects), "-o", str(table)]) == 0
    found = read_detection_table(table).columns()
    assert len(found["x_um"]) == len(places)
    seen = np.column_stack([found["x_um"], found["y_um"]]) / PIXEL_UM
    apart = np.hypot(*(places[:, None] - seen[None]).transpose(2, 0, 1))
    assert np.sqrt((apart.min(axis=1) ** 2).mean() / 2) < 1.4 * BOUND_PX
    stated = np.column_stack([found["sigma_x_um"], found["sigma_y_um"]]) / PIXEL_UM
    assert np.median(stated) == pytest.approx(BOUND_PX, rel=0.3)


def test_objects_without_an_image_model_are_for_a_network(tmp_path, capsys):
    video, objects = tmp_path / "video.tif", tmp_path / "objects.h5"
    places = recording(video, stretched=2.5)
    assert train(video, places[[8, 17]], objects) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "no image model" in said
    assert "train a network" in said
    assert not objects.exists()


def test_an_example_that_touches_another_object_is_told(tmp_path, capsys):
    video, objects = tmp_path / "video.tif", tmp_path / "objects.h5"
    places = recording(video)
    image = tifffile.imread(video)
    x, y = np.rint(places[17]).astype(int)
    beside = image[..., y - 8 : y + 9, x - 8 : x + 9]
    doubled = image.copy()
    doubled[..., y - 8 : y + 9, x - 1 : x + 16] = np.maximum(
        beside, image[..., y - 8 : y + 9, x - 1 : x + 16]
    )
    tifffile.imwrite(video, doubled)
    train(video, places[[8, 17, 30]], objects)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"warning: the crop at {x},{y}: " in said
    assert said.count("warning: ") == 1
    assert "choose an object that stands alone" in said


def test_an_image_model_refuses_a_background(tmp_path, capsys):
    video = tmp_path / "video.tif"
    recording(video)
    given = ["--examples", str(video), "--background", str(video), "-o", str(tmp_path / "objects.h5")]
    assert run_command_line(["train", *given]) != 0
    assert "--background is for the training of a network" in " ".join(capsys.readouterr().err.split())
