"""The particles of a scan: which are used, where they are, of which kind, and their labels."""
