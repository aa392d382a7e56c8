"""What goes wrong in a calibration."""

from stream.errors import LivePTVError


class CalibrationError(LivePTVError, ValueError):
    """Images from which no calibration can be made; the message says why and what to do."""
