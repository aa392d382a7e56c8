"""Reprocessing of many recordings: found, cut into pieces where that helps, spread over workers, written once."""
