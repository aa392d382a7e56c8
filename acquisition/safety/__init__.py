"""Safety of the hardware: limits, watchdog, safe state, rescue after a crash."""
