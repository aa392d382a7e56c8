"""TensorRT: build (by command), keep and run engines for one model, frame size and GPU."""
