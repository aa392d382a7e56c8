import subprocess
import sys
from types import SimpleNamespace

from tracking import compiling

BOTH = """
from tracking.compiling import compile_last, last_kernels
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker
compile_last()
OnlineTracker(TrackerSettings()).warmup()
for kernel, _ in last_kernels():
    print(kernel.py_func.__name__, len(kernel.signatures))
"""


def test_what_is_compiled_beside_is_what_the_tracker_calls():
    said = subprocess.run([sys.executable, "-c", BOTH], capture_output=True, text=True, check=True).stdout
    compiled = dict(line.split() for line in said.splitlines())
    assert len(compiled) == len(compiling.last_kernels())
    assert set(compiled.values()) == {"1"}  # a second one would be of types that were not foreseen


def test_a_new_installation_is_known_by_its_cache(monkeypatch, tmp_path):
    stats = SimpleNamespace(cache_path=str(tmp_path))
    kernel = SimpleNamespace(stats=stats, py_func=compiling.resolve.py_func)
    monkeypatch.setattr(compiling, "resolve", kernel)
    assert compiling.is_new()
    (tmp_path / "two_branches.resolve-12.py311.nbi").touch()
    assert not compiling.is_new()


def test_the_process_beside_ends_with_the_warmup(monkeypatch):
    monkeypatch.setattr(compiling, "START", "import time; time.sleep(600)")
    monkeypatch.setattr(compiling, "is_new", lambda: True)
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    with compiling.last_compiled_beside():
        assert started[0].poll() is None
    assert started[0].poll() not in (None, 0)  # stopped, not waited for


def test_where_all_is_compiled_no_process_is_started(monkeypatch):
    monkeypatch.setattr(compiling, "is_new", lambda: False)
    monkeypatch.setattr(subprocess, "Popen", None)
    with compiling.last_compiled_beside():
        pass
