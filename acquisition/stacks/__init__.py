"""Recorded image stacks of different formats, read plane by plane."""
