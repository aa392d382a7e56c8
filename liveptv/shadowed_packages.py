"""Makes our root packages importable even if a user's own file has the same name, such as `tracking.py`.

Python looks in the folder of a script or a notebook first, so such a file would be imported instead of our package.
After `import liveptv` our five names mean our packages, in this process and in those it starts, and a warning names
the file that is passed over. If such a file was imported before, an `ImportError` names it.
"""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

ROOT_PACKAGES = ("acquisition", "stream", "engines", "tracking", "calibration")
HOME = Path(__file__).resolve().parent.parent


class HiddenFileWarning(UserWarning):
    """A file or folder of the user's has the name of one of our packages, and is passed over."""


class HomeFinder:
    """Finds our root packages where they are installed, whatever comes first on `sys.path`."""

    def __init__(self, home: Path = HOME) -> None:
        self.home = home

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What `sys.meta_path` asks for; None for all names that are not ours."""
        if name not in ROOT_PACKAGES or path is not None:
            return None
        return PathFinder.find_spec(name, [str(self.home)])


def protect(home: Path = HOME) -> None:
    """Let our names mean our packages from now on, and warn of what has one of them. Done by `import liveptv`.

    Raises `ImportError` if something else was imported under one of them already.
    """
    imported = {name: origin for name in ROOT_PACKAGES if (origin := _imported_from_elsewhere(name, home))}
    if imported:
        raise ImportError(
            f"liveptv cannot be used here: {_listed(imported)}, which liveptv has for packages of its own; "
            "rename your file, or import liveptv before it and do without it"
        )
    if not any(isinstance(finder, HomeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, HomeFinder(home))
    hidden = hidden_packages(home)
    if hidden and multiprocessing.current_process().name == "MainProcess":
        warnings.warn_explicit(explain(hidden), HiddenFileWarning, "liveptv", 0)


def hidden_packages(home: Path = HOME, names: Iterable[str] = ROOT_PACKAGES) -> dict[str, str]:
    """For each of our packages that Python would take from elsewhere by itself, where it would come from.

    `home` is the folder our packages are installed in (`site-packages`, or the checkout when installed
    with `-e`).
    """
    hidden: dict[str, str] = {}
    for name in names:
        spec = PathFinder.find_spec(name)
        if spec is None or spec.origin is None:
            continue  # nowhere, or a folder without Python in it, which hides nothing
        if Path(spec.origin).resolve() != (home / name / "__init__.py").resolve():
            hidden[name] = spec.origin
    return hidden


def explain(hidden: dict[str, str]) -> str:
    """One line that says which files are passed over, and what to do."""
    files = ", ".join(hidden.values())
    names = ", ".join(hidden)
    return (
        f"{files} cannot be imported beside liveptv, which has packages of the same name ({names}): liveptv's own "
        "are used; rename yours if you want to import it"
    )


@contextmanager
def home_first(home: Path = HOME) -> Iterator[None]:
    """Let processes that are started meanwhile find our packages first, if something would hide them there.

    A new process inherits `sys.path`, and `liveptv` is not always the first that it imports.
    """
    if not hidden_packages(home):
        yield
        return
    sys.path.insert(0, str(home))
    try:
        yield
    finally:
        sys.path.remove(str(home))


def _imported_from_elsewhere(name: str, home: Path) -> str:
    """Where a module of one of our names was imported from, if that is not ours; else empty."""
    module = sys.modules.get(name)
    if module is None:
        return ""
    ours = (home / name / "__init__.py").resolve()
    origin = getattr(module, "__file__", None)
    if origin is not None:
        return "" if Path(origin).resolve() == ours else str(origin)
    folders = [str(folder) for folder in getattr(module, "__path__", ())]
    return folders[0] if folders else "a module without a file"


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{origin} was imported as {name!r}" for name, origin in found.items())
