"""Trajectory files for other programs: tables, GEFF, TrackMate, flowtracks, VTK PolyData, Rerun."""

from tracking.export.convert import ExportReport, export, format_of

__all__ = ["ExportReport", "export", "format_of"]
