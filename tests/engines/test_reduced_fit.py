"""The fit in part: which particles get it, what the others keep and state, and that none waits for ever."""

from __future__ import annotations
