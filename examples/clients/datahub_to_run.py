"""Feeds a liveptv run from anything that psi-datahub reads (EPICS, bsread, array10 ...): a consumer of 15 lines.

python datahub_to_run.py tcp://SENDER:PORT tcp://127.0.0.1:5560 1000      1000 frames of an array10 stream
"""

import json
import sys

import datahub
import numpy as np
import zmq


class ToRun(datahub.Consumer):
    """Sends each image of a channel to `[source] listen`."""

    def __init__(self, address):
        super().__init__()
        self.socket = zmq.Context.instance().socket(zmq.PUSH)
        self.socket.connect(address)

    def on_channel_record(self, source, name, timestamp, pulse_id, value, **_):
        if np.ndim(value) == 2:
            image = np.ascontiguousarray(value)
            header = {"htype": "array-1.0", "source": name, "type": image.dtype.name, "shape": image.shape}
            self.socket.send_multipart([json.dumps(header | {"frame": pulse_id}).encode(), image.tobytes()])

    def on_close(self):
        self.socket.close(linger=10_000)


if __name__ == "__main__":
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 10**9
    stream = datahub.Array10(url=sys.argv[1], mode="SUB")
    stream.add_listener(ToRun(sys.argv[2]))
    stream.request({"start": 0, "end": count})
    stream.close_listeners()
