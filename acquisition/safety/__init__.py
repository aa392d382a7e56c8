"""What keeps the hardware safe: limits, watchdog, safe state, rescue after a crash."""
