"""Detectors of others, trainable on our images, to compare with; they need torch."""
