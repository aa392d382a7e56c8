"""The fit of particle images as one kernel on a GPU."""
