"""Notices when a user's own file hides one of our root packages (`stream.py` beside the experiment, say)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

ROOT_PACKAGES = ("acquisition", "stream", "engines", "tracking", "calibration")


def hidden_packages(home: Path, names: Iterable[str] = ROOT_PACKAGES) -> dict[str, str]:
    """Return, for each of our packages that Python would import from elsewhere, where it would come from.

    `home` is the folder our packages are installed in (`site-packages`, or the checkout when installed
    with `-e`). A package that cannot be found at all is reported as "nowhere".
    """
    hidden: dict[str, str] = {}
    for name in names:
        spec = importlib.util.find_spec(name)
        origin = None if spec is None else spec.origin
        if origin is None:
            places = list(spec.submodule_search_locations or ()) if spec is not None else []
            hidden[name] = places[0] if places else "nowhere"
        elif Path(origin).resolve() != (home / name / "__init__.py").resolve():
            hidden[name] = origin
    return hidden


def explain(hidden: dict[str, str], home: Path) -> str:
    """One line that says what hides what, and what to do."""
    what = ", ".join(f"{name!r} is taken from {origin}" for name, origin in hidden.items())
    return (
        f"liveptv's own packages in {home} are hidden: {what}. "
        "Rename that file or folder, or start liveptv from another folder."
    )
