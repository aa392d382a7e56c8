from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import zmq
from training_particles import gaussian_model

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from torch.multiprocessing import get_context  # noqa: E402

from calibration.synthesis import Layout, NoiseModel, Rendered  # noqa: E402
from calibration.training import checkpoint  # noqa: E402
from calibration.training.checkpoint import Course  # noqa: E402
from calibration.training.group.meeting import check_alike, joined  # noqa: E402
from calibration.training.group.member import LAUNCHED, Member, launched_member  # noqa: E402
from calibration.training.material import Material  # noqa: E402
from calibration.training.settings import TrainingError, TrainingSettings  # noqa: E402
from calibration.training.train import train  # noqa: E402
from calibration.training.trainer import OURS, Trainer  # noqa: E402
from engines.network.architecture import ParticleNet  # noqa: E402
from stream.errors import ConfigurationError  # noqa: E402

QUICK = TrainingSettings(minutes=1.0, crop_px=64, batch=4, learning_rate=5e-3, score_every_s=1e6)
ENDS_WITHIN_S = 240
"""For programs that start torch beside two busy ones."""


def gaussian_material(made_from="gaussians") -> Material:
    noise = NoiseModel.steady(0.0, 1e-4, 200.0)
    model = gaussian_model()
    source = Rendered(model, noise, None, Layout((2e-3, 4e-3), overlapped=0.2))
    return Material((source,), source, 0.8, "dark", 0.0, 60.0, 0.01, 0.1, made_from, model.for_fit())


class Shares:
    """The same images in every process, of which number `rank` gets the crops from `rank` times the batch on."""

    def __init__(self, rank, whole):
        self.rank, self.whole, self.drawn = rank, whole, 0

    def draw(self, rng, shape, count):
        source = gaussian_material().scoring
        scene = source.draw(np.random.default_rng(100 + self.drawn), shape, self.whole)
        self.drawn += 1
        start = self.rank * count
        mine = (scene.particles.frame >= start) & (scene.particles.frame < start + count)
        particles = scene.particles.where(mine)
        particles.frame[:] -= start
        return dataclasses.replace(scene, images=scene.images[start : start + count], particles=particles)


class Steady(ParticleNet):
    """In double precision; its batch normalisation has fixed statistics, as these are those of its own images."""

    def __init__(self, settings, material):
        super().__init__(settings.size, material.knee)
        self.double()

    def train(self, mode=True):
        return super().train(False)

    def forward(self, images, *rest):
        return super().forward(images.double(), *rest)


STEADY = dataclasses.replace(OURS, build=Steady)


def trained_on_shares(member, settings, whole, steps):
    """Gradients of the first step, and the weights after some, of a process that gets its share of the images."""
    torch.set_num_threads(1)
    shares = Shares(member.rank, whole)
    material = gaussian_material()
    object.__setattr__(material, "training", (shares,))
    trainer = Trainer(settings, material, member.rank, STEADY)
    gradients = []
    for step in range(steps):
        trainer.step(0.05 + 0.1 * step)
        gradients.append([p.grad.clone().numpy() for p in trainer.network.parameters() if p.grad is not None])
    return gradients, [value.detach().numpy().copy() for value in trainer.network.state_dict().values()]


def in_group(member, answers, work, *arguments):
    torch.set_num_threads(1)
    try:
        with joined(member, "cpu"):
            answers.put((member.rank, work(member, *arguments)))
    except TrainingError as error:
        answers.put((member.rank, error))


def together(tmp_path, work, size, *arguments):
    """What each of `size` processes answers, by rank."""
    context = get_context("spawn")
    answers = context.Queue()
    members = [Member(rank, size, rank, size, tmp_path / "meeting") for rank in range(size)]
    processes = [context.Process(target=in_group, args=(m, answers, work, *arguments)) for m in members]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=ENDS_WITHIN_S) for _ in processes)
    for process in processes:
        process.join(ENDS_WITHIN_S)
    return [found[rank] for rank in range(size)]


