"""The microscope: live stream, recorded sources, execution of commands, simulated microscope."""
