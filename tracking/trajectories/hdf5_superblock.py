"""Reads, checks and builds the superblock of an HDF5 file, its first 48 bytes (versions 2 and 3).

After a program was killed they still say "open for writing", with an old end of file. The repair is that of HDF5's
own `h5clear -s --filesize` (HDF5 File Format Specification 3.0, II.A).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SIZE = 48
LAYOUT = struct.Struct("<8sBBBBQQQQ")
VERSIONS = (2, 3)
MASK = 0xFFFFFFFF
OPEN_FOR_WRITING = 0x01
OPEN_FOR_SWMR = 0x04


@dataclass(frozen=True, slots=True)
class Superblock:
    """The fields of the superblock, with 8-byte offsets and no user block."""

    version: int
    flags: int
    extension: int
    end_of_file: int
    root: int

    def repaired(self, file_bytes: int) -> Superblock:
        """The superblock of the same file, closed, ending where the file ends."""
        return replace(self, flags=0, end_of_file=file_bytes)


def parse(data: bytes) -> Superblock:
    """Read a superblock; raises ValueError with the reason if it is damaged or not one that liveptv writes."""
    if len(data) < SIZE or data[:8] != SIGNATURE:
        raise ValueError("it is not an HDF5 file")
    _, version, offset_bytes, length_bytes, flags, base, extension, end, root = LAYOUT.unpack_from(data)
    if version not in VERSIONS or offset_bytes != 8 or length_bytes != 8 or base != 0:
        raise ValueError(f"its superblock (version {version}) is not one that liveptv writes")
    (stored,) = struct.unpack_from("<I", data, LAYOUT.size)
    if stored != lookup3(data[: LAYOUT.size]):
        raise ValueError("its superblock is damaged (wrong checksum)")
    return Superblock(version, flags, extension, end, root)


def build(block: Superblock) -> bytes:
    """The 48 bytes of a superblock, checksum included."""
    body = LAYOUT.pack(
        SIGNATURE, block.version, 8, 8, block.flags, 0, block.extension, block.end_of_file, block.root
    )
    return body + struct.pack("<I", lookup3(body))


def lookup3(data: bytes, seed: int = 0) -> int:
    """Bob Jenkins' hash `hashlittle` of lookup3.c (2006), HDF5's checksum for metadata."""
    a = b = c = (0xDEADBEEF + len(data) + seed) & MASK
    if not data:
        return c
    padded = data + bytes(-len(data) % 12)
    words = struct.unpack(f"<{len(padded) // 4}I", padded)
    for start in range(0, len(words) - 3, 3):
        a, b, c = (a + words[start]) & MASK, (b + words[start + 1]) & MASK, (c + words[start + 2]) & MASK
        a, b, c = _mix(a, b, c)
    a, b, c = (a + words[-3]) & MASK, (b + words[-2]) & MASK, (c + words[-1]) & MASK
    return _final(a, b, c)


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & MASK) ^ _rotate(c, bits)
        c = (c + b) & MASK
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotate(b, bits)) & MASK
        a, b, c = b, c, a
    return b
