"""The recorder: keeps the camera images of a live run, all or those around events, beside its trajectories."""
