"""Microscope and recordings: live and recorded frames, commands, safety, focus scan, simulated microscope."""
