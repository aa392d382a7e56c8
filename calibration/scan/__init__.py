"""A recorded focus scan: its planes, what is wrong with them, its flat field."""
