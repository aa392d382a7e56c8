"""Builds each pipeline stage from the experiment. A package is imported only in the process that needs it."""

from collections.abc import Callable

from liveptv.session.builders.acquire import build_acquire
from liveptv.session.builders.control import build_control
from liveptv.session.builders.detect import build_detect
from liveptv.session.builders.record import build_record
from liveptv.session.builders.track import build_track
from liveptv.session.builders.write import build_write
from liveptv.session.stage_context import StageContext
from stream.stage import Stage

BUILDERS: dict[str, Callable[[StageContext], Stage]] = {
    "acquire": build_acquire,
    "detect": build_detect,
    "track": build_track,
    "write": build_write,
    "control": build_control,
    "record": build_record,
}
