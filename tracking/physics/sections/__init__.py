"""Cross-sections of straight channels, and the developed flow through them."""
