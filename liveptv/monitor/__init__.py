"""The live page: a process of its own that listens to a run, and shows it to browsers."""
