"""Volumes in recordings: their planes, at which heights and times these were taken, and reading them."""
