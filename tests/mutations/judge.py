"""Reads a file as the command line does and judges what came of it against the truth.

*Right*: every value is that of the truth. *Said*: a value is not, and a line on the screen speaks of it. *Refused*: one
line `error: ...` that names the file, exit status 1 or 2. Anything else is a `Fault`, a sentence about what was wrong.
"""

import contextlib
import io
import json
import logging
import re
import tracemalloc
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from known_video import PIXEL_UM, RATE_HZ, SPEED_UM_S, STEP_PX, X_PX, Y_PX, Truth
from mutation import REFUSED, RIGHT, SAID, Mutation

from acquisition.recording import open_recording
from liveptv.cli import run_command_line
from stream.errors import LivePTVError
from tracking.trajectory_file import TrajectoryFile

try:
    import resource
except ImportError:  # Windows
    resource = None

MOST_LINES = 3
"""More warnings than this are no longer read."""
MOST_BYTES = 80 << 20
"""Beyond this a reader believes what a file of 200 kB claims of its sizes; 9 MB is the largest table here."""

MOST_ASKED = 1 << 30
"""Address space that one command may ask for on top of what the process has."""

SPEAKS_OF = {
    "frames": r"missing|lost|cut short|gaps?\b|damage|left out|frames?\b(?!/s|[- ]rate)|pages|planes|images|position|channel|series|chunk",
    "pixel": r"pixel|square|um/px|scale",
    "times": r"frame/s|frames/s|frame.?rate|times?\b|stamps?\b|interval",
    "focus": r"focus|slices?\b|axes|axis|planes|volumes?\b|depth|\bz\b",
    "rows": r"rows?\b|line \d|columns?|unit|pixel|dialect|header",
}
"""What a line must contain to tell of a value that is not the truth."""

VALUES = {
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
}
"""What `info` prints as values, not as lines about them."""


class Fault(Exception):
    """Why a reading is not acceptable."""


@dataclass
class Said:
    """What one command left: its exit status, what it printed, and how many lines were warnings."""

    status: int
    out: str
    err: str
    warned: list[str]
    peak_bytes: int = 0

    @property
    def error(self) -> str:
        """The lines of error."""
        return "\n".join(line for line in self.err.splitlines() if line.startswith("error:"))


@dataclass
class Seen:
    """What a reader was given: for each frame the image it is (-1: none), its time, its focus; and the pixel's size."""

    images: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    focus_um: list[float] = field(default_factory=list)
    pixel_um: float = np.nan
    error: str = ""


@contextlib.contextmanager
def _no_more_memory():
    """A reader that asks for more than `MOST_ASKED` fails at once instead of taking the machine with it."""
    if resource is None or not Path("/proc/self/statm").exists():
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MOST_ASKED
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def command(*arguments: object, bound: bool = False, measure: bool = False) -> Said:
    """Run one command in this process, as `liveptv` would; `bound` limits the memory it may ask for, `measure` also counts it."""
    out, err = io.StringIO(), io.StringIO()
    log = _Log()
    root = logging.getLogger()
    root.addHandler(log)
    if measure:
        tracemalloc.start(1)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            _no_more_memory() if bound else contextlib.nullcontext(),
            warnings.catch_warnings(record=True) as raised,
        ):
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                status = run_command_line([str(argument) for argument in arguments])
            except BaseException as error:
                raise Fault(
                    f"{arguments[0]}: traceback, {type(error).__name__}: {' '.join(str(error).split())[:200]}"
                ) from error
        peak = tracemalloc.get_traced_memory()[1] if measure else 0
    finally:
        if measure:
            tracemalloc.stop()
        root.removeHandler(log)
    return Said(status, out.getvalue(), err.getvalue(), [*log.lines, *(str(w.message) for w in raised)], peak)


