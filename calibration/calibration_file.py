"""Writing and reading `calibration.h5`; docs/calibration.md describes the file."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from calibration.ambiguity import Ambiguity
from calibration.cutout_images import CutoutWriter
from calibration.errors import CalibrationError
from calibration.field.cross_validation import Validation
from calibration.field.named import NamedTerms
from calibration.field.summary import summary_of
from calibration.focal_planes import FocalPlanes
from calibration.noise import NoiseModel
from calibration.pipeline import Calibrated
from calibration.psf_model import PsfModel
from calibration.result import Calibration, FeatureCurves, ParticleTable
from calibration.scan.faults import Fault
from calibration.scan.planes import FocusScan
from calibration.surface import FocalSurface
from calibration.width_curve import fit_clean_image, width_curve_from_widths
from engines.classical.gaussian import AMPLITUDE, LN_SX, LN_SY
from engines.classical.widths import WidthCurve
from engines.network.layout import MOST_KINDS
from engines.refine.field import FieldModel
from engines.refine.misfit import Misfit
from engines.refine.psf import check_field
from stream.errors import SourceError
from stream.hdf5_checks import NUMBERS, TEXT
from stream.hdf5_reading import attribute, check_file, dataset, open_hdf5, schema_of, values
from stream.unfinished_files import written_beside

SCHEMA = "liveptv-calibration"
SCHEMA_VERSION = 2
DAMAGED = "it is damaged: calibrate again, or use a copy"
MOST_BYTES = 1 << 30
"""No part of a calibration that is read at once is larger; the particles' images are not."""
IN_PIECES = ("traces",)
LIBRARIES = ("liveptv", "numpy", "scipy", "h5py")

AXES = (
    "x, y from the centre of the image's first pixel along columns and rows; z = height - focus position, 0 "
    "midway between the focal lines; z of a particle in /particles is the focus position at which it is seen "
    "there, its height in the sample is less by the focal surface in /model/field; "
    "contrast is the part of the background's brightness that a particle takes away (dark) or adds (bright)"
)
FEWEST_DEPTHS = 50
UNITS = {"um": "um", "px": "px"}


def write_calibration(
    path: Path,
    calibrated: Calibrated,
    scan: FocusScan,
    *,
    provenance: dict[str, Any] | None = None,
    on_progress: Callable[[str, float], None] = lambda _what, _part: None,
) -> None:
    """Write a calibration and its particles' images. The file gets its name only when it is complete.

    Raises `OutputError` if it cannot be written.
    """
    with written_beside(path, overwrite=True) as part, h5py.File(part, "w", libver="latest") as file:
        _write(file, calibrated.calibration, provenance or {})
        writer = CutoutWriter(file.create_group("traces"), calibrated, scan)
        writer.write(lambda done: on_progress("writing", done))


def read_calibration(path: Path) -> Calibration:
    """Read everything but the particles' images. Raises `SourceError` for anything that is not a calibration."""
    with open_hdf5(path, DAMAGED) as file:
        if schema_of(file) != SCHEMA:
            raise SourceError(f"{path} is no calibration of liveptv; make one with `liveptv calibrate`")
        if (attribute(file, "schema_version", int) or 0) > SCHEMA_VERSION:
            raise SourceError(f"{path} was made by a newer liveptv; update this one")
        check_file(file, most_bytes=MOST_BYTES, in_pieces=IN_PIECES)
        return _read(file)


