"""The application: command line, configuration, session supervisor, reports."""

__version__ = "0.1.0"
