"""The flow of a channel during a run: tracks are taken in frame by frame, the fit is renewed every second."""
