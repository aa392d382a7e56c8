"""From a calibration, or from the optics alone, to a trained network in one self-describing ONNX file."""
