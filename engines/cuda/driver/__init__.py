"""The first NVIDIA GPU through its driver alone."""
