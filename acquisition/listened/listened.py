"""Frames of any program as a source of a run, like a camera."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from acquisition.foreign_notes import ForeignNotes
from acquisition.listened.gate import Gate, Taken
from acquisition.listened.receiver import FrameReceiver
from acquisition.listened.socket import FrameSocket
from acquisition.source import SourceInfo
from acquisition.source_settings import SourceSettings
from acquisition.source_voxels import step_of_source
from acquisition.stacks.scales import pixel_size
from stream.errors import SourceError
from stream.messages import Frame, FrameInfo
from stream.safe_text import storable
from stream.sockets import Security

SILENT_S = 5.0
"""Without a frame, s, after which the run says that it waits: longer than any common exposure, short enough to look
after the other program."""
LOOK_S = 0.1  # s between two looks whether the user has ended a run that waits for its first frame


def open_listened(
    settings: SourceSettings,
    *,
    run_id: str,
    security: Security | None = None,
    model_pixel_size_um: Callable[[], float | None] = lambda: None,
    keeps_early: bool = False,
    seconds: float | None = None,
    say: Callable[[str], None],
    is_abandoned: Callable[[], bool] = lambda: False,
) -> Listened:
    """Open the socket and wait for the first frame, which tells size and type of the images.

    `security` is used where other computers can reach the address. With `keeps_early`, frames that come before
    `start` belong to the run. `seconds` after its first frame the source ends, also if the sender is silent.
    `is_abandoned` ends the wait.

    Raises `SourceError` if the address cannot be used or the wait is ended.
    """
    notes = ForeignNotes(say)
    gate = Gate(notes, name=settings.name, frame_rate_hz=settings.frame_rate_hz, z_step_um=settings.z_step_um)
    receiver = FrameReceiver(socket := FrameSocket(settings, security), gate, notes, keeps_early=keeps_early)
    try:
        does = "listening at" if settings.listen is not None else "connecting to"
        say(f"{does} {socket.address}: waiting for the first frame")
        began_s = time.monotonic()
        while receiver.wait_for_kind(LOOK_S) is None:
            notes.flush()
            if receiver.failure or is_abandoned():
                raise SourceError(
                    receiver.failure or f"the run was ended before a frame came from {socket.address}"
                )
            if settings.quiet_s is not None and time.monotonic() - began_s > settings.quiet_s:
                raise SourceError(
                    f"no frame came from {socket.address} within {settings.quiet_s:g} s (source.quiet_s); start "
                    "the program that sends them, and compare the address"
                )
        return Listened(
            receiver, gate, notes, settings, socket.address, run_id, model_pixel_size_um, seconds, say
        )
    except BaseException:
        receiver.close()
        raise


class Listened:
    """The `Source` of frames that another program sends. `remarks` are lines for the user: what was assumed."""

    def __init__(
        self,
        receiver: FrameReceiver,
        gate: Gate,
        notes: ForeignNotes,
        settings: SourceSettings,
        address: str,
        run_id: str,
        model_pixel_size_um: Callable[[], float | None],
        seconds: float | None,
        say: Callable[[str], None],
    ) -> None:
        kind = receiver.kind
        assert kind is not None
        self._receiver = receiver
        self._gate = gate
        self._notes = notes
        self._quiet_s = settings.quiet_s
        self._seconds = seconds
        self._run_id = run_id
        self._say = say
        said_um = kind.pixel_size_um
        given_um = settings.pixel_size_um
        self._pixel_size_um, remark = pixel_size(
            said_um, said_um, "the sender", given_um, model_pixel_size_um
        )
        self._fixed_pixel = given_um is not None or not said_um > 0
        z_step_um = math.nan
        told: tuple[str, ...] = ()
        if kind.depth > 1:
            is_known = given_um is not None or said_um > 0 or model_pixel_size_um() is not None
            z_step_um, told = step_of_source(
                "the sender",
                math.nan if kind.volume is None else kind.volume.z_step_um,
                settings.z_step_um,
                self._pixel_size_um if is_known else math.nan,
            )
        remark = remark.replace("--pixel-size", "source.pixel_size_um")
        unnumbered = (
            "" if gate.order.is_numbered else "the frames have no numbers: lost ones cannot be counted"
        )
        self.remarks = tuple(text for text in (gate.clock_in_words, remark, *told, unnumbered) if text)
        name = storable(kind.source) or "a program"
        self.info = SourceInfo(
            height=kind.shape[-2],
            width=kind.shape[-1],
            depth=kind.depth,
            z_step_um=z_step_um,
            dtype=kind.dtype,
            pixel_size_um=self._pixel_size_um,
            frame_rate_hz=math.nan if settings.frame_rate_hz is None else settings.frame_rate_hz,
            frames=None,
            name=name,
            description="; ".join([f"{name} at {address}", *self.remarks]),
        )
        self._frame = 0
        self._first_s: float | None = None
        self._stopped = self._is_silent = self._over = False

    @property
    def ended(self) -> bool:
        """Whether the sender has ended, `stop` was called, or the time is over, and every frame was read."""
        self._notes.flush()
        if not self._receiver.waiting and not self._over:
            self._over = self._stopped or self._receiver.ended or self._is_over(time.monotonic())
        return self._over and not self._receiver.waiting

    def _is_over(self, now_s: float) -> bool:
        if self._gate.paused:
            return False
        silent_s = now_s - self._receiver.newest_s
        if self._quiet_s is not None and silent_s > self._quiet_s:
            self._say(f"no frame for {self._quiet_s:g} s (source.quiet_s): the run ends")
            return True
        first_s, seconds = self._first_s, self._seconds
        if first_s is not None and seconds is not None and now_s - first_s > seconds and silent_s > LOOK_S:
            return True
        if silent_s > SILENT_S and not self._is_silent:
            self._is_silent = True
            there = "is connected" if self._receiver.senders else "is not connected"
            self._say(f"no frame for {SILENT_S:g} s: the sender {there}; waiting")
        return False

    def start(self) -> None:
        """Take frames from now on."""
        early = self._receiver.begin()
        if early:
            self._say(
                f"{early} frames came before the run was ready and are not part of it (link.policy block: they are)"
            )

    def announce(self, call: Callable[[], None]) -> None:
        """Have `call` called, in another thread, after each frame."""
        self._receiver.on_frame = call

    def quiet_s(self) -> float:
        """For how long there is nothing to `read`, s: 0 if a frame waits, else until one is announced."""
        is_quiet = not self._receiver.waiting and self._receiver.on_frame is not None and not self.ended
        return math.inf if is_quiet and not self._receiver.failure else 0.0

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame, or None. Raises `SourceError` if frames can no longer be received."""
        taken = self._receiver.fetch(timeout_s)
        self._notes.flush()
        if taken is None:
            if self._receiver.failure:
                raise SourceError(self._receiver.failure)
            return None
        if self._is_silent:
            self._is_silent = False
            self._say("frames come again")
        if self._first_s is None:
            self._first_s = time.monotonic()
        frame = Frame(self._info(taken), taken.image)
        self._frame += 1
        return frame

    def _info(self, taken: Taken) -> FrameInfo:
        said = taken.said
        if not self._fixed_pixel and said.pixel_size_um > 0:
            self._pixel_size_um = said.pixel_size_um
        return FrameInfo(
            run_id=self._run_id,
            frame=self._frame,
            camera_frame=taken.number,
            time_s=taken.time_s,
            monotonic_ns=taken.arrived_ns,
            wall_s=time.time() - 1e-9 * (time.perf_counter_ns() - taken.arrived_ns),
            camera_time_s=said.time_s,
            focus_um=said.focus_um,
            focus_commanded_um=said.focus_commanded_um,
            flow_ul_s=said.flow_ul_s,
            exposure_ms=said.exposure_ms,
            pixel_size_um=self._pixel_size_um,
            volume=taken.volume,
        )

    def stop(self) -> None:
        """Take no more frames; those here can still be read. Idempotent."""
        self._stopped = True
        self._receiver.pause(paused=True)

    def pause(self) -> None:
        """Discard and count what comes until `resume`."""
        self._receiver.pause(paused=True)

    def resume(self) -> None:
        """Take frames again."""
        if not self._stopped:
            self._receiver.pause(paused=False)

    def counts(self) -> dict[str, int]:
        """`received`, `lost_at_sender` (missing by the numbers), and what was refused, by reason."""
        own = {"received": self._frame, "lost_in_camera": 0, "lost_at_sender": self._gate.order.lost}
        return dict(self._notes.counts) | own

    def gauges(self) -> dict[str, float]:
        """`buffer`: frames that wait to be read; `senders`: programs that are connected."""
        return {"buffer": float(self._receiver.waiting), "senders": float(self._receiver.senders)}

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._receiver.close()
        self._notes.flush()
