"""The thread that writes a recording, so that a disk that stalls stops neither reports nor commands."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from acquisition.recorder.keeper import Keep
from acquisition.recorder.output import RecordingOutput

COMMIT_S = 0.1
"""Time after which appended images are made visible, s. A commit takes 0.2 ms (a small file is replaced, a line
appended); one for each image would take 20 % of a core at 1,000 images/s. Longer, programs that look on, and the
acknowledgements of the frames, come that much later."""


@dataclass(slots=True, eq=False)
class Job:
    """Something that a keeper handed on; `done` once it is readable in the files, or declared lost.

    `is_stored`: the image of a frame was stored.
    """

    keep: Keep
    done: bool = False
    is_stored: bool = False


class WriterThread:
    """Writes jobs in their order. `put`, `check` and `finish` are called from one other thread."""

    def __init__(self, output: RecordingOutput) -> None:
        self._output = output
        self._jobs: deque[Job] = deque()
        self._written: list[Job] = []
        self._news = threading.Condition()
        self._ends = False
        self._is_over = False
        self._failure: BaseException | None = None
        self._put = self._done = 0
        self._thread = threading.Thread(target=self._run, name="liveptv-record-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that are not done."""
        return self._put - self._done

    @property
    def queued(self) -> int:
        """Jobs that the thread has not begun with; others wait for their commit only."""
        return len(self._jobs)

    def put(self, keep: Keep) -> Job:
        """Hand over something to write."""
        job = Job(keep)
        with self._news:
            self._jobs.append(job)
            self._put += 1
            self._news.notify()
        return job

    def check(self) -> None:
        """Raise what ended the thread (`OutputError` where the run is to stop)."""
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Everything has been put: write it, finish the files, and end."""
        with self._news:
            self._ends = True
            self._news.notify()

    @property
    def output(self) -> RecordingOutput:
        """What it writes; its counts may be read at any time."""
        return self._output

    @property
    def is_over(self) -> bool:
        """Whether all is written and both files are closed."""
        return self._is_over

    def _run(self) -> None:
        try:
            while self._step():
                pass
            self._output.finish()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that asks
            self._failure = error
            self._output.close()
        finally:
            self._is_over = True

    def _step(self) -> bool:
        until_s = time.monotonic() + COMMIT_S
        while (left_s := until_s - time.monotonic()) > 0:
            with self._news:
                if not self._jobs and not self._ends:
                    self._news.wait(left_s)
                if not self._jobs:
                    if self._ends:
                        break
                    continue
                job = self._jobs.popleft()
            job.is_stored = self._output.put(job.keep)
            self._written.append(job)
        self._output.commit()
        written, self._written = self._written, []
        for job in written:
            job.done = True
        self._done += len(written)
        return bool(self._jobs) or not self._ends

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread without waiting for the disk for longer than `timeout_s`."""
        self.end()
        self._thread.join(timeout_s)
