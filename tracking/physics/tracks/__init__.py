"""The velocity of each track with its standard error, exact for localisation errors and Brownian motion."""
