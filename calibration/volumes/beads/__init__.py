"""Beads in volumes: where they are, which ones can be used, and their surroundings."""
