import os
import subprocess
import sys

READ_A_NETWORK = """
import sys
from pathlib import Path
from engines.network.model import OnnxModel
from liveptv.models import SHIPPED_MODEL
OnnxModel(SHIPPED_MODEL)
assert "onnxruntime" in sys.modules
"""


def test_a_computer_that_reads_a_network_is_given_no_number_and_reports_nothing(tmp_path):
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "numba")
    subprocess.run(
        [sys.executable, "-c", READ_A_NETWORK],
        env={**environment, **home, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=300,
    )
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "numba" not in path.parts]
    assert left == []
