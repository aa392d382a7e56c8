"""Frames of the documented wire format from any program, as a source."""
