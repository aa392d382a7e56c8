"""Which side of focus a particle is on: two depths explain its image, its motion fits one of them."""
