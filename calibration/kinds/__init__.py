"""Which traces of a scan show which kind of particle."""
