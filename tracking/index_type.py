"""The one type of indexes in kernels: numba compiles a function again for each other type and for constants."""

from __future__ import annotations

from typing import cast

import numpy as np

Index = cast("type[int]", np.int64)
"""Makes an index of a constant or of an element of an array of another type (`int` would keep that type)."""
