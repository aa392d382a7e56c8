"""Listens to a running liveptv without importing it: prints frame numbers, shapes and particle counts.

usage: python subscriber.py tcp://HOST:PORT
"""

import json
import sys

import numpy as np
import zmq

socket = zmq.Context.instance().socket(zmq.SUB)
socket.connect(sys.argv[1])
socket.subscribe(b"")

while True:
    header, data = socket.recv_multipart()
    about = json.loads(header)
    array = np.frombuffer(data, np.dtype(about["type"]).newbyteorder("<")).reshape(about["shape"])
    match about["kind"]:
        case "start":
            print(f"run {about['run_id']}", flush=True)
        case "frame":
            print(f"frame {about['frame']}: image {array.shape}, mean {array.mean():.1f}", flush=True)
        case "detections" | "tracks" as kind:
            depth = array[about["columns"].index("z_um")]
            known = f", z {depth.min():.1f} to {depth.max():.1f} um" if np.isfinite(depth).any() else ""
            print(f"frame {about['frame']}: {array.shape[1]} {kind}{known}", flush=True)
        case "end":
            print(f"end: {about['end']['reason']}")
            break
socket.close()
