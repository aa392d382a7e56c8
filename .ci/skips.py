"""What the first test run of CI skipped, and whether the second one has really run it; from pytest's JUnit files.

usage: skips.py files FIRST.xml (prints the test files to run again)
       skips.py check FIRST.xml SECOND.xml (exit status 1 if a test stays unrun for a reason that is not allowed)

Both files are written by `pytest -o junit_family=xunit1 --junitxml=FILE`: that family names each test's file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ALLOWED = Path(__file__).with_name("allowed_skips.txt")


@dataclass(frozen=True)
class Outcome:
    """One test, or one file that was skipped as a whole; `skipped` is the reason, empty for a test that ran."""

    file: str
    name: str
    skipped: str


def outcomes(junit: str) -> list[Outcome]:
    """Every test that a JUnit file speaks of."""
    found = []
    for case in ElementTree.fromstring(junit).iter("testcase"):
        skip = case.find("skipped")
        reason = "" if skip is None else f"{skip.get('message')} {skip.text or ''}"
        found.append(Outcome(case.get("file", ""), case.get("name", ""), " ".join(reason.split())))
    return found


def unlisted(first: Iterable[Outcome], second: Iterable[Outcome], allowed: Iterable[str]) -> list[str]:
    """A line for each test that neither ran in the second run nor was skipped there for an allowed reason.

    A file that the first run skipped as a whole names no tests; it has run once any of its tests is in the second.
    """
    patterns = [re.compile(line) for line in allowed if line and not line.startswith("#")]
    again = list(second)
    lines = [
        f"{one.file}: {one.name}: {one.skipped}"
        for one in again
        if one.skipped and not any(pattern.search(one.skipped) for pattern in patterns)
    ]
    seen = {(one.file, one.name) for one in again}
    files = {one.file for one in again}
    for one in first:
        is_whole_file = one.skipped.startswith("collection skipped")
        there = one.file in files if is_whole_file else (one.file, one.name) in seen
        if one.skipped and not there:
            lines.append(f"{one.file}: {one.name}: skipped in the first run and not run in the second")
    return lines


def main() -> int:
    """Print the files, or the tests that nobody ran."""
    what, *files = sys.argv[1:]
    runs = [outcomes(Path(file).read_text(encoding="utf-8")) for file in files]
    if what == "files":
        print("\n".join(sorted({one.file for one in runs[0] if one.skipped})))
        return 0
    lines = unlisted(*runs, ALLOWED.read_text(encoding="utf-8").splitlines())
    for line in lines:
        print(f"never run, and not on the list in {ALLOWED.name}: {line}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
