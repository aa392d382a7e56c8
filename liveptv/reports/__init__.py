"""What a run shows at its end: pictures and one page, made from the trajectory file alone."""
