"""The blocks of pixels that networks read: images are padded to whole ones, parts of frames are made of them."""

from __future__ import annotations

BLOCK_PX = 16
"""px along each side. The network halves the resolution twice after its first cells of 4 px."""
