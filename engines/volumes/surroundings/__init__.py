"""What surrounds the particles of a volume: background and noise, given or estimated from the volume itself."""
