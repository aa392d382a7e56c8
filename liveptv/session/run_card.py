"""The card of a run: a small file, readable by its user only, with the addresses and secrets of a run that is on.

Viewers find a run by its card. It is written when the session starts, completed as the stages get ready, and
removed at the end.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from stream.errors import SourceError
from stream.run_keys import Pass
from stream.safe_text import json_bytes

LARGEST_CARD = (
    1 << 24
)  # bytes read of a card; the settings of a run take a few kB, so a larger file is no card


class RunCard(msgspec.Struct, frozen=True, rename={"commands": "wishes"}):
    """What a viewer must know of a run, secrets included. Addresses that are not bound yet are empty.

    `steering` opens `commands` (in the file `wishes`), `listening` opens `session` and `track`, `watching` opens
    `detect`.
    """

    run_id: str
    pid: int
    began_s: float
    output: str
    events: str
    session: str
    commands: str
    detect: str = ""
    track: str = ""
    configuration: dict[str, Any] = {}
    image_shape: tuple[int, int] | None = None
    pixel_size_um: float = 1.0
    frame_rate_hz: float | None = None
    steering: Pass = Pass()
    listening: Pass = Pass()
    watching: Pass = Pass()

    @property
    def complete(self) -> bool:
        """Whether everything is on it: what can be subscribed to, and what the images look like."""
        return bool(self.detect and self.track and self.image_shape)


def cards_folder() -> Path:
    """The folder with the cards of the runs on this computer."""
    return Path(os.environ.get("LIVEPTV_RUNS") or platformdirs.user_state_path("liveptv") / "runs")


def read_card(path: Path) -> RunCard:
    """Read a card; raises `SourceError` if it is missing, no card, or of another user."""
    try:
        with path.open("rb") as file:
            owner = os.fstat(file.fileno()).st_uid
            card = msgspec.json.decode(file.read(LARGEST_CARD + 1), type=RunCard)
    except OSError as error:
        raise SourceError(f"no run is announced at {path}; it may be over") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} does not announce a run: {error}") from error
    if hasattr(os, "geteuid") and os.geteuid() not in (owner, 0):
        raise SourceError(f"{path} belongs to another user; you can watch only your own runs")
    return card


def write_card(path: Path, card: RunCard) -> None:
    """Write a card that nobody but its owner can read, at any moment; raises `OSError`.

    On Windows the user's profile is closed to others by itself.
    """
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if "LIVEPTV_RUNS" not in os.environ:
        folder.chmod(0o700)
    part = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(json_bytes(card))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
