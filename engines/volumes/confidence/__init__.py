"""How sure a particle of a volume is: its posterior probability among what noise alone would show."""
