"""The fit's kernel is compiled for GPUs by NVIDIA's own compiler, which needs none."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("nvidia.cuda_nvrtc", reason="no nvidia-cuda-nvrtc for this system")

from engines.cuda.fit import compiler
from engines.cuda.fit.compiler import architectures, compile_kernel, nvrtc
from engines.cuda.fit.kernel import NAME, compile_fit_kernel
from engines.cuda.fit.kernel_cache import kept_or_made
from engines.cuda.fit.layout import AT_A_TIME, THREADS
from engines.engine import BackEndError

REGISTERS = 65_536
"""Of a multiprocessor, in all GPUs since 2012."""
SHARED_BYTES, RESERVED_BYTES = 100 << 10, 1 << 10
"""Shared memory of a multiprocessor of a GeForce (8.6, 8.9, 12.0), and what each thread block takes besides."""


@pytest.mark.parametrize("capability", [(8, 6), (8, 9), (9, 0), (12, 0)])
def test_four_thread_blocks_fit_into_a_multiprocessor_and_nothing_is_spilled(capability):
    found = compile_fit_kernel(capability)
    assert found.image[:4] == b"\x7fELF"
    assert NAME.encode() in found.image
    assert "warning" not in found.log
    assert "error" not in found.log.lower().replace("state_errors", "")
    spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", found.log)
    assert spilled
    assert set(spilled) == {"0"}
    used = re.search(r"Used (\d+) registers.* (\d+) bytes smem", found.log)
    assert used is not None
    registers, shared = map(int, used.groups())
    assert AT_A_TIME * THREADS * registers <= REGISTERS
    assert AT_A_TIME * (shared + RESERVED_BYTES) <= SHARED_BYTES


def test_a_gpu_newer_than_the_compiler_gets_what_its_driver_can_finish():
    newest = architectures()[-1]
    found = compile_kernel('extern "C" __global__ void nothing() {}', {}, (newest // 10 + 1, 0))
    assert b".target sm_" in found.image
    assert b"nothing" in found.image


def test_an_error_is_said_with_its_line():
    with pytest.raises(BackEndError, match=r"kernel.cu\(2\).*undefined_thing"):
        compile_kernel("\nint f() { return undefined_thing; }", {}, (8, 6))
    with pytest.raises(BackEndError, match=r"compute capability 3.0 are older"):
        compile_kernel("", {}, (3, 0))


def test_without_the_compiler_it_is_said_what_to_install(monkeypatch):
    nvrtc.cache_clear()
    monkeypatch.setattr(compiler, "candidates", lambda: iter(["no-such-library.so"]))
    with pytest.raises(BackEndError, match="pip install nvidia-cuda-nvrtc-cu12"):
        architectures()
    monkeypatch.undo()
    assert architectures()


def test_a_kernel_is_compiled_once_and_a_damaged_or_another_one_again(tmp_path):
    made: list[str] = []

    def compiled(name: str) -> bytes:
        def make() -> bytes:
            made.append(name)
            return name.encode()

        return kept_or_made((name, "12.9"), make, tmp_path / "kernels")

    assert [compiled("one"), compiled("one"), compiled("two")] == [b"one", b"one", b"two"]
    assert made == ["one", "two"]
    for path in (tmp_path / "kernels").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert compiled("one") == b"one"
    assert made == ["one", "two", "one"]


def test_a_folder_that_cannot_be_used_costs_time_only(tmp_path):
    (tmp_path / "kernels").write_text("a file")
    assert kept_or_made(("one",), lambda: b"one", tmp_path / "kernels") == b"one"
    assert (tmp_path / "kernels").read_text() == "a file"
