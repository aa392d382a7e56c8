"""Commands carried out on the microscope between frames, within the limits of the experiment."""
