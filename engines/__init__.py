"""Detectors: images to detections, by the classical detector or by networks on different back ends."""
