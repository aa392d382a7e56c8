"""One run: its stages as processes or threads, and the supervisor that starts, watches and ends them."""
