"""What finished trajectories say: velocity, its grid, residuals, and metrics against known ones."""
