"""Judges how the command line reads a file.

*Right*: every value is that of the truth. *Said*: a value is not, and a line on the screen speaks of it. *Refused*:
one line `error: ...` that names the file, exit status 1 or 2. Anything else is an `UnacceptableError`.
"""

import json
import re
from pathlib import Path

import numpy as np
from command_run import Said, UnacceptableError, check_memory, check_screen, command
from comparison import Seen, differences, read_frames, row_differences
from known_video import PIXEL_UM, RATE_HZ, STEP_PX, X_PX, Y_PX, Truth
from mutation import REFUSED, RIGHT, SAID, Mutation

SPEAKS_OF = {
    "frames": r"missing|lost|cut short|truncated|gaps?\b|damage|left out|frames?\b(?!/s|[- ]rate)|pages"
    r"|planes|images|position|channel|series|chunk",
    "pixel": r"pixel|square|um/px|scale",
    "times": r"frame/s|frames/s|frame.?rate|times?\b|stamps?\b|interval",
    "focus": r"focus|slices?\b|axes|axis|planes|volumes?\b|depth|\bz\b",
    "rows": r"rows?\b|line \d|columns?|unit|pixel|dialect|header",
}
"""What a line must contain to tell of a value that is not the truth."""

VALUES = frozenset(
    [
        "kind",
        "frames",
        "height_px",
        "width_px",
        "depth",
        "dtype",
        "pixel_size_um",
        "frame_rate_hz",
        "rows",
        "ranges",
    ]
)
"""What `info` prints as values, not as lines about them."""


def judge(case: Mutation, folder: Path) -> str:
    """`right`, `said` or `refused`. Raises `UnacceptableError`."""
    path = case.make(folder)
    return judge_table(case, path, folder) if case.tracked else judge_recording(case, path, folder)


def judge_recording(case: Mutation, path: Path, folder: Path) -> str:
    """Look at a recording with `info`, read its frames, find its particles with `detect`."""
    info = command("info", path, "--json", bound=True, measure=case.claims)
    check_screen(info, path)
    check_memory(info)
    given = ["--pixel-size", PIXEL_UM] if case.given else []
    table = folder / "detected.csv"
    if info.status:
        detect = command("detect", path, "-o", table, *given)
        check_screen(detect, path)
        if not detect.status:
            raise UnacceptableError(f"info refuses it ({info.error}), detect reads it")
        return _refused(case, info, detect)
    lines = _lines_of(info, case.given)
    seen = read_frames(case, path)
    detect = command("detect", path, "-o", table, *given)
    check_screen(detect, path)
    lines += _without_result(detect)
    if bool(seen.error) != bool(detect.status):
        raise UnacceptableError(
            f"detect ends with {detect.status} ({detect.error}), but reading with '{seen.error}'"
        )
    if seen.error:
        if -1 in seen.images:
            raise UnacceptableError(f"a frame before the error is not one of the video: {seen.images}")
        return _refused(case, detect)
    differ = differences(case.truth, seen)
    if not case.given and not differ:
        _check_no_false_assumption(lines)
    if case.mostly:
        _check_mostly(case.truth, seen)
    if not differ and set(case.may) == {RIGHT}:
        _check_detections(case.truth, seen, table)
    return _judged(case, differ, lines)


def judge_table(case: Mutation, path: Path, folder: Path) -> str:
    """Look at a table with `info`, link it with `track`, compare every row and the velocity."""
    info = command("info", path, "--json", bound=True, measure=case.claims)
    check_screen(info, path)
    check_memory(info)
    output = folder / "linked.h5"
    track = command("track", path, "-o", output, "--frame-rate", RATE_HZ, bound=True, measure=case.claims)
    check_screen(track, path)
    check_memory(track)
    if track.status:
        return _refused(case, track)
    if info.status:
        raise UnacceptableError(f"track reads it, info refuses it: {info.error}")
    lines = _lines_of(info) + _without_result(track)
    return _judged(case, row_differences(output), lines)


