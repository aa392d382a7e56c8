"""The fit of the flow as the control stage follows it: a failure is told once and ends the fit, not the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stream.messages import Tracks
from stream.safe_text import in_words, whole_traceback
from tracking.control.record import ControlRecord

if TYPE_CHECKING:
    from tracking.physics.live.follower import FlowFollower, LiveFlow


class FollowedFlow:
    """Gives a follower every frame's tracks, and its fits to the record; `known` is the newest one."""

    def __init__(
        self, follower: FlowFollower | None, report: Callable[[str], None], record: ControlRecord
    ) -> None:
        self._follower, self._report, self._record = follower, report, record
        self.known: LiveFlow | None = None

    def take_in(self, tracks: Tracks | None) -> bool:
        """Take in a frame; None: the run is over. Whether there is a new fit."""
        if self._follower is None:
            return False
        try:
            if tracks is not None:
                self._follower.take_in(tracks)
            found = self._follower.poll() if tracks is not None else self._follower.finish()
        except KeyboardInterrupt:
            raise
        except Exception as error:  # noqa: BLE001 - a run does not end because its flow cannot be fitted
            self.close()
            why = f"the flow is no longer fitted: {in_words(error)}"
            self._report(f"{why}\n{whole_traceback(error)}")
            self._record.flow_failed(why)
            return False
        if found is None:
            return False
        self.known = found
        self._record.flow(found.findings)
        return True

    def close(self) -> None:
        """End the fit. Idempotent."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None
