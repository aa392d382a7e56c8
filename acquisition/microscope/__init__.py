"""The microscope behind Micro-Manager's core: its devices, the camera's frames, their numbers and times."""
