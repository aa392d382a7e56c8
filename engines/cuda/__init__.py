"""What the engines on a GPU share: one program from raw pixels to a few numbers, and slots that overlap copies."""
