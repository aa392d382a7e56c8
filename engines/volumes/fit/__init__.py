"""The joint maximum-likelihood fit of particles in volumes."""
