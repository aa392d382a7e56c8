"""The application: command line, configuration, session supervisor, reports."""

from liveptv.guard import protect

__version__ = "0.1.0"

protect()
