"""The network detector: its architecture, its model file, and the decoding of its maps."""
