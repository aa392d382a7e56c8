"""Which computer, process and versions of programs have written a trajectory file."""

from __future__ import annotations

import os
import platform
import socket
import sys
from importlib.metadata import PackageNotFoundError, version

import h5py

PACKAGES = ("liveptv", "h5py", "numpy", "numba", "pymmcore-plus", "pyzmq", "onnxruntime")


def versions() -> dict[str, str]:
    """Versions of Python, HDF5, the system and the packages that matter."""
    found = {"python": platform.python_version(), "hdf5": h5py.version.hdf5_version, "system": sys.platform}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def this_process() -> dict[str, object]:
    """Which computer and process have written the file. Whether they still do is for locks to say."""
    return {"host": socket.gethostname(), "pid": os.getpid()}
