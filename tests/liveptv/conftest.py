"""What all tests here share."""

from unittest import mock

import pytest
import typer

from liveptv.cli import main as command_line


@pytest.fixture(scope="session", autouse=True)
def _commands_built_once():
    """The tree of commands takes longer to build than most commands run; commands in this process share it."""
    with mock.patch.object(command_line, "app", typer.main.get_command(command_line.app)):
        yield
