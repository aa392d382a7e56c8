"""One process's part of a training: a network, its optimiser, its running mean, and steps on new images."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from calibration.synthesis import Scene
from calibration.training.examination import ImageExamination
from calibration.training.group.meeting import add_up, share
from calibration.training.loss import Losses, Targets, particle_loss
from calibration.training.material import Material
from calibration.training.method import Learnt, LossParts, Method
from calibration.training.settings import TrainingSettings
from engines.network.architecture import ParticleNet
from engines.network.decode import decode
from engines.network.layout import CHANNELS, SLOTS, STRIDE

WARM_UP = 0.08
LAST_RATE = 1e-3
LARGEST_GRADIENT = 5.0
WEIGHT_DECAY = 1e-4
HEAD = ("head.weight", "head.bias")


def rate_at(part: float) -> float:
    """The learning rate over the largest, after a part of the training: up in a line, down as a cosine."""
    if part < WARM_UP:
        return max(LAST_RATE, part / WARM_UP)
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * (part - WARM_UP) / (1 - WARM_UP)))


def targets_of(scene: Scene, material: Material, device: torch.device | str = "cpu") -> Targets:
    """The particles of a scene in the units of the network."""
    particles = scene.particles
    height, width = scene.images.shape[1:]
    x, y = ((values + 0.5) / STRIDE for values in (particles.x_px, particles.y_px))
    column = np.clip(np.floor(x).astype(np.int64), 0, width // STRIDE - 1)
    row = np.clip(np.floor(y).astype(np.int64), 0, height // STRIDE - 1)
    z = (particles.z_um - material.middle_um) / material.half_range_um
    values = np.stack([x - column - 0.5, y - row - 0.5, z, particles.brightness], axis=1)
    whole = (particles.frame.astype(np.int64), row, column, particles.kind)
    image, row, column, kind = (torch.from_numpy(v).to(device) for v in whole)
    numbers = [each.as_numbers(particles.more[:, n]) for n, each in enumerate(material.properties)]
    more = torch.from_numpy(np.hstack(numbers).astype(np.float32)).to(device) if numbers else None
    values_there = torch.from_numpy(values.astype(np.float32)).to(device)
    return Targets(image, row, column, values_there, kind, more)


def _build(settings: TrainingSettings, material: Material) -> nn.Module:
    return ParticleNet(settings.size, material.knee, material.field_shape, material.kinds, material.learnt)


def _loss(maps: torch.Tensor, scene: Scene, material: Material) -> Losses:
    return particle_loss(maps, targets_of(scene, material, maps.device))


def given(scene: Scene, material: Material) -> torch.Tensor:
    """Contrasts (B, 1, H, W) in standard deviations of the noise."""
    return torch.from_numpy(scene.images)[:, None] / material.noise_contrast


OURS = Method(_build, _loss, decode, rate_at, given, ImageExamination)
"""The network of `liveptv train`."""


class Trainer:
    """Takes steps; all processes of a training hold the same weights, and each its own images."""

    def __init__(
        self, settings: TrainingSettings, material: Learnt, rank: int = 0, method: Method = OURS
    ) -> None:
        self.settings, self.material, self.rank, self.method = settings, material, rank, method
        self.device = torch.device(settings.device)
        torch.manual_seed(settings.seed)
        network = method.build(settings, material).to(self.device, memory_format=torch.channels_last)
        self.network: nn.Module = network
        self.averaged: nn.Module = copy.deepcopy(network).eval()
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY
        )
        self.steps = 0
        self._half = self.device.type == "cuda" or method.half_on_cpu()
        self.shared = settings.processes > 1
        self.reseed()

    def reseed(self) -> None:
        """Start a stream of images that depends on the seed, the process and the steps so far."""
        key = [self.settings.seed, self.rank, self.steps]
        self._rng = np.random.default_rng(np.random.SeedSequence(key))

    def start_from(self, weights: dict[str, Any]) -> None:
        """Take weights of another training of the same size; what that network did not have stays as it is.

        Networks for different numbers of kinds have the same first values of the slots.
        """
        own = self.network.state_dict()
        taken = {name: weights.get(name, value) for name, value in own.items()}
        for name in HEAD:
            if name in taken and taken[name].shape != own[name].shape:
                same = min(len(taken[name]), len(own[name]), SLOTS * CHANNELS)
                taken[name] = torch.cat([taken[name][:same], own[name][same:]])
        self.network.load_state_dict(taken)
        self.averaged.load_state_dict(taken)

    def start_alike(self) -> None:
        """Take the first process's weights, optimiser and number of steps; all must have called this."""
        if not self.shared:
            return
        parameters = list(self.network.parameters())
        steps = torch.tensor([self.steps], device=self.device)
        known = torch.tensor([p in self.optimiser.state for p in parameters], device=self.device)
        share([steps, known], self.device)
        self.steps = int(steps)
        for parameter, there in zip(parameters, known.tolist(), strict=True):
            if there and parameter not in self.optimiser.state:
                self._begin(parameter)
        states = [
            self.optimiser.state[p] for p, there in zip(parameters, known.tolist(), strict=True) if there
        ]
        held = [state[name] for state in states for name in sorted(state)]
        share([*self.network.state_dict().values(), *self.averaged.state_dict().values(), *held], self.device)
        self.reseed()

    def _begin(self, parameter: nn.Parameter) -> None:
        """Give the optimiser a state for a parameter, by a step that changes nothing."""
        only = torch.optim.AdamW([parameter], lr=0.0)
        parameter.grad = torch.zeros_like(parameter)
        only.step()
        parameter.grad = None
        self.optimiser.state[parameter] = only.state[parameter]

    def _places(self, scene: Any) -> tuple[torch.Tensor, ...]:
        """Where the images lie in the field of view, for a network that knows it."""
        if getattr(self.network, "field_shape", None) is None or scene.origin_px is None:
            return ()
        return (torch.from_numpy(scene.origin_px).to(self.device, torch.float32),)

    def step(self, part: float, stop: bool = False) -> tuple[LossParts, float, bool]:
        """Learn from one batch; `part` of the training is over, as the first process sees it.

        Returns the loss here, and the first process's state: the part that is over, and whether to stop.
        """
        settings = self.settings
        sources = self.material.training
        source = sources[self.steps % len(sources)]
        scene = source.draw(self._rng, (settings.crop_px, settings.crop_px), settings.batch)
        images = self.method.given(scene, self.material).to(self.device)
        self.network.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._half):
            maps = self.network(images.contiguous(memory_format=torch.channels_last), *self._places(scene))
        losses = self.method.loss(maps, scene, self.material)
        self.optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        part, stop = self._agree(max(1, losses.over), part, stop)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * self.method.rate_at(part)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.steps += 1
        self._average()
        return losses, part, stop

    @torch.no_grad()
    def _agree(self, over: int, part: float, stop: bool) -> tuple[float, bool]:
        """Make the gradients those of the images of all processes; the first process's state is sent along.

        Each process's loss is a mean over `over` particles, so its gradient has this weight. The running means and
        variances of the batch normalisation become the mean over the processes.
        """
        if not self.shared:
            return part, stop
        first = self.rank == 0
        word = torch.tensor([part if first else 0.0, float(stop and first), float(over)], device=self.device)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        running = [b for b in self.network.buffers() if b.dtype.is_floating_point]
        flat = torch.cat([*(g.flatten() * over for g in gradients), *(b.flatten() for b in running), word])
        add_up(flat)
        weights = [float(flat[-1])] * len(gradients) + [self.settings.processes] * len(running)
        start = 0
        for tensor, weight in zip([*gradients, *running], weights, strict=True):
            size = tensor.numel()
            tensor.copy_(flat[start : start + size].view_as(tensor) / weight)
            start += size
        return float(flat[-3]), bool(flat[-2] > 0.5)

    @torch.no_grad()
    def _average(self) -> None:
        """Move the running mean, quickly while there is little behind it."""
        keep = min(self.settings.average, (1 + self.steps) / (10 + self.steps))
        theirs = self.network.state_dict()
        for name, mine in self.averaged.state_dict().items():
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs[name], 1 - keep)
            else:
                mine.copy_(theirs[name])
