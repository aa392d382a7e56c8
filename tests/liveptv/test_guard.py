import subprocess
import sys
from pathlib import Path

import pytest

import liveptv
from liveptv.guard import explain, hidden_packages

HOME = Path(liveptv.__file__).resolve().parent.parent


def test_our_own_packages_are_found_where_we_are():
    assert hidden_packages(HOME) == {}


@pytest.mark.parametrize("name", ["stream.py", "engines/__init__.py", "tracking/x.txt"])
def test_a_users_file_that_hides_a_package_is_named(tmp_path, name):
    hiding = tmp_path / name
    hiding.parent.mkdir(exist_ok=True)
    hiding.write_text("")
    program = f"import sys; sys.path.insert(0, {str(HOME)!r}); from liveptv.__main__ import main; main()"
    # as when liveptv is started in the user's folder by `python -m`: that folder comes first
    program = program.replace("from liveptv", f"sys.path.insert(0, {str(tmp_path)!r}); from liveptv")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    hides = not name.endswith(".txt")  # a folder without Python in it does not hide a real package
    assert (
        done.returncode == 1 and "are hidden" in done.stderr and name.split("/")[0] in done.stderr
    ) == hides
    assert "Traceback" not in done.stderr


def test_the_explanation_says_what_to_do():
    text = explain({"stream": "C:/data/stream.py"}, Path("C:/site-packages"))
    assert "C:/data/stream.py" in text
    assert "Rename" in text
