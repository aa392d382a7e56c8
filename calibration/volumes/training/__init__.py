"""Training of the network for volumes, on volumes that are drawn on the fly."""
