"""The flow in a straight channel that fits all tracks: its fit, what follows from it, and where it is wrong."""
