"""Reports of runs, calibrations, trainings and evaluations: a self-contained page each, with its figures."""
