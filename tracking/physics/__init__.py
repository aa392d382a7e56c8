"""From trajectories to physics: flow, diffusion, viscosity, with errors."""
