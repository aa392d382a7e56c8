"""Measuring detected particles at the limit: the calibrated particle image fitted to the pixels."""
