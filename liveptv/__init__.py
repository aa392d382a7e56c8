"""The application: command line, configuration, session supervisor, reports."""

from liveptv.shadowed_packages import protect

__version__ = "0.1.0"

protect()