class _Log(logging.Handler):
    """Log records are lines on the user's screen."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def judge(case: Mutation, folder: Path) -> str:
    """`right`, `said` or `refused`. Raises `Fault`."""
    path = case.make(folder)
    return judge_table(case, path, folder) if case.tracked else judge_recording(case, path, folder)


def judge_recording(case: Mutation, path: Path, folder: Path) -> str:
    """Look at a recording with `info`, read its frames, find its particles with `detect`."""
    info = command("info", path, "--json", bound=True, measure=case.claims)
    _check_screen(info, path)
    _check_memory(info)
    given = ["--pixel-size", PIXEL_UM] if case.given else []
    table = folder / "detected.csv"
    if info.status:
        detect = command("detect", path, "-o", table, *given)
        _check_screen(detect, path)
        if not detect.status:
            raise Fault(f"info refuses it ({info.error}), detect reads it")
        return _refused(case, info, detect)
    lines = _lines_of(info, case.given)
    seen = read_frames(case, path)
    detect = command("detect", path, "-o", table, *given)
    _check_screen(detect, path)
    lines += _without_result(detect)
    if bool(seen.error) != bool(detect.status):
        raise Fault(f"detect ends with {detect.status} ({detect.error}), but reading with '{seen.error}'")
    if seen.error:
        if -1 in seen.images:
            raise Fault(f"a frame before the error is not one of the video: {seen.images}")
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
    _check_screen(info, path)
    _check_memory(info)
    output = folder / "linked.h5"
    track = command("track", path, "-o", output, "--frame-rate", RATE_HZ, bound=True, measure=case.claims)
    _check_screen(track, path)
    _check_memory(track)
    if track.status:
        return _refused(case, track)
    if info.status:
        raise Fault(f"track reads it, info refuses it: {info.error}")
    lines = _lines_of(info) + _without_result(track)
    return _judged(case, row_differences(output), lines)


def read_frames(case: Mutation, path: Path) -> Seen:
    """Read all frames and recognise each by its content."""
    options = {"frame_rate_hz": RATE_HZ, "pixel_size_um": PIXEL_UM} if case.given else {}
    seen = Seen()
    known = [image.astype(float) for image in case.truth.stack]
    try:
        with _no_more_memory():
            recording = open_recording(path, run_id="judge", **options)
        try:
            recording.start()
            seen.pixel_um = recording.info.pixel_size_um
            while not recording.ended:
                frame = recording.read(1.0)
                if frame is None:
                    continue
                seen.images.append(_recognised(frame.image, known, len(seen.images), case.truth.alike))
                seen.times_s.append(frame.info.time_s)
                seen.focus_um.append(frame.info.focus_um)
                if len(seen.images) > 10 * len(known):
                    raise Fault(f"{len(seen.images)} frames and more of a video of {len(known)}")
        finally:
            recording.close()
    except LivePTVError as error:
        seen.error = str(error)
    except Fault:
        raise
    except Exception as error:
        raise Fault(f"reading: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    return seen


def _recognised(image, known, guess, alike):
    """Which image of the video this is, up to a factor and an offset as of a change of type; -1 if none."""
    pixels = np.asarray(image, float)
    same = [k for k in range(len(known)) if known[k].shape == pixels.shape]
    equal = [k for k in sorted(same, key=lambda k: k != guess) if np.array_equal(known[k], pixels)]
    if equal or not same or not pixels.std() > 0:
        return equal[0] if equal else -1
    likeness = [np.corrcoef(known[k].ravel(), pixels.ravel())[0, 1] for k in same]
    best = int(np.argmax(likeness))
    return same[best] if likeness[best] > alike else -1


def differences(truth: Truth, seen: Seen) -> dict[str, str]:
    """What was read otherwise than it is: `frames`, `pixel`, `times`, `focus`, each with the values."""
    found = {}
    if tuple(seen.images) != tuple(truth.order):
        found["frames"] = f"images {seen.images} instead of {list(truth.order)}"
    if not abs(seen.pixel_um / truth.pixel_um - 1) < 0.005:
        found["pixel"] = f"{seen.pixel_um:g} um a pixel instead of {truth.pixel_um:g}"
    known = [(image, time) for image, time in zip(seen.images, seen.times_s, strict=True) if image >= 0]
    if len(known) > 1:
        true_s = np.diff([truth.times_s[image] for image, _ in known])
        read_s = np.diff([time for _, time in known])
        step_s = np.median(np.abs(true_s)) or 1 / RATE_HZ
        if not (np.abs(read_s - true_s) <= 0.25 * step_s).all():
            speed = STEP_PX * np.diff([image for image, _ in known]) * seen.pixel_um
            with np.errstate(divide="ignore", invalid="ignore"):
                shown = np.round(speed / read_s, 2).tolist()
            found["times"] = f"steps of {np.round(read_s, 4).tolist()} s, velocities {shown} um/s"
    moved = np.asarray(seen.focus_um) - (seen.focus_um[0] if seen.focus_um else 0)
    if truth.focus_um is None:
        if np.isfinite(moved).any() and np.nanmax(np.abs(moved)) > 0.05:
            found["focus"] = f"a focus that moves by {np.nanmax(np.abs(moved)):g} um"
    elif known and len(moved) == len(seen.images):
        places = truth.focus_um[[max(image, 0) for image in seen.images]]
        if not np.allclose(moved, places - places[0], atol=0.05):
            found["focus"] = f"a focus at {np.round(seen.focus_um, 2).tolist()}"
    return found


def row_differences(output: Path) -> dict[str, str]:
    """How the rows of a trajectory file differ from the particles of the video."""
    with TrajectoryFile(output) as file:
        found = list(file.trajectories(include_flagged=True))
    frame = np.concatenate([part.frame for part in found])
    x_um = np.concatenate([part.x_um for part in found])
    y_um = np.concatenate([part.y_um for part in found])
    track = np.concatenate([part.track for part in found])
    time_s = np.concatenate([part.time_s for part in found])
    frames = len(np.unique(frame))
    first = frame.min() if frame.size else 0
    true_frame = np.repeat(np.arange(12), X_PX.size)
    true_x = PIXEL_UM * (np.tile(X_PX, 12) + STEP_PX * true_frame)
    true_y = PIXEL_UM * np.tile(Y_PX, 12)
    if frame.size != true_frame.size:
        return {"rows": f"{frame.size} rows in {frames} frames instead of {true_frame.size} in 12"}
    order, true_order = np.lexsort((y_um, frame)), np.lexsort((true_y, true_frame))
    off = max(
        np.abs(frame[order] - first - true_frame[true_order]).max(),
        np.abs(x_um[order] - true_x[true_order]).max(),
        np.abs(y_um[order] - true_y[true_order]).max(),
    )
    if not off < 2e-3:
        return {"rows": f"positions or frames are off by up to {off:g}"}
    speeds = []
    for one in np.unique(track):
        mine = track == one
        if mine.sum() > 3:
            speeds.append(np.polyfit(time_s[mine], x_um[mine], 1)[0])
    if not (speeds and np.allclose(speeds, SPEED_UM_S, rtol=0.01)):
        return {"rows": f"velocities {np.round(speeds, 2).tolist()} um/s"}
    return {}


def _check_screen(said: Said, path: Path) -> None:
    text = said.out + said.err
    if "Traceback (most recent call last)" in text:
        raise Fault(f"a traceback on the screen: {text[-300:]}")
    if len(said.warned) > MOST_LINES:
        raise Fault(f"{len(said.warned)} warnings, as: {said.warned[0][:150]}")
    if said.status == 0:
        if len(said.err.splitlines()) > MOST_LINES:
            raise Fault(f"{len(said.err.splitlines())} lines on the error stream: {said.err[:300]}")
        return
    if said.status not in {1, 2}:
        raise Fault(f"exit status {said.status}")
    errors = [line for line in said.err.splitlines() if line.startswith("error:")]
    if len(errors) != 1:
        raise Fault(f"{len(errors)} lines of error: {text[-400:]}")
    names = {part for part in (path.name.partition("::")[0], path.parent.name, path.name) if part}
    if not any(name in errors[0] for name in names):
        raise Fault(f"the error does not name the file: {errors[0]}")
    if re.search(
        r"\b(NoneType|IndexError|KeyError|ValueError|object has no attribute|out of range|not subscriptable)\b",
        errors[0],
    ):
        raise Fault(f"the error is a programmer's: {errors[0]}")


def _check_memory(said: Said) -> None:
    if said.peak_bytes > MOST_BYTES:
        raise Fault(f"{said.peak_bytes >> 20} MB of memory asked for")


def _check_no_false_assumption(lines: list[str]) -> None:
    false = [line for line in lines if re.search(r"assumed \(--(frame-rate|pixel-size)\)", line)]
    if false:
        raise Fault(f"says that it assumes what it has read from the file: {false}")


def _check_mostly(truth: Truth, seen: Seen) -> None:
    """One bad stamp may spoil its own two steps, not the rate of the rest."""
    known = [image for image in seen.images if image >= 0]
    if len(known) < len(seen.images) or len(known) < 3:
        return
    true_s = np.diff(truth.times_s[known])
    right = np.abs(np.diff(seen.times_s) - true_s) <= 0.25 * np.median(true_s)
    if (~right).sum() > 2:
        raise Fault(
            f"one bad place spoils {(~right).sum()} of {right.size} steps: {np.round(np.diff(seen.times_s), 4).tolist()}"
        )


def _check_detections(truth: Truth, seen: Seen, table: Path) -> None:
    rows = np.loadtxt(table, delimiter=",", skiprows=1, usecols=(0, 1, 2), ndmin=2)
    for k, image in enumerate(seen.images):
        found = rows[rows[:, 0] == k, 1:]
        true = truth.pixel_um * np.column_stack([X_PX + STEP_PX * image, Y_PX])
        near = [np.min(np.hypot(*(found - place).T), initial=np.inf) for place in true]
        if not np.max(near) < truth.pixel_um:
            raise Fault(f"frame {k}: detections {np.max(near):g} um from the particles")


def _lines_of(info: Said, given: bool = False) -> list[str]:
    """The lines of `info` about its values: the description behind the name and format, and whatever else is text.

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
            raise Fault(f"refused, but without a word of {case.words}: {one.error}")
    if REFUSED not in case.may:
        raise Fault(f"refused: {said[0].error}")
    return REFUSED


def _judged(case: Mutation, differ: dict[str, str], lines: list[str]) -> str:
    text = "\n".join(lines)
    for aspect, what in differ.items():
        if not re.search(SPEAKS_OF[aspect], text, re.IGNORECASE):
            raise Fault(f"WRONG WITHOUT A WORD: {what}" + (f"; it only says: {text[:300]}" if text else ""))
    outcome = SAID if differ else RIGHT
    if outcome not in case.may and not (text and SAID in case.may):
        raise Fault(
            f"{outcome} is not enough: {differ or 'read as if nothing were wrong'}; it says: {text[:300]}"
        )
    if SAID in case.may and differ and case.words and not re.search(case.words, text, re.IGNORECASE):
        raise Fault(f"says nothing of {case.words}: {differ}; it says: {text[:300]}")
    return outcome
