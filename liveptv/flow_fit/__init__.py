"""The flow in a straight channel from a trajectory file: what is asked, what is found, and its words."""
