"""Networks on a GPU: one program from raw pixels to a few numbers per particle, and slots for frames in flight."""
