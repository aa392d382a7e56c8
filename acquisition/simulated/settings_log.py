"""A record of what simulated devices were set to and when, which outlives the process, also one that is killed.

Each device with a `LogFile` appends a JSON object a line: `wall_s`, `pid`, `device`, `setting`, `value`. Several
devices, and several processes one after the other, may share a file. While a file `LogFile` + `.hang` exists
that holds the device's label, the device hangs in whatever it is told.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

HANG_LOOK_S = 0.02


class SettingsLog:
    """Appends settings to a file, if one is named."""

    def __init__(self) -> None:
        self.path = ""

    def set_path(self, path: str) -> None:
        """Log to this file from now on; "" for none."""
        self.path = path

    def write(self, device: str, setting: str, value: float | bool) -> None:
        """Log one setting, in one write, and hang where the device is said to."""
        if not self.path:
            return
        entry = {
            "wall_s": time.time(),
            "pid": os.getpid(),
            "device": device,
            "setting": setting,
            "value": value,
        }
        line = (json.dumps(entry) + "\n").encode()
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def hang(self, device: str) -> None:
        """Come back only once the device is no longer said to hang."""
        while self.path and _hangs(Path(self.path + ".hang"), device):
            time.sleep(HANG_LOOK_S)


def read_settings(path: Path) -> list[dict[str, Any]]:
    """What the devices of a file were set to, in order; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _hangs(path: Path, device: str) -> bool:
    try:
        return device in path.read_text().split()
    except OSError:
        return False
