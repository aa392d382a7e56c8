"""A simulated microscope: particles in a laminar channel flow, seen by Python devices of the real core.

Load it like any other microscope, by a configuration file: `simulated.cfg` or `paper.cfg` in this folder, which
`acquisition.configuration` finds by name. Only those files name this package; nothing else imports it in a run.
"""
