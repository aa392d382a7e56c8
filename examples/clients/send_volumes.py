"""Sends volumes (focus stacks) to a liveptv run: needs only pyzmq and numpy.

`[source] listen = "tcp://127.0.0.1:5560"`, and in the terminal:
python send_volumes.py tcp://127.0.0.1:5560 50     50 synthetic volumes of 8 slices, 10 per second
"""

import json
import sys
import time

import numpy as np
import zmq

address, count = sys.argv[1], int(sys.argv[2])
socket = zmq.Context.instance().socket(zmq.PUSH)
socket.connect(address)
z, y, x = np.mgrid[0:8, 0:96, 0:128]
z_um = [0.4 * k for k in range(8)]  # height of each slice above the first one: rises from 0
began = time.monotonic()
for number in range(count):
    # here your program has its stack: slices, rows, columns; uint8 or uint16, C order, the lowest slice first
    light = np.full(z.shape, 20.0)
    for at_z, at_y, at_x in [(2.2, 30, 30), (4.1, 60, 70), (5.3, 40, 100)]:
        off = ((x - at_x - 0.3 * number) ** 2 + (y - at_y) ** 2) / 4 + (z - at_z) ** 2 / 2.5
        light += 400 * np.exp(-off)
    volume = np.random.default_rng(number).poisson(light).astype(np.uint16)
    header = {"htype": "array-1.0", "type": str(volume.dtype), "shape": volume.shape, "frame": number}
    header["info"] = {"time_s": time.monotonic() - began, "pixel_size_um": 0.2}
    # optional: "time_s" of each slice after that of the frame, "missing" (numbers of slices without an image)
    header["info"]["volume"] = {"z_um": z_um, "time_s": [0.01 * k for k in range(8)]}
    socket.send_multipart([json.dumps(header).encode(), volume.tobytes()])
    time.sleep(max(0.0, began + (number + 1) / 10 - time.monotonic()))
end = {"htype": "array-1.0", "type": "uint8", "shape": [0], "frame": count - 1}  # the run ends with this
socket.send_multipart([json.dumps(end).encode(), b""])
socket.close(linger=10_000)
zmq.Context.instance().term()  # waits until all is sent, 10 s at most
