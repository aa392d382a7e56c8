"""The errors of a calibration."""

from stream.errors import LivePTVError


class CalibrationError(LivePTVError, ValueError):
    """Images from which no calibration can be made; the text says why, and what to do."""
