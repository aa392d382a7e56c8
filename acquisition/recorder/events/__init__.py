"""Keeps the frames around events: the ring in memory, and the events."""
