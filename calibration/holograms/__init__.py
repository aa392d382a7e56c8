"""Spheres in in-line holograms: their place, radius and refractive index, by search, exact model and fit."""
