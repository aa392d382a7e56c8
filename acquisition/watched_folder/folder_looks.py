"""Looks into a watched folder now and then, and knows when it is to end."""

from __future__ import annotations

import math
import time
from pathlib import Path

from acquisition.source_settings import SourceSettings
from acquisition.watched_folder.listing import list_folder
from acquisition.watched_folder.watch import FolderWatch, WatchedImage
from stream.errors import SourceError

SLOWER = 5.0  # the folder is looked at for at most a fifth of the time: a listing over a network is slow
LONGEST_TURN_S = 0.2  # between two questions for an image, s; what is longer, the run was busy
AWAY_S = 1.0  # s between two looks for a folder that cannot be read


class FolderLooks:
    """Looks into the folder now and then, and remembers the order to end."""

    def __init__(self, watch: FolderWatch, folder: Path, settings: SourceSettings) -> None:
        self._watch = watch
        self._folder = folder
        self._settings = settings
        self._due_s = -math.inf
        self._has_end = self._is_away = False
        self._asked_s = time.monotonic()
        self.idle_s = 0.0
        """How long nothing has come or grown, s; time in which the run was too busy to ask does not count."""

    @property
    def watch(self) -> FolderWatch:
        """What decides."""
        return self._watch

    @property
    def has_end(self) -> bool:
        """Whether the file that ends the run was there, and all that can be taken has had its time."""
        patience_s = self._settings.settled_s + self._settings.missing_s
        is_all = self.idle_s > self._settings.settled_s and not self._watch.left(time.monotonic())
        return self._has_end and (is_all or self.idle_s > 2 * patience_s)

    def quiet_s(self) -> float:
        """Until the next look, s."""
        return self._due_s - time.monotonic()

    def next_image(self) -> WatchedImage | None:
        """The next image; looks into the folder if that is due. A folder that cannot be read is waited for."""
        now_s = time.monotonic()
        self.idle_s += min(now_s - self._asked_s, LONGEST_TURN_S)
        self._asked_s = now_s
        if now_s >= self._due_s:
            try:
                listing = list_folder(self._folder, self._settings.end_file)
            except SourceError as error:
                if not self._is_away:
                    self._watch.tell_away(f"{error}; it is waited for")
                self._is_away = True
                self._due_s = now_s + max(AWAY_S, self._settings.poll_s)
                return None
            self._is_away = False
            if listing.has_end and not self._has_end:
                self._has_end, self.idle_s = True, 0.0
            if self._watch.look(listing, now_s):
                self.idle_s = 0.0
            took_s = time.monotonic() - now_s
            self._due_s = now_s + max(self._settings.poll_s, SLOWER * took_s)
        image = self._watch.next_image(time.monotonic())
        if image is not None:
            self.idle_s = 0.0
        return image
