"""The PSF of a stack: shapes, fits of beads with them, and the choice between them."""
