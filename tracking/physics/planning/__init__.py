"""Before an experiment: how well its tracks will tell the flow or D, and what that takes."""
