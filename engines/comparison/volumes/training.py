"""Training of DetNet3D and DM-DetNet3D as published: AMSGrad, batches of 4 crops, flips, early stopping.

The images come from a function, so that it trains on drawn scenes as on a user's own stacks. "The initial learning
rate was 0.001": here it is halved whenever the loss of the held-out crops has not fallen for a while. An
interrupted training goes on from its folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engines.comparison.volumes.hourglass import Hourglass
from engines.comparison.volumes.input import normalised
from engines.comparison.volumes.kinds import MASK, Kind
from engines.comparison.volumes.losses import soft_dice, weighted_wing
from engines.comparison.volumes.targets import binary_mask, density_map, weight_map
from stream.errors import ConfigurationError

NAME = "training.pt"
Crop = tuple[npt.NDArray[Any], npt.NDArray[np.floating]]
"""A stack (Z, H, W), sizes as `input.MULTIPLE` asks, and the particles (N, 3) along z, y, x in its voxels."""
Draw = Callable[[np.random.Generator], Crop]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a network is trained. The first four are the paper's."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    batch: int = 4
    flips: bool = True
    seed: int = 0
    held_out: int = 60
    """Crops that the loss is measured on now and then."""
    score_every: int = 200
    """Steps between those measurements; each costs as much as some five steps."""
    halve_after: int = 5
    """Measurements without a lower loss after which the rate is halved."""
    stop_after: int = 15
    """Measurements without a lower loss after which training stops."""
    bfloat16: bool = False
    """Calculate in bfloat16, which is twice as fast on processors that have it."""


@dataclass(slots=True)
class Course:
    """How far a training is: its steps and time, the held-out losses, and the best weights so far."""

    steps: int = 0
    trained_s: float = 0.0
    best: float = float("inf")
    best_step: int = 0
    losses: list[tuple[int, float, float]] = field(default_factory=list)
    """Step, mean loss in training since the measurement before, loss of the held-out crops."""
    weights: dict[str, Any] = field(default_factory=dict)
    finished: bool = False


def train(
    kind: Kind,
    draw: Draw,
    folder: Path,
    settings: Settings,
    *,
    seconds: float,
    report: Callable[[Course], None] = lambda course: None,
) -> Course:
    """Train until the loss stops falling, or for `seconds` of time from now; go on from `folder` if it holds one.

    The crops of a step follow from its number and the seed, those held out from another seed.
    Raises `ConfigurationError` where the folder holds a training of another kind or with other settings.
    """
    torch.manual_seed(settings.seed)
    network = Hourglass()
    optimiser = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, betas=settings.betas, amsgrad=True
    )
    rates = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=settings.halve_after - 1, threshold=0.0
    )
    course = _continued(folder, kind, settings, network, optimiser, rates)
    held_out = _batches(kind, draw, np.random.default_rng((settings.seed, 1)), settings)
    start_s, before_s = time.monotonic(), course.trained_s
    running: list[float] = []
    while not course.finished and time.monotonic() - start_s < seconds:
        rng = np.random.default_rng((settings.seed, 2, course.steps))
        images, *targets = _stacked(
            [_example(kind, draw, rng, settings.flips) for _ in range(settings.batch)]
        )
        network.train()
        optimiser.zero_grad(set_to_none=True)
        loss = _loss(kind, _answers(network, images, settings), targets)
        loss.backward()
        optimiser.step()
        running.append(float(loss.detach()))
        course.steps += 1
        if course.steps % settings.score_every == 0:
            held = _held_out_loss(kind, network, held_out, settings)
            rates.step(held)
            course.trained_s = before_s + time.monotonic() - start_s
            course.losses.append((course.steps, float(np.mean(running)), held))
            running.clear()
            if held < course.best:
                course.best, course.best_step = held, course.steps
                course.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}
            course.finished = course.steps - course.best_step >= settings.stop_after * settings.score_every
            _save(folder, kind, settings, network, optimiser, rates, course)
            report(course)
    return course


def kept(folder: Path) -> tuple[Kind, dict[str, Any], Course]:
    """What the training in a folder is of, its settings, and how far it is. Raises `ConfigurationError`."""
    path = folder / NAME
    try:
        found = torch.load(path, weights_only=True)
        return found["kind"], found["settings"], Course(**found["course"])
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no training in {folder}") from error
    except Exception as error:  # torch raises whatever a damaged file makes it raise
        detail = " ".join(str(error).split())
        raise ConfigurationError(f"{path} holds no training, or is damaged ({detail}); remove it") from error


def _example(
    kind: Kind, draw: Draw, rng: np.random.Generator, flips: bool
) -> tuple[npt.NDArray[np.float32], ...]:
    """Image and targets (1, Z, H, W) of one crop, flipped along y and x half the time each."""
    image, points = draw(rng)
    shape = image.shape
    stacks = [normalised(image)]
    if kind == MASK:
        stacks.append(binary_mask(points, shape))
    else:
        target = density_map(points, shape)
        stacks += [target, weight_map(target)]
    flipped = tuple(axis for axis in (1, 2) if flips and rng.random() < 0.5)
    return tuple(np.flip(stack, flipped)[None] for stack in stacks)


def _stacked(examples: list[tuple[npt.NDArray[np.float32], ...]]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.stack(parts)) for parts in zip(*examples, strict=True)]


def _batches(
    kind: Kind, draw: Draw, rng: np.random.Generator, settings: Settings
) -> list[list[torch.Tensor]]:
    crops = [_example(kind, draw, rng, False) for _ in range(settings.held_out)]
    size = settings.batch
    return [_stacked(crops[first : first + size]) for first in range(0, len(crops), size)]


def _answers(network: Hourglass, images: torch.Tensor, settings: Settings) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
        answers: torch.Tensor = network(images)
    return answers


def _loss(kind: Kind, logits: torch.Tensor, targets: list[torch.Tensor]) -> torch.Tensor:
    return soft_dice(logits, *targets) if kind == MASK else weighted_wing(logits, *targets)


@torch.no_grad()
def _held_out_loss(
    kind: Kind, network: Hourglass, batches: list[list[torch.Tensor]], settings: Settings
) -> float:
    network.eval()
    losses = [float(_loss(kind, _answers(network, images, settings), t)) for images, *t in batches]
    return float(np.mean(losses))


def _save(
    folder: Path,
    kind: Kind,
    settings: Settings,
    network: Hourglass,
    optimiser: torch.optim.Optimizer,
    rates: torch.optim.lr_scheduler.ReduceLROnPlateau,
    course: Course,
) -> None:
    """Write the training; an interruption leaves the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (NAME + ".part")
    torch.save(
        {
            "kind": kind,
            "settings": asdict(settings),
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "rates": rates.state_dict(),
            "course": asdict(course),
        },
        part,
    )
    part.replace(folder / NAME)


def _continued(
    folder: Path,
    kind: Kind,
    settings: Settings,
    network: Hourglass,
    optimiser: torch.optim.Optimizer,
    rates: torch.optim.lr_scheduler.ReduceLROnPlateau,
) -> Course:
    if not (folder / NAME).is_file():
        return Course()
    before, with_settings, course = kept(folder)
    if (before, with_settings) != (kind, asdict(settings)):
        raise ConfigurationError(
            f"{folder} holds a training of another network or with other settings; remove it"
        )
    found = torch.load(folder / NAME, weights_only=True)
    network.load_state_dict(found["network"])
    optimiser.load_state_dict(found["optimiser"])
    rates.load_state_dict(found["rates"])
    return course
