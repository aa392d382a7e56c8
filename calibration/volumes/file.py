"""Writes and reads a calibration for volumes, an HDF5 file; docs/volumes-calibration.md describes it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from calibration.volumes.noise import Levels, MeasuredNoise
from calibration.volumes.psf.choosing import Choice
from calibration.volumes.psf.sections import Sections
from calibration.volumes.psf.variation import Variation
from calibration.volumes.result import BeadTable, Triple, VolumeCalibration
from engines.volumes.layout import (
    GROUP,
    KIND,
    KIND_ATTRIBUTE,
    NOISE,
    PSF,
    SCHEMA,
    SCHEMA_VERSION,
    VOXEL,
)
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.noise import Noise
from stream.errors import SourceError
from stream.hdf5_checks import NUMBERS, TEXT
from stream.hdf5_reading import attribute, check_file, open_hdf5, schema_of, values
from stream.unfinished_files import written_beside

DAMAGED = "it is damaged: calibrate again, or use a copy"
MOST_BYTES = 1 << 28
"""No part of a calibration of volumes is larger."""
LIBRARIES = ("liveptv", "numpy", "scipy", "h5py")
AXES = "x, y from the centre of the first voxel, z above the first slice; triples are in the order z, y, x"


def write_volume_calibration(path: Path, found: VolumeCalibration) -> None:
    """Write it; the file gets its name only when it is complete. Raises `OutputError` if it cannot be written."""
    with written_beside(path, overwrite=True) as part, h5py.File(part, "w", libver="latest") as file:
        file.attrs.update(
            {
                "schema": SCHEMA,
                "schema_version": SCHEMA_VERSION,
                KIND_ATTRIBUTE: KIND,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "axes": AXES,
                "facts": json.dumps(_facts(found)),
                "provenance": json.dumps(found.provenance, default=str),
                "versions": json.dumps({name: version(name) for name in LIBRARIES}),
            }
        )
        group = file.create_group(GROUP)
        group.attrs[VOXEL] = found.voxel_um
        for name in NOISE:
            group.attrs[name] = getattr(found.noise.model, name)
        found.psf.save(group.create_group(PSF))
        for name, table in (("beads", found.beads), ("levels", found.levels), ("sections", found.sections)):
            _write(file.create_group(name), table)


def _facts(found: VolumeCalibration) -> dict[str, Any]:
    return {
        "gain_error": found.noise.gain_error if np.isfinite(found.noise.gain_error) else None,
        "misfit": found.noise.misfit,
        "offset_known": found.noise.offset_known,
        "choice": asdict(found.choice),
        "gaussian_um": found.gaussian_um,
        "gaussian_errors": found.gaussian_errors,
        "background": found.background,
        "variation": [asdict(one) for one in found.variation],
        "shape": found.shape,
        "lone_sigmas": found.lone_sigmas,
        "bead_diameter_um": found.bead_diameter_um,
        "remarks": found.remarks,
        "warnings": found.warnings,
    }


def _write(group: h5py.Group, table: object) -> None:
    for item in fields(table):  # type: ignore[arg-type]
        column = np.asarray(getattr(table, item.name))
        if column.dtype.kind == "U":
            group.create_dataset(item.name, data=column.astype(object), dtype=h5py.string_dtype())
        else:
            group.create_dataset(item.name, data=column)


def is_volume_calibration(path: Path) -> bool:
    """Whether a file says that it is a calibration for volumes."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(schema_of(file) == SCHEMA)
    except (OSError, RuntimeError):
        return False


def read_volume_calibration(path: Path) -> VolumeCalibration:
    """Read all of it. Raises `SourceError` for anything that is not a calibration for volumes."""
    with open_hdf5(path, DAMAGED) as file:
        if schema_of(file) != SCHEMA:
            raise SourceError(
                f"{path} is no calibration for volumes; make one with `liveptv calibrate --volume`"
            )
        if (attribute(file, "schema_version", int) or 0) > SCHEMA_VERSION:
            raise SourceError(f"{path} was made by a newer liveptv; update this one")
        check_file(file, most_bytes=MOST_BYTES)
        return _read(file)


def created(path: Path) -> tuple[str, dict[str, str]]:
    """When a calibration was made, and with which versions."""
    with open_hdf5(path, DAMAGED) as file:
        return str(attribute(file, "created", str)), json.loads(str(attribute(file, "versions", str)))


