"""Recorded image stacks in all supported formats, read plane by plane."""
