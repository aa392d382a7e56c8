"""Which of the processes of a training this one is, as torchrun or the program that started it says."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ConfigurationError

MOST_PROCESSES = 4096
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun, and launchers like it, set for each process; a name alone does not make a training of several."""


@dataclass(frozen=True, slots=True)
class Member:
    """One of the `size` processes of a training, number `rank`; `local_size` of them are on this computer.

    They meet at the file `meeting`, or, without one, at the address that torchrun put into the environment.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    meeting: Path | None = None

    @property
    def alone(self) -> bool:
        """Whether there is no other process to agree with."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that decides, reports and writes."""
        return self.rank == 0

    @property
    def launched(self) -> bool:
        """Whether a launcher started it, so that it is a program of its own beside others."""
        return not self.alone and self.meeting is None

    @property
    def name(self) -> str:
        """For messages: "process 3 of 4 on server"; processes count from 1 there."""
        return f"process {self.rank + 1} of {self.size} on {socket.gethostname()}"

    def threads(self) -> int | None:
        """Threads for this process's arithmetic; None: as many as the library takes by itself."""
        if self.alone:
            return None
        return max(1, usable_cores() // self.local_size) if self.launched else 1


def usable_cores() -> int:
    """Cores that this process may use, which a cluster limits to those of the job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def launched_member(environment: Mapping[str, str] = os.environ) -> Member | None:
    """The process as torchrun describes it in the environment; None where no launcher started it.

    Raises `ConfigurationError` for a description that cannot be true.
    """
    if any(name not in environment for name in LAUNCHED):
        return None
    size = _whole(environment, "WORLD_SIZE", 1, MOST_PROCESSES)
    rank = _whole(environment, "RANK", 0, size - 1)
    _whole(environment, "MASTER_PORT", 0, 65535)
    local_size = _whole(environment, "LOCAL_WORLD_SIZE", 1, size, default=1)
    local_rank = _whole(environment, "LOCAL_RANK", 0, local_size - 1, default=0)
    return Member(rank, size, local_rank, local_size)


def _whole(
    environment: Mapping[str, str], name: str, least: int, most: int, default: int | None = None
) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    number = int(text) if text is not None and text.isascii() and text.isdecimal() else -1
    if not least <= number <= most:
        raise ConfigurationError(
            f"{name}={text} in the environment must be a whole number from {least} to {most}; start the training "
            "with torchrun, which sets it, or unset it"
        )
    return number
