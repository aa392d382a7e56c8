"""Diffusion coefficients, viscosity and mean squared displacements from trajectories, with standard errors."""