def _check_no_false_assumption(lines: list[str]) -> None:
    false = [line for line in lines if re.search(r"assumed \(--(frame-rate|pixel-size)\)", line)]
    if false:
        raise UnacceptableError(f"says that it assumes what it has read from the file: {false}")


def _check_mostly(truth: Truth, seen: Seen) -> None:
    """One bad stamp may spoil its own two steps, not the rate of the rest."""
    known = [image for image in seen.images if image >= 0]
    if len(known) < len(seen.images) or len(known) < 3:
        return
    true_s = np.diff(truth.times_s[known])
    right = np.abs(np.diff(seen.times_s) - true_s) <= 0.25 * np.median(true_s)
    if (~right).sum() > 2:
        raise UnacceptableError(
            f"one bad place spoils {(~right).sum()} of {right.size} steps: "
            f"{np.round(np.diff(seen.times_s), 4).tolist()}"
        )


def _check_detections(truth: Truth, seen: Seen, table: Path) -> None:
    rows = np.loadtxt(table, delimiter=",", skiprows=1, usecols=(0, 1, 2), ndmin=2)
    for k, image in enumerate(seen.images):
        found = rows[rows[:, 0] == k, 1:]
        true = truth.pixel_um * np.column_stack([X_PX + STEP_PX * image, Y_PX])
        near = [np.min(np.hypot(*(found - place).T), initial=np.inf) for place in true]
        if not np.max(near) < truth.pixel_um:
            raise UnacceptableError(f"frame {k}: detections {np.max(near):g} um from the particles")


def _lines_of(info: Said, given: bool = False) -> list[str]:
    """The lines of `info` about its values: its description without name and format, and whatever else is text.

    What it assumes, for it cannot be told, does not count where the user has `given` it to the other commands.
    """
    found = json.loads(info.out)
    lines = [*info.err.splitlines(), *info.warned]
    for key, value in found.items():
        if key == "description":
            lines.append(re.sub(r"^.*?\([^()]*\d+ frames\)", "", str(value)))
        elif key not in VALUES:
            lines += [f"{key}: {one}" for one in (value if isinstance(value, list) else [value])]
    if given:
        lines = [re.sub(r"[^,;]*assumed \(--[a-z-]+\)", "", line) for line in lines]
    return [line for line in lines if line.strip(" ,")]


def _without_result(said: Said) -> list[str]:
    """What a command says beside its result."""
    lines = [*said.out.splitlines(), *said.err.splitlines(), *said.warned]
    return [line for line in lines if line.strip() and not re.search(r"\bwritten to\b", line)]


def _refused(case: Mutation, *said: Said) -> str:
    for one in said:
        if case.words and not re.search(case.words, one.error, re.IGNORECASE):
            raise UnacceptableError(f"refused, but without a word of {case.words}: {one.error}")
    if REFUSED not in case.may:
        raise UnacceptableError(f"refused: {said[0].error}")
    return REFUSED


def _judged(case: Mutation, differ: dict[str, str], lines: list[str]) -> str:
    text = "\n".join(lines)
    for aspect, what in differ.items():
        if not re.search(SPEAKS_OF[aspect], text, re.IGNORECASE):
            raise UnacceptableError(
                f"WRONG WITHOUT A WORD: {what}" + (f"; it only says: {text[:300]}" if text else "")
            )
    outcome = SAID if differ else RIGHT
    if outcome not in case.may and not (text and SAID in case.may):
        raise UnacceptableError(
            f"{outcome} is not enough: {differ or 'read as if nothing were wrong'}; it says: {text[:300]}"
        )
    if SAID in case.may and differ and case.words and not re.search(case.words, text, re.IGNORECASE):
        raise UnacceptableError(f"says nothing of {case.words}: {differ}; it says: {text[:300]}")
    return outcome