def test_two_processes_with_half_the_batch_each_learn_what_one_with_all_of_it_learns(tmp_path):
    one = trained_on_shares(Member(), QUICK.model_copy(update={"batch": 6}), 6, 3)
    halves = QUICK.model_copy(update={"batch": 3, "processes": 2})
    both = together(tmp_path, trained_on_shares, 2, halves, 6, 3)
    for gradients, weights in both:
        for here, there in zip(gradients, one[0], strict=True):
            for mine, theirs in zip(here, there, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-9)
        for mine, theirs in zip(weights, one[1], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)


def resumed(member, settings):
    trainer = Trainer(settings, gaussian_material(), member.rank)
    course = checkpoint.resume(settings.checkpoint, trainer) if member.first else None
    assert (course is not None) == member.first
    trainer.start_alike()
    drawn = trainer.material.scoring.draw(trainer._rng, (64, 64), 1).images
    trainer.reseed()
    trainer.step(0.5)
    states = [trainer.network, trainer.averaged]
    held = [value.numpy().copy() for each in states for value in each.state_dict().values()]
    state = trainer.optimiser.state
    held += [
        state[p][name].numpy().copy() for p in trainer.network.parameters() if p in state for name in state[p]
    ]
    return trainer.steps, drawn, held


def test_a_training_of_one_process_goes_on_with_three_which_hold_the_same_and_draw_their_own_images(tmp_path):
    """Only the first one sees the checkpoint, as on computers without a common disk."""
    torch.set_num_threads(1)
    settings = QUICK.model_copy(update={"checkpoint": tmp_path / "saved"})
    before = Trainer(settings, gaussian_material())
    for step in range(3):
        before.step(step / 8)
    checkpoint.save(tmp_path / "saved", before, Course(trained_s=12.0))
    found = together(tmp_path, resumed, 3, settings.model_copy(update={"processes": 3}))
    assert [steps for steps, _, _ in found] == [4, 4, 4]
    for _, _, held in found[1:]:
        assert all(np.array_equal(mine, first) for mine, first in zip(held, found[0][2], strict=True))
    images = [drawn for _, drawn, _ in found]
    assert not any(np.array_equal(images[a], images[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def alike(member, cases):
    found = []
    for texts in cases:
        try:
            check_alike(member, texts[member.rank], torch.device("cpu"))
            found.append("")
        except TrainingError as error:
            found.append(str(error))
    return found


def test_processes_that_would_train_different_things_do_not_begin_and_one_says_why(tmp_path):
    cases = [("same", "same", "same"), ("same", "other", "same"), ("same", "same", None)]
    first, second, third = together(tmp_path, alike, 3, cases)
    assert (first[0], second[0], third[0]) == ("", "", "")
    assert "number 2 got another calibration" in first[1]
    assert "the first process" in second[1]
    assert "the first process" in third[1]
    assert first[2] == second[2] == "process 3 of 3 could not start"
    assert third[2] == ""  # it raises its own error


def test_one_process_of_a_launcher_gives_what_a_training_without_one_gives():
    settings = QUICK.model_copy(update={"steps": 3})
    member = launched_member(dict(zip(LAUNCHED, ("0", "1", "localhost", "29500"), strict=True)))
    assert member is not None
    torch.set_num_threads(1)
    plain = train(gaussian_material, settings).weights
    launched = train(gaussian_material, settings, member=member).weights
    assert plain.keys() == launched.keys()
    assert all(torch.equal(plain[name], launched[name]) for name in plain)


def test_a_process_knows_its_part_from_the_environment_and_refuses_one_that_cannot_be():
    good = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "node", "MASTER_PORT": "29500"}
    good |= {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert launched_member(good) == Member(3, 4, 1, 2)
    assert launched_member({}) is None
    assert launched_member({"RANK": "0", "WORLD_SIZE": "2"}) is None
    wrong = [
        ("RANK", "4"),
        ("RANK", "-1"),
        ("RANK", ""),
        ("RANK", "one"),
        ("RANK", "\u0661"),
        ("WORLD_SIZE", "0"),
    ]
    wrong += [
        ("WORLD_SIZE", "9" * 30),
        ("LOCAL_RANK", "2"),
        ("LOCAL_WORLD_SIZE", "5"),
        ("MASTER_PORT", "http"),
    ]
    for name, text in wrong:
        with pytest.raises(ConfigurationError, match=f"{name}="):
            launched_member(good | {name: text})


def test_the_cores_of_a_computer_are_shared_out_to_its_processes(monkeypatch):
    monkeypatch.setattr("calibration.training.group.member.usable_cores", lambda: 12)
    assert Member(0, 8, 0, 4).threads() == 3
    assert Member(0, 64, 0, 32).threads() == 1
    assert Member().threads() is None
    assert Member(0, 4, 0, 4, meeting="here").threads() == 1


def torchrun(tmp_path, *arguments, processes=2):
    """A training by torchrun, as a user starts it; its output goes to a file."""
    with zmq.Context() as context, context.socket(zmq.REP) as probe:  # above the ports that Linux gives away
        port = probe.bind_to_random_port("tcp://127.0.0.1", min_port=61_000)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    command += ["-m", "liveptv", "train", "--optics", "simulated", "--from", "nothing", "--batch", "2"]
    environment = os.environ | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(ENDS_WITHIN_S)}
    if sys.platform == "win32":
        environment["USE_LIBUV"] = "0"
    with (tmp_path / "out.txt").open("w") as out:
        return subprocess.Popen(
            [*command, "-o", str(tmp_path / "model.onnx"), *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def said(tmp_path):
    """The lines that are not the launcher's own."""
    return [line for line in (tmp_path / "out.txt").read_text().splitlines() if line.startswith("error:")]


def until(what, seconds=ENDS_WITHIN_S):
    deadline_s = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return what()


def ranks_of(program):
    children = psutil.Process(program.pid).children(recursive=True)
    found = {}
    for child in children:
        with_rank = child.environ().get("RANK") if "train" in child.cmdline() else None
        if with_rank is not None:
            found[int(with_rank)] = child
    return found


def training(tmp_path):
    return until((tmp_path / "saved" / checkpoint.NAME).is_file)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_all_with_one_line(tmp_path, rank):
    program = torchrun(tmp_path, "--minutes", "3", "--checkpoint", str(tmp_path / "saved"))
    try:
        assert training(tmp_path)
        ranks = ranks_of(program)
        ranks[rank].kill()
        assert program.wait(ENDS_WITHIN_S) != 0
        assert until(lambda: not any(each.is_running() for each in ranks.values()))
    finally:
        program.kill()
    (line,) = said(tmp_path)
    assert "another process of the training is gone" in line
    assert "--checkpoint" in line


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a signal to one program")
def test_ctrl_c_ends_all_and_one_process_writes_the_best_network_so_far_and_speaks(tmp_path):
    program = torchrun(tmp_path, "--minutes", "3", "--checkpoint", str(tmp_path / "saved"))
    try:
        assert training(tmp_path)
        ranks = ranks_of(program)
        program.send_signal(signal.SIGINT)
        program.wait(ENDS_WITHIN_S)
        assert until(lambda: not any(each.is_running() for each in ranks.values()))
    finally:
        program.kill()
    assert said(tmp_path) == []
    assert (tmp_path / "out.txt").read_text().count("network written to") == 1
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the number of a dead parent")
def test_no_process_outlives_a_torchrun_that_was_killed(tmp_path):
    program = torchrun(tmp_path, "--minutes", "3", "--checkpoint", str(tmp_path / "saved"))
    assert training(tmp_path)
    ranks = ranks_of(program)
    program.kill()
    program.wait()
    assert until(lambda: not any(each.is_running() for each in ranks.values()))
