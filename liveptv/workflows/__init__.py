"""What the commands do, one module each: run, scan, train, quantise, watch, resume."""
