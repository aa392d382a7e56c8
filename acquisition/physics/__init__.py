"""Physics: images of particles (optics, Mie scattering), laminar channel flow, rendering of camera images."""
