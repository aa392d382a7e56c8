"""Sends frames to a liveptv run: needs only pyzmq and numpy. `[source] listen = "tcp://127.0.0.1:5560"`.

python send_frames.py tcp://127.0.0.1:5560 200     200 synthetic frames, 25 per second
"""

import json
import sys
import time

import numpy as np
import zmq

address, count = sys.argv[1], int(sys.argv[2])
socket = zmq.Context.instance().socket(zmq.PUSH)
socket.connect(address)
rows, columns = np.mgrid[0:240, 0:320]
began = time.monotonic()
for number in range(count):
    # here your program has its camera's image: 2D, uint8 or uint16, C order
    image = np.full((240, 320), 20, np.uint8)
    for x, y in [(60, 80), (120, 160), (200, 40)]:
        spot = 200 * np.exp(-((rows - y) ** 2 + (columns - x - number % 100) ** 2) / 8)
        image = np.maximum(image, spot.astype(np.uint8))
    header = {"htype": "array-1.0", "type": str(image.dtype), "shape": image.shape, "frame": number}
    header["info"] = {"time_s": time.monotonic() - began, "pixel_size_um": 0.65}  # optional, like all of it
    socket.send_multipart([json.dumps(header).encode(), image.tobytes()])
    time.sleep(max(0.0, began + (number + 1) / 25 - time.monotonic()))
end = {"htype": "array-1.0", "type": "uint8", "shape": [0], "frame": count - 1}  # the run ends with this
socket.send_multipart([json.dumps(end).encode(), b""])
socket.close(linger=10_000)
zmq.Context.instance().term()  # waits until all is sent, 10 s at most
