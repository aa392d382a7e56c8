import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import liveptv
from liveptv.shadowed_packages import HOME, ROOT_PACKAGES, HomeFinder, explain, hidden_packages, home_first

WORKER = """
import multiprocessing
from {module} import {name} as target

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=target, args=({arguments},))
    process.start()
    process.join(240)
    print("exit", process.exitcode)
"""


def python(folder, *arguments, stdin=None):
    """Run Python as somebody does in the folder with the data, where liveptv is installed elsewhere."""
    environment = os.environ | {"PYTHONPATH": str(HOME), "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env=environment,
    )


def place(folder, name, text="def mine():\n    return 'mine'\n"):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_our_own_packages_are_found_where_we_are():
    assert Path(liveptv.__file__).resolve().parent.parent == HOME
    assert hidden_packages() == {}


HIDING = ["tracking.py", "stream.py", "engines/__init__.py", "calibration/__init__.py", "acquisition.py"]


@pytest.mark.parametrize("name", HIDING)
def test_a_script_beside_a_file_of_our_name_uses_our_package_and_is_told(tmp_path, name):
    path = place(tmp_path, name)
    root = Path(name.split("/", maxsplit=1)[0]).stem
    script = place(tmp_path, "script.py", f"import liveptv\nimport {root}\nprint({root}.__file__)\n")
    done = python(tmp_path, str(script))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == HOME / root / "__init__.py"
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert "rename" in done.stderr


def test_a_folder_without_python_in_it_hides_nothing(tmp_path):
    place(tmp_path, "calibration/scan.tif")
    done = python(tmp_path, "-c", "import liveptv, calibration; print(calibration.__file__)")
    assert Path(done.stdout.strip()).parent == HOME / "calibration"
    assert done.stderr == ""


def test_a_notebook_cell_beside_a_file_of_our_name_reads_trajectories(tmp_path):
    place(tmp_path, "tracking.py")
    cell = (
        "import liveptv\nfrom tracking.trajectories.file import read_trajectories\nprint(read_trajectories)\n"
    )
    done = python(tmp_path, "-", stdin=cell)
    assert done.returncode == 0, done.stderr
    assert "read_trajectories" in done.stdout


def test_a_users_module_that_was_imported_first_is_an_error_of_one_line_that_names_it(tmp_path):
    path = place(tmp_path, "tracking.py")
    done = python(tmp_path, "-c", "import tracking\nimport liveptv\n")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert str(path) in last
    assert "rename" in last


def test_the_command_works_beside_a_file_of_our_name_and_says_so(tmp_path):
    path = place(tmp_path, "stream.py")
    done = python(tmp_path, "-m", "liveptv", "info", "nothing.csv")
    assert done.returncode == 1
    assert "error: there is no file nothing.csv" in done.stderr
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_processes_started_from_a_script_find_our_packages_and_do_not_warn_again(tmp_path):
    path = place(tmp_path, "tracking.py", "raise RuntimeError('mine was imported')\n")
    text = "import liveptv\n" + WORKER.format(
        module="tracking.trajectories.hdf5_superblock", name="lookup3", arguments="b'abc'"
    )
    done = python(tmp_path, str(place(tmp_path, "script.py", text)))
    assert "exit 0" in done.stdout, done.stderr
    assert done.stderr.count(str(path)) == 1


def test_processes_of_a_notebook_which_do_not_import_liveptv_first_find_our_packages_too(tmp_path):
    place(tmp_path, "tracking.py", "raise RuntimeError('mine was imported')\n")
    cell = (
        "import liveptv, multiprocessing\nfrom liveptv.shadowed_packages import home_first\n"
        "from tracking.trajectories.hdf5_superblock import lookup3\nwith home_first():\n"
        "    process = multiprocessing.get_context('spawn').Process(target=lookup3, args=(b'abc',))\n"
        "    process.start()\n    process.join(240)\nprint('exit', process.exitcode)\n"
    )
    done = python(tmp_path, "-c", cell)
    assert "exit 0" in done.stdout, done.stderr


def test_nothing_is_put_on_the_path_where_nothing_hides_us():
    before = list(sys.path)
    with home_first():
        assert sys.path == before


def test_only_our_root_packages_are_looked_for():
    finder = HomeFinder()
    for name in ROOT_PACKAGES:
        spec = finder.find_spec(name)
        assert spec is not None
        assert Path(str(spec.origin)) == HOME / name / "__init__.py"
        assert finder.find_spec(name, ["somewhere"]) is None
    assert finder.find_spec("tests") is None
    assert finder.find_spec("numpy") is None
    assert importlib.util.find_spec("numpy") is not None


def test_the_explanation_says_what_to_do():
    text = explain({"stream": "C:/data/stream.py"})
    assert "C:/data/stream.py" in text
    assert "rename" in text
