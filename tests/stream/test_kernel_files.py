"""Kernels that several processes compile at once: each gets its own code back, or compiles again."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from numba.core.caching import IndexDataCacheFile

from stream import kernel_files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens the files of one function, as each process does for itself."""
    monkeypatch.setattr(IndexDataCacheFile, "save", IndexDataCacheFile.save)
    kernel_files.init()
    return lambda source="its source": IndexDataCacheFile(str(tmp_path), "kernel-12.py311", source)


def test_two_forms_that_are_compiled_at_once_are_not_taken_for_each_other(opened):
    one, other = opened(), opened()
    write, seen_before = one._save_data, other._load_index()
    other._load_index = lambda: dict(seen_before)

    def meanwhile(name, code):
        other.save("int64", "code for integers")
        write(name, code)

    one._save_data = meanwhile
    one.save("float64", "code for floats")
    assert opened().load("float64") == "code for floats"
    assert opened().load("int64") in {"code for integers", None}


def test_of_a_process_that_is_killed_while_it_writes_nobody_gets_the_code_of_an_older_version(
    opened, monkeypatch
):
    opened().save("float64", "code of the old version")
    killed = opened("its new source")

    def dies(*_):
        raise SystemExit

    monkeypatch.setattr(killed, "_save_data", dies)
    with pytest.raises(SystemExit):
        killed.save("float64", "code")
    assert opened("its new source").load("float64") is None


def test_the_code_of_older_versions_goes_and_that_of_other_functions_stays(opened, tmp_path):
    other = IndexDataCacheFile(str(tmp_path), "kernel-1.py311", "its source")
    other.save("float64", "code of another function")
    opened().save("float64", "old")
    for form in ("float64", "float32", "float64"):
        opened("its new source").save(form, f"code for {form}")
    assert len(list(tmp_path.glob("kernel-12.*.nbc"))) == 2
    for form in ("float64", "float32"):
        assert opened("its new source").load(form) == f"code for {form}"
    assert other.load("float64") == "code of another function"


KERNEL = """
import sys
from numba import njit
from stream import kernel_files
if sys.argv[1] == "so":
    kernel_files.init()

@njit(cache=True)
def twice(number):
    return 2 * number

assert (twice(3), twice(1.5)) == (6, 3.0)
print(sum(twice.stats.cache_hits.values()))
"""


def test_numba_itself_and_this_program_find_what_the_other_has_kept(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(KERNEL)
    for first, then in (("so", "as numba does"), ("as numba does", "so")):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / first), "PYTHONPATH": str(ROOT)}
        found = [
            subprocess.run(
                [sys.executable, program, how], env=environment, capture_output=True, text=True, check=True
            ).stdout.strip()
            for how in (first, then)
        ]
        assert found == ["0", "2"]


def test_numba_is_told_of_it_by_the_installation():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    module, name = project["entry-points"]["numba_extensions"]["init"].split(":")
    assert getattr(importlib.import_module(module), name) is kernel_files.init
