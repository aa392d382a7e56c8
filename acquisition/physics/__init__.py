"""What particles look like and how they flow: optics, Mie scattering, laminar channel flow, rendering."""
