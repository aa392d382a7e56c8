"""The recording of a run as a source of frames."""
