"""Files of a folder as a source of frames, taken as they appear."""
