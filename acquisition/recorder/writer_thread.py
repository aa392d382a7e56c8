"""The thread that writes a recording, so that a disk that stalls stops neither reports nor commands."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from acquisition.recorder.keeper import Keep
from acquisition.recorder.output import RecordingOutput

COMMIT_S = 0.1
"""Time after which appended images are made visible, s. A commit takes 0.2 ms (a small file is replaced, a line
appended); one for each image would take 20 % of a core at 1,000 images/s. Longer, programs that look on, and the
acknowledgements of the frames, come that much later."""

SYNC_S = 1.0
"""Time between two waits for the disk, s, in a thread of their own. The kernel would begin after 30 s or once
a tenth of the memory waits, and then stop whoever writes. Longer, more of a run is lost when the computer loses its
power; shorter, small images cause many small writes."""
HURRY = 4
"""Images waiting from which none is compressed, unless that is faster: few beside a ring of seconds."""


@dataclass(slots=True, eq=False)
class Job:
    """Something that a keeper handed on; `done` once it is readable in the files, or declared lost.

    `is_stored`: the image of a frame was stored.
    """

    keep: Keep
    done: bool = False
    is_stored: bool = False


class WriterThread:
    """Writes jobs in their order, into an output that it opens with the first frame of the run.

    All methods are called from one other thread.
    """

    def __init__(self, open_output: Callable[[], RecordingOutput]) -> None:
        """`open_output` may replace the files of an earlier run: it is called once this one has a frame."""
        self._open_output = open_output
        self._output: RecordingOutput | None = None
        self._begins = False
        self._jobs: deque[Job] = deque()
        self._written: list[Job] = []
        self._news = threading.Condition()
        self._ends = False
        self._is_over = False
        self._failure: BaseException | None = None
        self._put = self._done = 0
        self._thread = threading.Thread(target=self._run, name="liveptv-record-writer", daemon=True)
        self._syncer = threading.Thread(target=self._sync, name="liveptv-record-sync", daemon=True)
        self._over = threading.Event()
        self._thread.start()
        self._syncer.start()

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
    def output(self) -> RecordingOutput | None:
        """What it writes, None before the first frame; its counts may be read at any time."""
        return self._output

    def begin(self) -> None:
        """The run has a frame: open the output."""
        with self._news:
            self._begins = True
            self._news.notify()

    @property
    def is_over(self) -> bool:
        """Whether all is written and both files are closed."""
        return self._is_over

    def _run(self) -> None:
        output = None
        try:
            if not self._wait_for_begin():
                return
            output = self._output = self._open_output()
            while self._step(output):
                pass
            self._over.set()
            self._syncer.join()
            output.finish()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that asks
            self._failure = error
            if output is not None:
                output.close()
        finally:
            self._over.set()
            self._is_over = True

    def _sync(self) -> None:
        while not self._over.wait(SYNC_S):
            if self._output is not None:
                self._output.sync()

    def _wait_for_begin(self) -> bool:
        """Whether there is anything to record."""
        with self._news:
            self._news.wait_for(lambda: self._begins or self._ends)
            return self._begins

    def _step(self, output: RecordingOutput) -> bool:
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
            job.is_stored = output.put(job.keep, len(self._jobs) > HURRY)
            self._written.append(job)
        output.look_at_sync()
        output.commit()
        written, self._written = self._written, []
        for job in written:
            job.done = True
        self._done += len(written)
        return bool(self._jobs) or not self._ends

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread without waiting for the disk for longer than `timeout_s`."""
        self.end()
        self._thread.join(timeout_s)
