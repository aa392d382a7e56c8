"""The plan of an experiment: from its file to frames, slices and expected errors, in numbers and words."""
