"""Damage to the bytes of a file: cut, flipped, swapped, appended."""

import re
import struct


def cut(make, keep):
    """Keep a fraction of the file (below 1), so many bytes (from 1 on), or all but so many (below 0)."""

    def made(folder):
        path = make(folder)
        data = path.read_bytes()
        end = int(keep * len(data)) if 0 < keep < 1 else int(keep)
        path.write_bytes(data[:end])
        return path

    return made


def poked(make, at, new):
    """Write bytes at an offset; a negative one counts from the end."""

    def made(folder):
        path = make(folder)
        data = bytearray(path.read_bytes())
        start = at % len(data)
        data[start : start + len(new)] = new
        path.write_bytes(bytes(data))
        return path

    return made


def flipped(make, at, bits=0xFF):
    """Flip bits of the byte at an offset (a fraction of the file below 1)."""

    def made(folder):
        path = make(folder)
        data = bytearray(path.read_bytes())
        where = int(at * len(data)) if 0 < at < 1 else int(at) % len(data)
        data[where] ^= bits
        path.write_bytes(bytes(data))
        return path

    return made


def appended(make, tail):
    """More bytes behind the end."""

    def made(folder):
        path = make(folder)
        path.write_bytes(path.read_bytes() + tail)
        return path

    return made


def zeroed_tail(make, fraction):
    """The last part of the file is zeros, as of a file that was allocated but not copied to its end."""

    def made(folder):
        path = make(folder)
        data = path.read_bytes()
        keep = int((1 - fraction) * len(data))
        path.write_bytes(data[:keep] + bytes(len(data) - keep))
        return path

    return made


def renamed(make, name):
    """The same file under another name."""
    return lambda folder: make(folder).rename(folder / name)


def tag_changed(make, code, *, kind=None, count=None, value=None, page=0):
    """Overwrite a field of one TIFF tag in place: classic TIFF, a value that fits into four bytes."""

    def made(folder):
        path = make(folder)
        data = bytearray(path.read_bytes())
        order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
        (ifd,) = struct.unpack_from(order + "I", data, 4)
        for _ in range(page):
            (tags,) = struct.unpack_from(order + "H", data, ifd)
            (ifd,) = struct.unpack_from(order + "I", data, ifd + 2 + 12 * tags)
        (tags,) = struct.unpack_from(order + "H", data, ifd)
        for entry in range(ifd + 2, ifd + 2 + 12 * tags, 12):
            if struct.unpack_from(order + "H", data, entry)[0] != code:
                continue
            if kind is not None:
                struct.pack_into(order + "H", data, entry + 2, kind)
            if count is not None:
                struct.pack_into(order + "I", data, entry + 4, count)
            if value is not None:
                short = struct.unpack_from(order + "H", data, entry + 2)[0] == 3
                struct.pack_into(order + ("H" if short else "I"), data, entry + 8, value)
            path.write_bytes(bytes(data))
            return path
        raise AssertionError(f"no tag {code} in page {page}")

    return made


def next_page_changed(make, page, target):
    """Let the pointer behind a page's tags lead elsewhere."""

    def made(folder):
        path = make(folder)
        data = bytearray(path.read_bytes())
        order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
        at = 4
        for _ in range(page + 1):
            (ifd,) = struct.unpack_from(order + "I", data, at)
            (tags,) = struct.unpack_from(order + "H", data, ifd)
            at = ifd + 2 + 12 * tags
        struct.pack_into(order + "I", data, at, target)
        path.write_bytes(bytes(data))
        return path

    return made


def substituted(text, *edits):
    """The text with each (pattern, replacement); a pattern that is not in it is a mistake of the test."""
    for pattern, new in edits:
        text, count = re.subn(pattern, new, text)
        assert count, f"nothing to replace: {pattern}"
    return text
