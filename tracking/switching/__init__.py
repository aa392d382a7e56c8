"""Tracking of particles that switch between Brownian and directed motion: interacting multiple models."""
