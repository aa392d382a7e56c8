"""Where the particles of a scan are in space, to a small part of a pixel and of a step."""
