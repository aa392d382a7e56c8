"""What an installer has compiled is used by those who cannot write to the installation's folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from liveptv import kernel_cache
from liveptv.cli.main import run_command_line
from liveptv.kernel_cache import KERNELS, cache_folder, take_over_kernels
from liveptv.shadowed_packages import HOME
from liveptv.workflows import warmup
from stream import kernel_cache as files
from stream.errors import LivePTVError
from stream.kernel_cache import foreign_folders, take_over


def compiled(folder: Path, text: str = "code", when_s: float = 1_000.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("fit-12.nbi", "fit-12.1.nbc", "fit.cpython-311.pyc"):
        (folder / name).write_text(text)
        os.utime(folder / name, (when_s, when_s))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_kernels_are_copied_once_and_again_when_they_have_been_renewed(tmp_path: Path) -> None:
    installed, own = tmp_path / "installed", tmp_path / "own"
    compiled(installed)
    assert take_over(installed, own) == 2
    assert contents(own) == {"fit-12.nbi": "code", "fit-12.1.nbc": "code"}
    assert take_over(installed, own) == 0
    compiled(installed, "newer code", 2_000.0)
    assert take_over(installed, own) == 2
    assert contents(own) == {"fit-12.nbi": "newer code", "fit-12.1.nbc": "newer code"}


def test_a_users_own_newer_kernels_stay(tmp_path: Path) -> None:
    installed, own = tmp_path / "installed", tmp_path / "own"
    compiled(installed)
    compiled(own, "own code", 3_000.0)
    assert take_over(installed, own) == 0


def test_an_index_is_copied_after_the_code_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    original = files._copy_if_newer
    monkeypatch.setattr(files, "_copy_if_newer", lambda a, b: order.append(a.suffix) or original(a, b))
    compiled(tmp_path / "installed")
    take_over(tmp_path / "installed", tmp_path / "own")
    assert order == [".nbc", ".nbi"]


def test_a_folder_of_the_user_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    compiled(tmp_path / "installed")
    (tmp_path / "own").write_text("a file is in the way")
    assert take_over(tmp_path / "installed", tmp_path / "own") == 0


def test_only_folders_that_cannot_be_written_are_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(tmp_path / "mine" / "__pycache__")
    compiled(tmp_path / "foreign" / "__pycache__")
    monkeypatch.setattr(files, "_is_writable", lambda folder: "foreign" not in str(folder))
    sources = [tmp_path / name for name in ("mine", "foreign", "empty")]
    assert foreign_folders(sources) == [tmp_path / "foreign" / "__pycache__"]


def test_the_kernels_go_where_numba_looks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    asked: list[str] = []

    def own_folder(folder: str) -> Path:
        asked.append(folder)
        return tmp_path / folder

    compiled(HOME / "engines" / "__pycache__")  # as numba names them, so that the test needs no compilation
    try:
        monkeypatch.setattr(files, "_is_writable", lambda folder: folder.parent.name != "engines")
        monkeypatch.setattr(kernel_cache, "cache_folder", own_folder)
        assert take_over_kernels() >= 2
        assert asked == ["engines"]
        assert (tmp_path / "engines" / "fit-12.nbi").exists()
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
        assert take_over_kernels() == 0
    finally:
        for name in ("fit-12.nbi", "fit-12.1.nbc", "fit.cpython-311.pyc"):
            (HOME / "engines" / "__pycache__" / name).unlink()


def test_every_folder_with_kernels_is_named() -> None:
    with_kernels = {
        path.parent.relative_to(HOME).as_posix()
        for package in ("acquisition", "engines", "tracking", "calibration", "liveptv", "stream")
        for path in (HOME / package).rglob("*.py")
        if "@njit(cache=True" in path.read_text(encoding="utf-8")
    }
    assert with_kernels - {"engines/cuda", "engines/cuda/fit"} == set(
        KERNELS
    )  # a graphics card needs small ones
    assert all(cache_folder(folder).is_dir() for folder in KERNELS)


def test_a_part_that_cannot_be_compiled_is_named() -> None:
    shown: list[list[str]] = []
    parts: dict[str, Callable[[], object]] = {"paper": os.getcwd, "stone": _breaks}
    with pytest.raises(
        LivePTVError, match=r"not everything could be compiled: stone \(ValueError: too hard\)"
    ):
        warmup.warm_up(lambda names, _seconds: shown.append(names), parts)
    assert set(shown[0]) == {"paper", "stone"}


def _breaks() -> None:
    raise ValueError("too hard")


def test_the_command_says_what_it_compiles_how_long_and_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warmup, "PARTS", {"paper": _compiles_anew})
    assert run_command_line(["warmup"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "compiling paper (0 s)"
    assert lines[1].startswith("compiled in ")
    assert len(lines) == 2 + len({cache_folder(folder) for folder in KERNELS})


def _compiles_anew() -> None:
    from numba import njit

    assert njit(_twice)(2) == 4


def _twice(number: int) -> int:
    return 2 * number


def test_the_command_says_that_there_was_nothing_to_compile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warmup, "PARTS", {"paper": os.getcwd})
    assert run_command_line(["warmup"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[1] == "everything was compiled already; the machine code is in"
    )
