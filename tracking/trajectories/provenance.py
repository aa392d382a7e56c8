"""The computer, process and program versions that write a trajectory file."""

from __future__ import annotations

import os
import platform
import socket
import sys
from importlib.metadata import PackageNotFoundError, version

import h5py

PACKAGES = (
    "liveptv",
    "h5py",
    "numpy",
    "numba",
    "scipy",
    "pymmcore-plus",
    "pyzmq",
    "onnxruntime",
    "openvino",
    "torch",
)


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
    """The computer and process that write the file; only locks can tell whether they still do."""
    return {"host": socket.gethostname(), "pid": os.getpid()}
