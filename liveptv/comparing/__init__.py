"""What differs between two trajectory files: how they were made, what was detected, and how it was linked."""
