"""Values as JSON knows them."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """The value with lists for tuples, and None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
