"""Writes what a benchmark measured, with the device and the date, for benchmarks/results/."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil


def device() -> str:
    """The processor, how many of its threads we have, and the memory."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    memory_gib = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{name}, {os.cpu_count()} threads, {memory_gib:.0f} GiB, {system}"


def save(path: Path, rows: Any) -> None:
    """Write `rows` as JSON, below the device, the date and the version."""
    found = {
        "device": device(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "liveptv": version("liveptv"),
        "rows": rows,
    }
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
