"""From trajectories to the flow: velocity field, flow rate, wall shear and pressure gradient, with their errors."""
