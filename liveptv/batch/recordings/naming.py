"""Names of results: as the recordings lie in their folders, never two alike."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from stream.errors import ConfigurationError

ENDINGS = re.compile(
    r"(?:\.ome\.zarr|\.ome\.tiff?|\.companion\.ome|\.frames\.jsonl|\.(?:zarr|tiff?|h5|hdf5?|he5|index))$",
    re.IGNORECASE,
)
"""What is left out of a recording's name."""
ODD = re.compile(r"[^\w.+ -]+")
LONGEST = 180  # characters of one name: file systems take 255 bytes, and endings are added


def names_of(paths: Sequence[Path], top: Path | None = None) -> list[str]:
    """A name for each recording: its path below `top` (else below the folder that all share), without its ending.

    Recordings that would have the same name, as `a.tif` and `a.h5` beside each other, keep their endings; if that
    does not help, they are numbered.
    """
    shared = top if top is not None else _shared(paths)
    whole = [_below(path, shared) for path in paths]
    short = [ENDINGS.sub("", name) for name in whole]
    names = [_clean(name) for name in short]
    names = _told_apart(names, [_clean(name) for name in whole])
    seen: Counter[str] = Counter()
    for number, name in enumerate(names):
        seen[name.lower()] += 1
        if seen[name.lower()] > 1:
            names[number] = f"{name}-{seen[name.lower()]}"
    return names


def _told_apart(names: list[str], longer: list[str]) -> list[str]:
    """The longer name wherever a name occurs more than once; systems differ in whether A and a are the same."""
    count = Counter(name.lower() for name in names)
    return [longer[k] if count[name.lower()] > 1 else name for k, name in enumerate(names)]


def _shared(paths: Sequence[Path]) -> Path | None:
    try:
        found = os.path.commonpath([path.absolute().parent for path in paths])
    except ValueError:  # on two drives
        return None
    return Path(found)


def _below(path: Path, top: Path | None) -> str:
    plain, separator, choice = str(path).partition("::")
    file = Path(plain).absolute()
    if top is None or not file.is_relative_to(top.absolute()):
        name = file.name
    else:
        name = file.relative_to(top.absolute()).as_posix()
    name = file.name if name in {"", "."} else name
    return f"{ENDINGS.sub('', name)}-{choice.replace('=', '')}" if separator else name


def _clean(name: str) -> str:
    parts = [ODD.sub("-", part).strip(" .-")[:LONGEST] or "recording" for part in PurePosixPath(name).parts]
    return "/".join(parts)


def checked(name: str) -> str:
    """A name that a user has given. Raises `ConfigurationError` if it is none, or leads out of the folder."""
    given = name.strip().replace("\\", "/").strip("/")
    if not given or any(part in {"", ".", ".."} for part in given.split("/")) or ":" in given:
        raise ConfigurationError(f"{name!r} cannot be the name of a result; use letters, digits, - and _")
    return _clean(given)
