"""How the processes of a training meet and what they send one another: sums of numbers and copies of weights.

By `torch.distributed`, over gloo on processors and NCCL on GPUs. Only numbers of shapes that both sides know are
sent, and nothing is unpickled. Its sockets are neither encrypted nor authenticated: they are for a cluster's own
network, never for a public one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from calibration.training.group.member import Member
from calibration.training.settings import TrainingError

PEER_TIMEOUT = timedelta(minutes=10)
"""Silence after which another process counts as lost: the first one's scores take seconds to a minute between two
steps. A process that dies is noticed at once, by its closed connection; a computer without power after this."""
SAID_TIMEOUT = timedelta(seconds=5)
DIGEST_BYTES = 32
FAILED = bytes(DIGEST_BYTES)
SAID = "liveptv/said"


class LostPeerError(TrainingError):
    """Another process of the training is gone."""


class PeerFailedError(TrainingError):
    """Another process of the training has failed, and says itself why."""


@contextlib.contextmanager
def joined(member: Member, device: str) -> Iterator[None]:
    """Meet the other processes, and leave them at the end. Raises `TrainingError` where they cannot be met."""
    if member.alone:
        yield
        return
    try:
        store = _store(member, PEER_TIMEOUT)
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=store, rank=member.rank, world_size=member.size, timeout=PEER_TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"cannot meet the other {member.size - 1} processes of the training ({_brief(error)}); start all "
            "of them with the same --nnodes and --rdzv-endpoint, and let their ports through"
        ) from error
    try:
        yield
    finally:
        # after a failure the others may be gone, and a farewell would wait for them
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def check_alike(member: Member, what: str | None, device: torch.device) -> None:
    """Raise `TrainingError` unless all processes have the same `what`: settings and training material in words.

    None says that this process cannot take part; the others raise `PeerFailedError` then, as do all but the first
    where they differ.
    """
    if member.alone:
        return
    own = FAILED if what is None else hashlib.sha256(what.encode()).digest()
    mine = torch.tensor(list(own), dtype=torch.uint8, device=device)
    theirs = [torch.empty_like(mine) for _ in range(member.size)]
    with _noticing_loss():
        dist.all_gather(theirs, mine)
    digests = [bytes(each.tolist()) for each in theirs]
    if what is None:
        return
    if FAILED in digests:
        raise PeerFailedError(f"process {digests.index(FAILED) + 1} of {member.size} could not start")
    others = [str(rank + 1) for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        if not member.first:
            raise PeerFailedError("the first process has other settings")
        raise TrainingError(
            f"of the {member.size} processes of this training, number {', '.join(others)} got another "
            "calibration, other options or another version of liveptv than the first; give all the same"
        )


def add_up(numbers: torch.Tensor) -> None:
    """Replace the numbers by their sums over all processes. Raises `LostPeerError`."""
    with _noticing_loss():
        dist.all_reduce(numbers)


@torch.no_grad()
def share(tensors: Sequence[torch.Tensor], device: torch.device) -> None:
    """Give all processes the first one's values, in place; shapes and order are the same in all.

    Raises `LostPeerError`.
    """
    for tensor in tensors:
        sent = tensor.detach().to(device).contiguous().clone()
        with _noticing_loss():
            dist.broadcast(sent, 0)
        tensor.copy_(sent)


def first_to_say(member: Member) -> bool:
    """Whether no other process has reported the end of this training yet; True where that cannot be known."""
    if not member.launched:
        return True
    try:
        return int(_store(member, SAID_TIMEOUT).add(SAID, 1)) == 1
    except (RuntimeError, ValueError):
        return True


def _store(member: Member, timeout: timedelta) -> dist.Store:
    if member.meeting is not None:
        return dist.FileStore(str(member.meeting), member.size)
    store, _rank, _size = next(iter(dist.rendezvous("env://", timeout=timeout)))
    return store


@contextlib.contextmanager
def _noticing_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostPeerError(
            f"another process of the training is gone ({_brief(error)}); see that its computer has memory and "
            "network left, then give the same command with the same --checkpoint to continue"
        ) from error


def _brief(error: Exception) -> str:
    """The first sentence of torch's message, without the place in its source and the stack."""
    first = " ".join(str(error).split("\n")[0].split())
    place, said, text = first.partition(
        "]: "
    )  # "[/pytorch/.../pair.cc:547] Read error [192.168.0.2]:1234: ..."
    sentence = (text if said else place).partition(". ")[0].rstrip(". ")
    return sentence.rpartition("] ")[2][:160] or type(error).__name__
