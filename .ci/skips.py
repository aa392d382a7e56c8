"""Which test files had skips in a log of `pytest -r s`, and whether each skip is on the list of allowed ones.

usage: skips.py files LOG (prints the files)  |  skips.py check LOG (exit status 1 if a skip is not on the list)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINE = re.compile(r"^SKIPPED \[\d+\] (?P<file>[^:]+?)(?::\d+)?: (?P<reason>.*)$")
ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def skips(log: str) -> list[tuple[str, str]]:
    """File and reason of every skip in a log."""
    found = (LINE.match(line) for line in log.splitlines())
    return [(match["file"], match["reason"]) for match in found if match]


def main() -> int:
    """Print the files, or the skips that nobody allowed."""
    what, log = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8")
    if what == "files":
        print("\n".join(sorted({file for file, _ in skips(log)})))
        return 0
    lines = ALLOWED.read_text(encoding="utf-8").splitlines()
    allowed = [re.compile(line) for line in lines if line and not line.startswith("#")]
    unlisted = [
        f"{file}: {reason}"
        for file, reason in skips(log)
        if not any(p.search(f"{file}: {reason}") for p in allowed)
    ]
    for skip in unlisted:
        print(f"skipped, and not on the list in {ALLOWED.name}: {skip}")
    return 1 if unlisted else 0


if __name__ == "__main__":
    sys.exit(main())
