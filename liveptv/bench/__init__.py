"""Measurements of the program itself, for `liveptv bench`."""
