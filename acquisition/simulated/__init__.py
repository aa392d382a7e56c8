"""The simulated microscope: particles in a laminar channel flow, imaged by Python devices in the real core.

It is loaded like any other microscope, by a configuration file in this folder,
which `acquisition.configuration` finds by name. Only these files refer to this package; no other code imports it in
a run.
"""
