"""A detector of a user's own: a Python file named in the settings, loaded, checked and run as an `Engine`."""
