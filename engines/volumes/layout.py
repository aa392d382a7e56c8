"""Where a calibration for volumes keeps what a detector needs; `calibration/volumes/file.py` writes it.

The root of the file has the attribute `kind` = "volume". The group `volume` has the PSF in its group `psf`
(`VolumePsf.save`), and the attributes `voxel_um` (z, y, x), `gain`, `offset` and `read_variance` (the noise, in
grey values; see `surroundings.noise.Noise`).
"""

from __future__ import annotations

KIND_ATTRIBUTE = "kind"
KIND = "volume"
GROUP = "volume"
PSF = "psf"
VOXEL = "voxel_um"
NOISE = ("gain", "offset", "read_variance")
SCHEMA = "liveptv-volume-calibration"
SCHEMA_VERSION = 1
