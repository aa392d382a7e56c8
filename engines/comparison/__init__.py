"""Published detectors to compare with, trainable on the same images; they need torch."""
