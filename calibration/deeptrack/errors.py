"""Errors of a user's pipeline."""

from __future__ import annotations

from calibration.errors import CalibrationError


class PipelineError(CalibrationError):
    """A pipeline that cannot be used; the text says why, where in the user's file, and what to do."""
