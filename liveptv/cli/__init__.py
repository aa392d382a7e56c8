"""The command line. Exit status: 0 done, 1 the run failed (one line says why and what to do), 2 wrong usage."""

from liveptv.cli.main import run_command_line

__all__ = ["run_command_line"]
