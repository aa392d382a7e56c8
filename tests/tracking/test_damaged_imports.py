"""Files of other programs, damaged at random: each is read, or refused in one line."""

import shutil
import warnings

import numpy as np
import pytest
from interchange_files import FORMATS, back, there
from trajectory_files import tracks, write

from stream.errors import SourceError

TRIES = 60
WORDS = [
    b"NaN",
    b"1e999",
    b"-1",
    b"99999999999999999999",
    b"<",
    b"&lt;",
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"\xff\xfe",
    b"",
]


def damaged(data, random):
    """The bytes with a part cut off, changed, repeated, or replaced by a word."""
    at = int(random.integers(len(data) + 1))
    stop = min(len(data), at + int(random.integers(1, 40)))
    how = random.integers(5)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + bytes(random.integers(0, 256, stop - at, np.uint8)) + data[stop:]
    if how == 2:
        return data[:stop] + data[at:]
    if how == 3:
        return data[:at] + WORDS[random.integers(len(WORDS))] + data[stop:]
    digits = [place for place, byte in enumerate(data) if byte in b"0123456789"]
    if not digits:
        return data[:at]
    place = digits[random.integers(len(digits))]
    return data[:place] + str(random.integers(0, 10)).encode() + data[place + 1 :]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_whatever_is_damaged_ends_in_a_result_or_in_one_line(tmp_path, name):
    random = np.random.default_rng(sum(map(ord, name)))
    frames = [tracks(f, 3, z_um=[1.0, np.nan, f], vx_um_s=2.0, confidence=0.5) for f in range(6)]
    whole = there(write(tmp_path / "tracks.h5", frames), name)
    target = tmp_path / f"damaged{whole.suffix}"
    said = []
    for number in range(TRIES):
        if whole.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(whole, target)
            files = sorted(file for file in target.rglob("*") if file.is_file())
            file = files[random.integers(len(files))]
        else:
            shutil.copy(whole, target)
            file = target
        if number % 10 == 9 and whole.is_dir():
            file.unlink()
        else:
            file.write_bytes(damaged(file.read_bytes(), random))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                back(target, tmp_path / "back.h5")
        except SourceError as error:
            said.append(str(error))
    assert len(said) > TRIES / 10
    assert not [text for text in said if "\n" in text or len(text) > 1000]
