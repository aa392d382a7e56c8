"""Trajectories of other programs as trajectory files: GEFF, TrackMate, flowtracks, VTK PolyData."""

from tracking.imports.imported import Assumed, Imported, ImportReport
from tracking.imports.reading import read_foreign, write_foreign
from tracking.imports.recognise import Recognised, recognise

__all__ = ["Assumed", "ImportReport", "Imported", "Recognised", "read_foreign", "recognise", "write_foreign"]
