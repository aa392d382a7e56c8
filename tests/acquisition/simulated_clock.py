"""A clock that only the test moves, in the place of the module `time`."""


class SimulatedClock:
    """What the modules here use of `time`; sleeping lets the time pass at once."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def monotonic(self) -> float:
        """Now, s."""
        return self.now_s

    perf_counter = time = monotonic

    def perf_counter_ns(self) -> int:
        """Now, ns."""
        return round(1e9 * self.now_s)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += max(0.0, seconds)
