"""CI fails where a test that its first environment skipped is not run in the second one either."""

import importlib.util
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci"
ALLOWED = (CI / "allowed_skips.txt").read_text(encoding="utf-8").splitlines()
CASE = '<testcase file="{}" name="{}">{}</testcase>'
SKIP = '<skipped type="pytest.skip" message="{}">somewhere</skipped>'


@pytest.fixture(scope="module")
def skips():
    spec = importlib.util.spec_from_file_location("ci_skips", CI / "skips.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def junit(*cases):
    """A JUnit file of (file, name, reason of the skip)."""
    text = "".join(
        CASE.format(file, name, SKIP.format(reason) if reason else "") for file, name, reason in cases
    )
    return f"<testsuites><testsuite>{text}</testsuite></testsuites>"


FIRST = junit(
    ("a.py", "test_one", "could not import 'vtk'"),
    ("a.py", "test_two", ""),
    ("b.py", "b", "collection skipped"),
)


@pytest.mark.parametrize(
    ("second", "left"),
    [
        (junit(("a.py", "test_one", ""), ("b.py", "test_x", "")), []),
        (junit(("a.py", "test_one", "needs a GPU"), ("b.py", "test_x", "needs Windows")), []),
        (junit(("a.py", "test_one", "could not import 'vtk'"), ("b.py", "test_x", "")), ["test_one"]),
        (junit(("a.py", "test_two", ""), ("b.py", "test_x", "")), ["test_one"]),
        (junit(("a.py", "test_one", "")), ["b.py"]),
        (junit(("a.py", "test_one", ""), ("b.py", "test_x", "the network is slow")), ["test_x"]),
    ],
)
def test_a_test_that_no_environment_runs_is_named_unless_its_reason_is_listed(skips, second, left):
    lines = skips.unlisted(skips.outcomes(FIRST), skips.outcomes(second), ALLOWED)
    assert len(lines) == len(left)
    assert all(name in line for name, line in zip(left, lines, strict=True))


def test_the_files_to_run_again_are_those_with_a_skip(skips, tmp_path, capsys, monkeypatch):
    (tmp_path / "first.xml").write_text(FIRST, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["skips.py", "files", str(tmp_path / "first.xml")])
    assert skips.main() == 0
    assert capsys.readouterr().out.split() == ["a.py", "b.py"]


def test_the_list_has_only_what_no_environment_of_ours_can_have():
    listed = [line for line in ALLOWED if line and not line.startswith("#")]
    assert listed == ["needs a GPU", "needs Windows", "the shared data are not here"]
