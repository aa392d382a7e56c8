"""An unmodified psi-datahub, which knows nothing of us, reads images and tables from the monitor."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from wire_strategies import a_frame, some_detections

from stream.monitor import MonitorPublisher

datahub = pytest.importorskip("datahub")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, on newer Pythons


class Notebook(datahub.Consumer):  # type: ignore[name-defined, misc]
    """Keeps what datahub reads: channel -> {id: array}."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[str, dict[int, Any]] = {}

    def on_channel_record(
        self, source: object, name: str, timestamp: object, pulse_id: int, value: Any, **_: object
    ) -> None:
        self.read.setdefault(name, {})[pulse_id] = value.copy()


def test_psi_datahub_reads_frames_and_tables() -> None:
    publisher = MonitorPublisher("tcp://127.0.0.1:0", run_id="run", source="test")
    notebook = Notebook()
    source = datahub.Array10(url=publisher.address, mode="SUB")
    source.add_listener(notebook)
    reader = threading.Thread(target=source.request, args=({"start": 0, "end": 10},))
    reader.start()
    deadline_s = time.monotonic() + 240
    number = 0
    while reader.is_alive():
        assert time.monotonic() < deadline_s
        publisher.publish(a_frame(number))
        publisher.publish(some_detections(number))
        number += 1
        time.sleep(0.01)
    reader.join()
    publisher.close()
    source.close()
    frames, tables = notebook.read["test/frame"], notebook.read["test/detections"]
    assert len(frames) >= 10
    assert sorted(frames) == list(range(min(frames), max(frames) + 1))
    for pulse_id, image in frames.items():
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image, a_frame(pulse_id).image)
    for pulse_id, table in tables.items():
        np.testing.assert_array_equal(table, some_detections(pulse_id).table)
    (start,) = notebook.read["test/start"].values()
    assert start.shape == (0,)