def _read(file: h5py.File) -> VolumeCalibration:
    facts = json.loads(str(attribute(file, "facts", str)))
    group = file[GROUP]
    gain_error = facts["gain_error"]
    noise = MeasuredNoise(
        Noise(*(float(attribute(group, name)) for name in NOISE)),
        np.inf if gain_error is None else float(gain_error),
        float(facts["misfit"]),
        bool(facts["offset_known"]),
    )
    choice = facts["choice"]
    found = VolumeCalibration(
        psf=VolumePsf.load(group[PSF]),
        noise=noise,
        levels=Levels(**_columns(file["levels"], Levels)),
        choice=Choice(
            float(choice["freedom"]),
            _numbers(choice["freedoms"]),
            _numbers(choice["gains"]),
            _numbers(choice["errors"]),
            int(choice["beads"]),
            float(choice.get("misfit", 0.0)),
        ),
        gaussian_um=_triple(facts["gaussian_um"]),
        gaussian_errors=_triple(facts["gaussian_errors"]),
        background=_triple(facts["background"]),
        beads=BeadTable(**_columns(file["beads"], BeadTable)),
        sections=Sections(**_columns(file["sections"], Sections)),
        variation=tuple(Variation(**one) for one in facts["variation"]),
        shape=tuple(int(n) for n in facts["shape"]),  # type: ignore[arg-type]
        voxel_um=_triple(attribute(group, VOXEL)),
        lone_sigmas=float(facts["lone_sigmas"]),
        bead_diameter_um=facts["bead_diameter_um"],
        remarks=tuple(facts["remarks"]),
        warnings=tuple(facts["warnings"]),
        provenance=json.loads(str(attribute(file, "provenance", str))),
    )
    if len({len(getattr(found.beads, item.name)) for item in fields(BeadTable)}) != 1:
        raise ValueError("the columns of the beads are not of one length")
    levels = replace(found.levels, from_beads=found.levels.from_beads.astype(bool))
    return replace(found, levels=levels)


def _columns(group: h5py.Group, table: type) -> dict[str, Any]:
    return {
        item.name: values(group, item.name, kinds=TEXT if "str_" in str(item.type) else NUMBERS)
        for item in fields(table)
    }


def _numbers(given: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in given)


def _triple(numbers: Any) -> Triple:
    z, y, x = (float(v) for v in numbers)
    return z, y, x


def describe_volume_calibration(path: Path) -> dict[str, Any]:
    """What `liveptv info` prints. Raises `SourceError` if it cannot be read."""
    found = read_volume_calibration(path)
    when, _ = created(path)
    used = found.beads.used
    by_axis = ("z", "y", "x")
    return {
        "kind": "volume calibration",
        "created": when,
        "beads_found": len(found.beads),
        "beads_used": int(used.sum()),
        "beads_left_out": found.beads.left_out(),
        "volumes": found.shape[0],
        "slices": found.shape[1],
        "height_px": found.shape[2],
        "width_px": found.shape[3],
        "voxel_um": dict(zip(by_axis, found.voxel_um, strict=True)),
        "psf": "measured" if found.psf.is_measured else "Gaussian",
        "psf_sigma_um": dict(zip(by_axis, found.psf.sigma_um, strict=True)),
        "gaussian_sigma_um": dict(zip(by_axis, found.gaussian_um, strict=True)),
        "gaussian_sigma_relative_error": dict(zip(by_axis, found.gaussian_errors, strict=True)),
        "gain_by_measured_psf": found.choice.gain,
        "bead_diameter_um": found.bead_diameter_um,
        "noise": {
            **asdict(found.noise.model),
            "gain_error": found.noise.gain_error,
            "offset_from_dark": found.noise.offset_known,
        },
        "misfit": found.noise.misfit,
        "psf_misfit": found.psf.misfit,
        "background": dict(zip(("mean", "lowest", "highest"), found.background, strict=True)),
        "variation": [asdict(one) for one in found.variation],
        "warnings": list(found.warnings),
        "remarks": list(found.remarks),
        "provenance": found.provenance,
        "beads": {item.name: getattr(found.beads, item.name)[used] for item in fields(BeadTable)},
    }
