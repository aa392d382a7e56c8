"""The flow through a region with given walls (bend, step, constriction, junction), fitted to all tracks."""
