"""What relates a particle's image to its depth, and how well a detector reads it."""
