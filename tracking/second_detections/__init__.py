"""Second detections: tracks that follow a particle which another track follows already."""
