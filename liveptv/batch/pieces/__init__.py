"""Long recordings in pieces: planned, detected by different workers, and tracked as one."""
