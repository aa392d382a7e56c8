"""Trajectory files for other programs: tables (CSV, Parquet), TrackMate XML, VTK PolyData, Rerun."""

from tracking.export.convert import ExportReport, export

__all__ = ["ExportReport", "export"]
