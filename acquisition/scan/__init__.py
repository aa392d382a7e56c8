"""The focus scan: a useq plan of absolute positions, a burst at each, one OME file, and references."""
