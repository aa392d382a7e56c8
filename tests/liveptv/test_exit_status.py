"""The exit status says how a command ended, wherever in the program it was interrupted."""

import subprocess
import sys

ENTRY = """
import liveptv.__main__ as entry

def interrupted():
    exec("raise KeyboardInterrupt")

entry._run = interrupted
entry.main()
"""


def test_ctrl_c_while_a_text_is_executed_ends_with_status_1(tmp_path):
    (tmp_path / "interrupted.py").write_text(ENTRY)
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: stopped by the user\n"
