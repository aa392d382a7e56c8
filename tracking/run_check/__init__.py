"""Checks during a run on what tracks say of the errors and of the focus."""
