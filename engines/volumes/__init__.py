"""Detection in volumes: proposals of places, the joint fit in 3D, and how sure each particle is."""
