"""A log of the settings of simulated devices over time, which outlives the process, also if it is killed.

Each device with a `LogFile` appends JSON lines: `wall_s`, `pid`, `device`, `setting`, `value`. Several devices and
several processes may share a file. While a file `LogFile` + `.hang` contains the label of the device, the device
hangs when it is set.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

HANG_LOOK_S = 0.02  # s between two looks whether the device still hangs


class SettingsLog:
    """Appends settings to a file, if one is named."""

    def __init__(self) -> None:
        self.path = ""

    def set_path(self, path: str) -> None:
        """Log to this file from now on; "" for none."""
        self.path = path

    def write(self, device: str, setting: str, value: float | bool) -> None:
        """Log one setting in a single write."""
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
        """Wait as long as the device is to hang."""
        while self.path and _hangs(Path(self.path + ".hang"), device):
            time.sleep(HANG_LOOK_S)


def read_settings(path: Path) -> list[dict[str, Any]]:
    """The settings in a log file, in order; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _hangs(path: Path, device: str) -> bool:
    try:
        return device in path.read_text().split()
    except OSError:
        return False
