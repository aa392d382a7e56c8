"""The work behind the commands, one module each: run, demo, scan, train, quantise, watch, resume."""
