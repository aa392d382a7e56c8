"""Learning an object from a few crops of the user's own images, by its symmetry and without positions."""