def is_calibration(path: Path) -> bool:
    """Whether a file says that it is a calibration."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(schema_of(file) == SCHEMA)
    except (OSError, RuntimeError):
        return False


def _write(file: h5py.File, found: Calibration, provenance: dict[str, Any]) -> None:
    model = found.model
    file.attrs.update(
        schema=SCHEMA,
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        axes=AXES,
        pixel_size_um=model.pixel_size_um,
        polarity=model.polarity,
        image_shape=found.shape,
        repeats=found.repeats,
        faults=json.dumps([asdict(fault) for fault in found.faults]),
        warnings=json.dumps(found.warnings),
        left_out=json.dumps(found.particles.left_out()),
        provenance=json.dumps({**found.provenance, **provenance}, default=str),
        versions=json.dumps({name: version(name) for name in LIBRARIES}),
    )
    _write_model(file.create_group("model"), model)
    for kind in range(1, len(found.kinds)):
        group = file.create_group(f"kinds/{kind}")
        _write_model(group, found.kinds[kind])
        group.create_group("focal_planes").attrs.update(asdict(found.kind_planes[kind]))
    file.create_group("focal_planes").attrs.update(asdict(found.focal_planes))
    file.create_group("noise").attrs.update(found.noise.to_dict())
    surface = file.create_group("surface")
    if found.surface is not None:
        surface.attrs.update(found.surface.to_dict())
    _write_columns(file.create_group("particles"), found.particles)
    if len(found.models) == 1:
        del file["particles/kind"]
    _write_columns(file.create_group("curves"), found.curves)
    _write_columns(file.create_group("ambiguity"), found.ambiguity)
    planes = file.create_group("planes")
    for name, column in (
        ("focus_um", found.focus_um),
        ("apparent_focus_um", found.apparent_focus_um),
        ("used", found.plane_used),
    ):
        _column(planes, name, column)
    if found.named is not None:
        file["named_terms"] = json.dumps(found.named.to_dict())
    if found.validation is not None:
        _write_columns(file.create_group("validation"), found.validation)
    _write_width_curve(file, found)


def _write_model(group: h5py.Group, model: PsfModel) -> None:
    group.create_dataset("coefficients", data=model.coefficients, compression="gzip", shuffle=True)
    group["coefficients"].attrs["meaning"] = (
        "cubic B-spline over depth, rows and columns of the contrast of a particle of brightness 1; node j is at "
        "z_first_um + j * z_step_um, the particle's centre at the middle pixel"
    )
    for name in ("z_first_um", "z_step_um", "z_min_um", "z_max_um"):
        group.attrs[name] = getattr(model, name)
    _write_field(group, model)


def _write_field(group: h5py.Group, model: PsfModel) -> None:
    if model.field is not None:
        field = group.create_group("field")
        field.create_dataset("modes", data=model.field.modes, compression="gzip", shuffle=True)
        field["numbers"] = json.dumps(model.field.numbers())
    if model.misfit is not None:
        group["misfit"] = json.dumps(model.misfit.numbers())


def _write_width_curve(file: h5py.File, found: Calibration) -> None:
    """Write the curve from which the classical detector reads the depth, if the lens is astigmatic."""
    if not found.focal_planes.astigmatic:
        return
    model = found.model
    z_um = np.linspace(model.z_min_um, model.z_max_um, 101)
    kept, fits = [], []
    for z, image in zip(z_um, model.images(z_um), strict=True):
        with contextlib.suppress(CalibrationError):  # no Gaussian fits the largest rings
            fits.append(fit_clean_image(image))
            kept.append(z)
    if len(kept) < FEWEST_DEPTHS:
        return
    found_px = np.array(fits)
    curve = width_curve_from_widths(
        np.array(kept),
        np.exp(found_px[:, LN_SX]) * model.pixel_size_um,
        np.exp(found_px[:, LN_SY]) * model.pixel_size_um,
        found_px[:, AMPLITUDE],
        model.pixel_size_um,
        polarity=model.polarity,
        provenance={"made_from": "calibration"},
    )
    curve.write(file.create_group(WidthCurve.GROUP))


def _write_columns(group: h5py.Group, table: object) -> None:
    for item in fields(table):  # type: ignore[arg-type]
        _column(group, item.name, getattr(table, item.name))


def _column(group: h5py.Group, name: str, column: npt.NDArray[Any]) -> None:
    if column.dtype.kind == "U":
        data = group.create_dataset(name, data=column.astype(object), dtype=h5py.string_dtype())
    else:
        data = group.create_dataset(name, data=column)
    unit = name.rpartition("_")[2]
    if unit in UNITS:
        data.attrs["unit"] = UNITS[unit]


def _read(file: h5py.File) -> Calibration:
    if file.attrs["polarity"] not in ("dark", "bright"):
        raise ValueError(f"particles are {file.attrs['polarity']}, neither dark nor bright")
    models, kind_planes = _read_kinds(file)
    surface = dict(file["surface"].attrs)
    found = Calibration(
        model=models[0],
        focal_planes=kind_planes[0],
        particles=ParticleTable(**_read_columns(file["particles"], ParticleTable)),
        noise=NoiseModel.from_dict(dict(file["noise"].attrs)),
        curves=FeatureCurves(**_read_columns(file["curves"], FeatureCurves)),
        ambiguity=Ambiguity(**_read_columns(file["ambiguity"], Ambiguity)),
        surface=FocalSurface(**{name: value.item() for name, value in surface.items()}) if surface else None,
        focus_um=values(file, "planes/focus_um", ndim=1),
        apparent_focus_um=values(file, "planes/apparent_focus_um", ndim=1),
        plane_used=values(file, "planes/used", ndim=1).astype(bool),
        repeats=int(file.attrs["repeats"]),
        shape=(int(file.attrs["image_shape"][0]), int(file.attrs["image_shape"][1])),
        named=NamedTerms.from_dict(_json(file, "named_terms")) if "named_terms" in file else None,
        validation=(
            Validation(**_read_columns(file["validation"], Validation)) if "validation" in file else None
        ),
        faults=[Fault(**fault) for fault in json.loads(file.attrs["faults"])],
        warnings=json.loads(file.attrs["warnings"]),
        provenance=json.loads(file.attrs["provenance"]),
        kinds=models if len(models) > 1 else (),
        kind_planes=kind_planes if len(models) > 1 else (),
    )
    _check(found)
    return found


def _read_kinds(file: h5py.File) -> tuple[tuple[PsfModel, ...], tuple[FocalPlanes, ...]]:
    """The PSF model of each kind of particles, and its focal planes."""
    groups = [
        file["model"],
        *(file[f"kinds/{kind}"] for kind in range(1, MOST_KINDS) if f"kinds/{kind}" in file),
    ]
    planes = [file["focal_planes"], *(group["focal_planes"] for group in groups[1:])]
    return (
        tuple(_read_model(file, group) for group in groups),
        tuple(FocalPlanes(**{k: v.item() for k, v in each.attrs.items()}) for each in planes),
    )


def _read_model(file: h5py.File, group: h5py.Group) -> PsfModel:
    return PsfModel(
        coefficients=values(group, "coefficients", ndim=3),
        z_first_um=float(group.attrs["z_first_um"]),
        z_step_um=float(group.attrs["z_step_um"]),
        z_min_um=float(group.attrs["z_min_um"]),
        z_max_um=float(group.attrs["z_max_um"]),
        pixel_size_um=float(file.attrs["pixel_size_um"]),
        polarity=file.attrs["polarity"],
        field=_read_field(group),
        misfit=Misfit.of_numbers(_json(group, "misfit")) if "misfit" in group else None,
    )


def _check(found: Calibration) -> None:
    """Raises `ValueError` where the parts of a calibration do not fit together."""
    for model in found.models:
        if model.field is not None:
            check_field(model.field, model.coefficients, max(abs(model.z_min_um), abs(model.z_max_um)))
        for part in (model.field, model.misfit):
            if part is not None and part.shape != found.shape:
                raise ValueError(f"images of {found.shape}, but a {type(part).__name__} of {part.shape}")
    kinds = found.particles.kind
    if len(kinds) and not (kinds.min() >= 0 and kinds.max() < len(found.models)):
        raise ValueError(
            f"particles of kinds {kinds.min()} to {kinds.max()}, but {len(found.models)} PSF models"
        )
    rows = found.validation
    if rows is not None and len(rows):
        low, high = int(rows.particle.min()), int(rows.particle.max())
        if low < 0 or high >= len(found.particles):
            raise ValueError(f"left-out particles {low} to {high} of {len(found.particles)}")


def _json(group: h5py.Group, name: str) -> Any:
    return json.loads(str(values(group, name, ndim=0, kinds=TEXT)))


def _read_field(model: h5py.Group) -> FieldModel | None:
    if "field" not in model:
        return None
    return FieldModel.of_numbers(_json(model, "field/numbers"), values(model, "field/modes", ndim=4))


def _read_columns(group: h5py.Group, table: type) -> dict[str, npt.NDArray[Any]]:
    columns = {}
    for item in fields(table):
        if table is ParticleTable and item.name == "kind" and item.name not in group:
            continue
        columns[item.name] = values(group, item.name, kinds=TEXT if "str_" in str(item.type) else NUMBERS)
    if table in (ParticleTable, Validation) and len({column.shape for column in columns.values()}) != 1:
        raise ValueError(f"the columns of {group.name} are not of one length")
    return columns


def _kinds_in_numbers(found: Calibration) -> list[dict[str, Any]]:
    """Of each kind of particles, where there are several: how many were used, and its PSF model in numbers."""
    rows, table = [], found.particles
    for kind, (model, planes) in enumerate(zip(found.kinds, found.kind_planes, strict=True)):
        mine = table.used & (table.kind == kind)
        row: dict[str, Any] = {
            "kind": kind,
            "particles_used": int(mine.sum()),
            "z_min_um": model.z_min_um,
            "z_max_um": model.z_max_um,
        }
        row |= {"focal_plane_xz_um": planes.xz_um, "focal_plane_yz_um": planes.yz_um}
        peak = float(model.images(np.linspace(model.z_min_um, model.z_max_um, 101)).max(axis=(1, 2)).mean())
        row["peak_contrast"] = peak
        if found.validation is not None:
            one = found.validation.where(mine[found.validation.particle])
            row["validation"] = {k: v for k, v in summary_of(one, model).items() if k != "depths"}
        rows.append(row)
    return rows


def describe_calibration(path: Path) -> dict[str, Any]:
    """What `liveptv info` prints about a calibration. Raises `SourceError` if it cannot be read."""
    found = read_calibration(path)
    used = found.particles.used
    table = found.particles
    typical_um = float(np.median(table.sigma_z_um[used]))
    with open_hdf5(path, DAMAGED) as file:
        created, images = attribute(file, "created", str), len(dataset(file, "traces/z_um", ndim=1))
    return {
        "kind": "calibration",
        "created": created,
        "particles_found": len(table),
        "particles_used": int(used.sum()),
        "particles_left_out": table.left_out(),
        "images": images,
        "z_min_um": found.model.z_min_um,
        "z_max_um": found.model.z_max_um,
        "focal_plane_xz_um": found.focal_planes.xz_um,
        "focal_plane_yz_um": found.focal_planes.yz_um,
        "focal_planes": asdict(found.focal_planes),
        "astigmatic": found.focal_planes.astigmatic,
        "depth_ambiguous_part": found.ambiguity.part,
        "label_error_z_um": typical_um if math.isfinite(typical_um) else None,
        "pixel_size_um": found.model.pixel_size_um,
        "polarity": found.model.polarity,
        "planes": len(found.focus_um),
        "planes_left_out": int((~found.plane_used).sum()),
        "repeats": found.repeats,
        "noise": found.noise.to_dict(),
        "surface": None if found.surface is None else found.surface.to_dict(),
        "field": None if found.named is None else found.named.to_dict(),
        "validation": None if found.validation is None else summary_of(found.validation, found.model),
        "faults": [fault.text for fault in found.faults],
        "warnings": found.warnings,
        "provenance": found.provenance,
        "kinds": _kinds_in_numbers(found),
        "particles": {
            "x_um": table.x_um[used],
            "y_um": table.y_um[used],
            "z_um": found.height_um()[used],
            "seen_z_um": table.z_um[used],
            **{
                name: getattr(table, name)[used]
                for name in ("sigma_x_um", "sigma_y_um", "sigma_z_um", "brightness")
            },
            **({"kind": table.kind[used]} if found.kinds else {}),
        },
    }
