"""TensorRT: engines built for one model, frame size and GPU by an explicit command, kept, and run."""
