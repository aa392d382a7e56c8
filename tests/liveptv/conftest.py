"""What all tests here share."""

import signal
from unittest import mock

import pytest
import typer

from liveptv.cli import main as command_line


@pytest.fixture(scope="session", autouse=True)
def _commands_built_once():
    """The tree of commands takes longer to build than most commands run; commands in this process share it."""
    with mock.patch.object(command_line, "app", typer.main.get_command(command_line.app)):
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard_by_what_tests_start():
    """A shell that starts the tests in the background lets them ignore Ctrl-C, and with them what they start."""
    handlers = {"SIGINT": signal.default_int_handler, "SIGQUIT": _nothing, "SIGHUP": _nothing}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def _nothing(*_):
    """A handler that does nothing is not handed on to another program, as `SIG_IGN` is."""
