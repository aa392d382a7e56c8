"""What only a GPU can tell of the engines for it: are they right, how fast are they, what takes the time.

    python benchmarks/gpu_engine.py --json benchmarks/results/gpu_engine.json        # under 8 minutes

Needs torch with CUDA, onnx, onnxscript, onnxruntime, numba, scipy, h5py, tifffile, pydantic and platformdirs, but
not the whole program. TensorRT is measured as well where it is installed. Each part stands alone: one that fails
is recorded with its reason and the next goes on. Frames are drawn from the model's own particle image, with noise.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpu_material import SHIPPED, make_large, tensorrt_back_end
from gpu_parts import Row, check, copies, engine_rows, fit_rows, kernels, parts_of_a_frame, with_flat_field

from engines.cuda.device import Device
from engines.cuda.torch_device import open_torch_cuda
from engines.cuda.torch_runner import TorchBackEnd

FULL = (1440, 2560)


def facts(device: Device) -> Row:
    """What ran it."""
    import onnxruntime
    import torch

    found = device.facts
    return {
        "gpu": found.name,
        "capability": ".".join(map(str, found.capability)),
        "multiprocessors": found.multiprocessors,
        "memory_gib": round(found.memory_bytes / 2**30, 1),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": os.cpu_count(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


class Record:
    """Rows as they come; written after each, so that nothing is lost if a later part fails."""

    def __init__(self, path: Path | None, device: Row) -> None:
        self._path, self._device = path, device
        self.rows: list[Row] = []

    def do(self, name: str, work: Callable[[], Any]) -> None:
        """Do a part; a row, or several, or what went wrong."""
        begun_s = time.perf_counter()
        try:
            found = work()
            rows = [found] if isinstance(found, dict) else list(found)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are still worth having
            rows = [{"part": name, "failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}]
        for row in rows:
            kept = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
            self.rows.append(kept)
            print(json.dumps(kept), flush=True)
        print(f"# {name}: {time.perf_counter() - begun_s:.1f} s", flush=True)
        if self._path is not None:
            content = {"device": self._device, "rows": self.rows}
            self._path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each timing")
    arguments = parser.parse_args()
    device, seconds = open_torch_cuda(), arguments.seconds
    half, single = TorchBackEnd(device, half=True), TorchBackEnd(device, half=False)
    record = Record(arguments.json, facts(device))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record.do("copies", lambda: copies(FULL))
        for back_end in (single, half):
            record.do("agreement", lambda b=back_end: check(b, SHIPPED, (720, 1280), 60))
        record.do("start", lambda: with_flat_field(half, SHIPPED, FULL, folder))
        models = [SHIPPED]
        record.do("large", lambda: models.append(make_large(folder)) or {"part": "large model written"})
        for path in models:
            record.do("parts", lambda p=path: parts_of_a_frame(half, p, FULL, 0.5 * seconds))
            record.do("engine", lambda p=path: engine_rows(half, p, FULL, 200, seconds))
            record.do("kernels", lambda p=path: kernels(p, device, FULL))
        record.do("fit", lambda: fit_rows(device, FULL, (50, 200, 500)))
        record.do("engine, 2,000 particles", lambda: engine_rows(half, SHIPPED, FULL, 2000, 0.5 * seconds))
        record.do(
            "engine, single precision", lambda: engine_rows(single, models[-1], FULL, 200, 0.5 * seconds)
        )

        def tensorrt() -> Iterator[Row]:
            begun_s = time.perf_counter()
            back_end = tensorrt_back_end(device, models, FULL, folder)
            yield {"part": "tensorrt built", "seconds": time.perf_counter() - begun_s, "models": len(models)}
            for path in models:
                yield parts_of_a_frame(back_end, path, FULL, 0.5 * seconds)
                yield from engine_rows(back_end, path, FULL, 200, seconds)

        record.do("tensorrt", tensorrt)


if __name__ == "__main__":
    main()
