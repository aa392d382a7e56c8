"""Images to detections: classical baselines, networks and their back ends."""
