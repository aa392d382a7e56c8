"""A network trained from Python: on a calibration, on known optics, or on a DeepTrack pipeline."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from liveptv.api.axes import axes_or_new
from liveptv.files import claimed, refuse_to_replace, writable
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from calibration.training.train import TrainingProgress
    from liveptv.api.object_models import ObjectModel
    from liveptv.workflows.examples import Examples
    from liveptv.workflows.train import PipelineOf, Trained


log = logging.getLogger(__name__)


class Training:
    """A trained network; `liveptv.train` makes it.

    `model` is its file, `report` its page. `missed` (1 - recall) and `false` (1 - precision) are scores on fresh
    images.
    """

    def __init__(self, found: Trained) -> None:
        self._found = found
        self.model: Path = found.model
        self.report: Path = found.page
        self.missed: float = found.scores.evaluation.missed
        self.false: float = found.scores.evaluation.false

    def to_pandas(self) -> pd.DataFrame:
        """The scores on held-out images during the training: one row a score, `trained_s`, `missed`, `false` ..."""
        import pandas as pd

        return pd.DataFrame(self._found.course)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw missed and false particles over the training time; returns the axes."""
        from liveptv.reports.training_page import draw_course

        with axes_or_new(axes) as drawn:
            draw_course(drawn, self._found.course)
        result: Axes = drawn
        return result

    def __repr__(self) -> str:
        return (
            f"<Training {self.model.name}: {100 * self.missed:.1f} % missed, {100 * self.false:.1f} % false>"
        )


def train(
    calibration: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] = "model.onnx",
    *,
    optics: str | None = None,
    images: str | os.PathLike[str] | None = None,
    learn: Sequence[str] = (),
    examples: Sequence[str | os.PathLike[str]] = (),
    pixel_size_um: float | None = None,
    minutes: float = 60.0,
    size: Literal["small", "large"] = "small",
    start: str | os.PathLike[str] | None = None,
    seed: int = 0,
    steps: int | None = None,
    processes: int | None = None,
    batch: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Training | ObjectModel:
    """Train a detection network, as `liveptv train` does, and write it.

    In a script, call it below `if __name__ == "__main__":` where it uses several processes; a notebook needs
    nothing.

    Parameters
    ----------
    calibration : path, optional
        A calibration file (`.h5`) of images. Give this, `optics`, `images` or `examples`.
    output : path
        The network's file, `.onnx`; its report goes beside it. With `images` and `examples` also `.h5`, an image
        model for matched filters and fit, which needs no training.
    optics : str, optional
        A `.toml` or `.json` file with the optics, or `"simulated"`.
    images : path, optional
        A Python file with a DeepTrack pipeline, `"pipeline.py"`, `"pipeline.py:NAME"` or `"notebook.ipynb:NAME"`;
        its code is run.
    learn : sequence of str
        Properties of the pipeline's objects to learn beside place and kind, such as `["radius"]`.
    examples : sequence of path
        Images with one object in the middle of each.
    pixel_size_um : float, optional
        Of the camera, where a pipeline or the examples do not say it.
    minutes : float
        How long to train.
    steps : int, optional
        Train no more steps than these; a fast computer then trains no longer than a slow one.
    size : {"small", "large"}
        For processors, or for GPUs.
    start : path, optional
        A network to start from, or `"nothing"`; left out: the shipped one for a small network, nothing for a large
        one or for `images`.
    seed, processes : int
        Of weights and training images; how many processes of one thread each (left out: one a core).
    batch : int
        Image crops per step and process (left out: 16, and 256 on a GPU); few are better in a short training.
    overwrite : bool
        Replace `output` if it exists.
    on_progress : callable
        Called with the progress and the newest scores.

    Returns
    -------
    Training or ObjectModel
        `.model`, `.to_pandas()`, `.plot()`, and of a network `.report`, `.missed`, `.false`, of an image model
        `.found`, what it is in words.

    Raises
    ------
    LivePTVError
        For what cannot be trained on, and where torch is not installed.

    Examples
    --------
    >>> liveptv.train("calibration.h5", "model.onnx", minutes=20).plot()
    """
    from liveptv.models import SHIPPED_MODEL
    from liveptv.workflows.examples import Examples, recipe_of
    from liveptv.workflows.object_model import SUFFIXES
    from liveptv.workflows.train import check_libraries, recipe_for, settings_for, train_model
    from liveptv.workflows.train_volumes import is_for_volumes

    source, target = None if calibration is None else Path(calibration), Path(output)
    if is_for_volumes(source):
        raise ConfigurationError(
            "this is a calibration of volumes; train on it with the command liveptv train"
        )
    of_objects = (images is not None or bool(examples)) and target.suffix.lower() in SUFFIXES
    if not of_objects and target.suffix.lower() != ".onnx":
        raise ConfigurationError(f"the network is written as an .onnx file; {target} must end in .onnx")
    if size not in ("small", "large"):
        raise ConfigurationError(f"size must be small or large, not {size!r}")
    if sum((source is not None, optics is not None, images is not None, bool(examples))) != 1:
        raise ConfigurationError("give either a calibration, optics, images or examples to train on")
    seen = Examples(tuple(map(Path, examples)), pixel_size_um=pixel_size_um)
    pipeline = _pipeline(images, learn, None if examples else pixel_size_um)
    if of_objects:
        return _object_model(target, seen if examples else pipeline, minutes, overwrite)
    if start is None:
        begin = SHIPPED_MODEL if size == "small" and images is None else None
    else:
        begin = None if start == "nothing" else Path(start)
    check_libraries()
    refuse_to_replace(target, source, begin, *seen.paths)
    writable(target, overwrite)
    with claimed(target, "liveptv.train"):
        settings = settings_for(
            minutes, size, seed=seed, steps=steps, processes=processes, batch=batch, start_from=begin
        )
        if examples:
            recipe, digest = recipe_of(seen, log.info)
        else:
            recipe, digest = recipe_for(source, optics, pipeline, settings.expected_minutes)
        found = train_model(target, recipe, digest, settings, on_progress)
    assert found is not None  # one process of several that were launched
    return Training(found)


def _object_model(
    target: Path, source: PipelineOf | Examples, minutes: float, overwrite: bool
) -> ObjectModel:
    from liveptv.api.object_models import ObjectModel
    from liveptv.workflows.examples import Examples
    from liveptv.workflows.object_model import make_any_object_model

    paths = source.paths if isinstance(source, Examples) else (source.path,)
    refuse_to_replace(target, *paths)
    writable(target, overwrite)
    with claimed(target, "liveptv.train"):
        return ObjectModel(target, make_any_object_model(target, source, log.info, minutes, overwrite))


def _pipeline(
    images: str | os.PathLike[str] | None, learn: Sequence[str], pixel_size_um: float | None
) -> Any:
    from liveptv.workflows.train import PipelineOf

    if images is None:
        if learn or pixel_size_um is not None:
            raise ConfigurationError("learn and pixel_size_um belong to images, a DeepTrack pipeline")
        return None
    from calibration.deeptrack.loading import split_name

    path, name = split_name(os.fspath(images))
    return PipelineOf(path, name, tuple(learn), pixel_size_um)
