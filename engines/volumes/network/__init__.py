"""The network for volumes: proposals with positions, brightnesses, probabilities and standard errors."""
