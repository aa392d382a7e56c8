"""Search of a frame that begins with what the tracker expects: correct, look at what is left, search only there."""
