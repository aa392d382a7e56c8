"""Networks of DeepTrack 1 are read from their files and answer as their layers say."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from engines.comparison.deeptrack1 import DeepTrack1
from stream.errors import ConfigurationError

SHAPES = {
    "conv_1": (3, 3, 1, 16),
    "conv_2": (3, 3, 16, 32),
    "conv_3": (3, 3, 32, 64),
    "dense_1": (1024, 32),
    "dense_2": (32, 32),
    "output": (32, 3),
}


def write(path: Path, weights: dict[str, tuple[np.ndarray, np.ndarray]], whole: bool = True) -> Path:
    """A file as Keras writes it, of a whole model or of its weights alone."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole else file
        if whole:
            layer = {
                "class_name": "Conv2D",
                "config": {"name": "conv_1", "batch_input_shape": [None, 51, 51, 1]},
            }
            file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [layer]})
        for name, (kernel, bias) in weights.items():
            group.create_dataset(f"{name}/{name}/kernel:0", data=kernel)
            group.create_dataset(f"{name}/{name}/bias:0", data=bias)
    return path


def random_weights(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {
        name: (
            0.2 * rng.standard_normal(shape).astype(np.float32),
            rng.standard_normal(shape[-1]).astype("f4"),
        )
        for name, shape in SHAPES.items()
    }


def answer(image: np.ndarray, weights: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The layers one by one, pixel by pixel."""
    x = image[..., None].astype(np.float64)
    for name in ("conv_1", "conv_2", "conv_3"):
        kernel, bias = weights[name]
        rows, columns = x.shape[0] - 2, x.shape[1] - 2
        out = np.empty((rows, columns, bias.size))
        for i in range(rows):
            for j in range(columns):
                out[i, j] = np.einsum("abc,abcd->d", x[i : i + 3, j : j + 3], kernel) + bias
        out = np.maximum(out, 0)
        x = np.array(
            [
                [out[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(0, 1)) for j in range(columns // 2)]
                for i in range(rows // 2)
            ]
        )
    flat = x.ravel()
    for name in ("dense_1", "dense_2"):
        flat = np.maximum(flat @ weights[name][0] + weights[name][1], 0)
    return flat @ weights["output"][0] + weights["output"][1]


@pytest.mark.parametrize("whole", [True, False])
def test_the_answer_is_that_of_the_layers_with_x_along_the_row(tmp_path: Path, whole: bool) -> None:
    weights = random_weights()
    network = DeepTrack1(write(tmp_path / "network.h5", weights, whole))
    assert network.weights == 57_251
    assert network.side_px == 51
    image = np.random.default_rng(1).random((51, 51))
    row, column, _ = answer(image, weights)
    assert network(image[None])[0] == pytest.approx([25 * column, 25 * row], rel=1e-3)


def test_another_file_is_refused_in_one_line(tmp_path: Path) -> None:
    weights = random_weights()
    del weights["dense_1"]
    with pytest.raises(ConfigurationError, match="no layer dense_1"):
        DeepTrack1(write(tmp_path / "other.h5", weights))
    with pytest.raises(ConfigurationError, match="cannot read a network of DeepTrack 1"):
        DeepTrack1(tmp_path / "missing.h5")


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    weights = random_weights()
    weights["conv_2"][0][0, 0, 0, 0] = np.nan
    with pytest.raises(ConfigurationError, match="conv_2 has values that are not finite"):
        DeepTrack1(write(tmp_path / "broken.h5", weights))


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    network = DeepTrack1(write(tmp_path / "network.h5", random_weights()))
    with pytest.raises(ConfigurationError, match="51 x 51 px"):
        network(np.zeros((1, 64, 64)))
