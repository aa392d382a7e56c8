"""Detection tables: `frame, x_um, y_um, z_um, sigma_*_um, brightness, confidence`, in and out."""

from liveptv.tables.reader import DetectionTable, iter_detections, read_detection_table
from liveptv.tables.writer import DetectionTableWriter

__all__ = ["DetectionTable", "DetectionTableWriter", "iter_detections", "read_detection_table"]
