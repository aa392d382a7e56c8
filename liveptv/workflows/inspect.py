"""Describes a file, or the available devices, as plain dictionaries that can be printed as JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from acquisition.recorder.closing import account_of_recording
from acquisition.recorder.frame_table import read_frame_table
from acquisition.recorder.settings import frame_table_of
from calibration.calibration_file import SCHEMA as CALIBRATION
from calibration.calibration_file import describe_calibration
from calibration.volumes.file import describe_volume_calibration
from engines.matched.object_model import SCHEMA as OBJECT_MODEL
from engines.volumes.layout import SCHEMA as VOLUME_CALIBRATION
from liveptv.session.frame_account import account_of
from stream.errors import SourceError
from stream.hdf5_reading import attribute, schema_of
from stream.safe_text import storable
from tracking.trajectories.file import TrajectoryFile
from tracking.trajectories.open_elsewhere import who_writes
from tracking.trajectories.schema import SCHEMA as TRAJECTORIES

TABLES = (".csv", ".parquet", ".tsv", ".txt")


def describe_file(path: Path) -> dict[str, Any]:
    """Describe a file of any of our kinds, or a recording: what `liveptv info` shows.

    Raises `SourceError` if it is none of them or cannot be read.
    """
    file = Path(str(path).partition("::")[0])
    if not file.exists():
        raise SourceError(f"there is no file {file}")
    if file != path:
        return _plain_dict(_recording(path))
    suffix = path.suffix.lower()
    if suffix == ".toml":
        raise SourceError(f"{path} is an experiment file: it is text, and `liveptv run {path}` runs it")
    if suffix in TABLES:
        return _plain_dict(_table(path))
    if suffix in {".h5", ".hdf5"}:
        return _plain_dict(_hdf5(path))
    if suffix == ".jsonl":
        return _plain_dict({"kind": "frame table", **_frame_table(path)})
    if suffix == ".onnx":
        return _plain_dict(_network(path))
    return _plain_dict(_recording(path))


def _network(path: Path) -> dict[str, Any]:
    from engines.network.model import OnnxModel
    from engines.network.session import OnnxSession
    from engines.volumes.network.model_card import is_volume_card

    if is_volume_card(OnnxSession(path).metadata):
        from engines.volumes.network.model import VolumeOnnxModel

        model = VolumeOnnxModel(path)
        psf = model.volume_model.psf
        seen = {"voxel_um_zyx": psf.voxel_um, "spot_um_zyx": psf.sigma_um, "psf_measured": psf.is_measured}
        return model.card.model_dump(mode="json") | {"kind": "network for volumes", **seen}
    return {"kind": "network", **OnnxModel(path).card.model_dump(mode="json")}


def _hdf5(path: Path) -> dict[str, Any]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            names = set(file)
            schema = schema_of(file)
            kind = attribute(file, "kind")
    except (OSError, RuntimeError, KeyError):
        # unreadable, or a trajectory file that is being written or was left open; its reader says which
        return _trajectories(path)
    if schema == TRAJECTORIES:
        return _trajectories(path)
    if schema == CALIBRATION:
        return describe_calibration(path)
    if schema == OBJECT_MODEL:
        return _object_model(path)
    if schema == VOLUME_CALIBRATION:
        return describe_volume_calibration(path)
    if "sigma_x_um" in names and "z_um" in names and "frame" not in names:
        return _curve(path)
    if {"frame", "x_um", "y_um"} <= names or str(kind) == "detections":
        return _table(path)
    return _recording(path)


def _trajectories(path: Path) -> dict[str, Any]:
    with TrajectoryFile(path) as file:
        attributes = file.attributes
        file.check()
        census = file.census()
        frames = len(file.frames)
        numbers = file.frames["frame"]
        missing = int(numbers[-1]) - int(numbers[0]) + 1 - frames if frames else 0
        account = account_of(attributes, file.frames)
        if account is not None:
            attributes["account"] = account.to_dict()
        return {
            "kind": "trajectories",
            "finished": file.finished,
            **({} if file.finished else {"state": _state(path)}),
            "frames": frames,
            "frames_missing": missing,
            **census.statistics(),
            **attributes,
        }


def _state(path: Path) -> str:
    """Why a file is not finished."""
    return who_writes(path) or "left open by a program that has ended; `liveptv recover` repairs it"


def _object_model(path: Path) -> dict[str, Any]:
    from engines.matched.object_model import is_rough, load_object_model

    model = load_object_model(path)
    found: dict[str, Any] = {
        "kind": "image model of objects",
        "pixel_size_um": model.pixel_size_um,
        "polarity": model.polarity,
        "side_px": int(model.coefficients.shape[1]),
        "measured_by": "symmetry" if is_rough(path) else "fit",
        "light_multiplies": model.dark_grey is not None,
    }
    if model.dark_grey is not None:
        found["dark_grey"] = model.dark_grey
    if model.quantity is not None:
        low, high = model.quantity.values([model.z_min_um, model.z_max_um])
        found |= {"measures": model.quantity.name, "from": float(low), "to": float(high)}
    return found


def _curve(path: Path) -> dict[str, Any]:
    from engines.classical.widths import WidthCurve

    curve = WidthCurve.load(path)
    return {
        "kind": "width curve",
        "z_min_um": float(curve.z_um[0]),
        "z_max_um": float(curve.z_um[-1]),
        "depths": int(curve.z_um.size),
        "pixel_size_um": curve.pixel_size_um,
        "polarity": curve.polarity,
        "sigma_x_min_um": float(curve.sigma_x_um.min()),
        "sigma_y_min_um": float(curve.sigma_y_um.min()),
        "provenance": curve.provenance,
    }


def _table(path: Path) -> dict[str, Any]:
    from liveptv.tables import read_detection_table
    from liveptv.tables.columns_option import Wanted

    told: list[str] = []
    table = read_detection_table(path, Wanted(keep_pixels=True), told.append)
    columns = table.columns()
    unit_less = any("in pixels" in line or "without a unit" in line for line in told)
    ranges = {
        name.removesuffix("_um") if unit_less else name: [float(np.nanmin(values)), float(np.nanmax(values))]
        for name, values in columns.items()
        if values.size and np.isfinite(values).any()
    }
    return {
        "kind": "detections",
        "rows": len(table),
        "frames": int(np.unique(table.frame).size),
        "depth": bool(np.isfinite(table.z_um).any()),
        "ranges": ranges,
        **({"read_as": told[0]} if told else {}),
    }


def _recording(path: Path) -> dict[str, Any]:
    from acquisition.recording import open_recording

    recording = open_recording(path, run_id="info", only_describe=True)
    try:
        found = recording.info
        return {
            "kind": "recording",
            "frames": found.frames,
            "height_px": found.height,
            "width_px": found.width,
            "depth": found.depth,
            "dtype": str(found.dtype),
            "pixel_size_um": found.pixel_size_um,
            "frame_rate_hz": found.frame_rate_hz,
            "description": recording.title,
            "remarks": list(recording.remarks),
            **_recorded_by_a_run(path),
        }
    finally:
        recording.close()


def _recorded_by_a_run(path: Path) -> dict[str, Any]:
    """What the frame table beside the images of a run says; nothing where there is none, or of other images."""
    table = frame_table_of(path)
    if not table.is_file():
        return {}
    try:
        found = _frame_table(table)
    except SourceError:
        return {}
    return {"recorded": found} if found["images"] == path.name else {}


def _frame_table(path: Path) -> dict[str, Any]:
    table = read_frame_table(path)
    account = account_of_recording(table, path.name)
    ends = [table.rows[0].info, table.rows[-1].info] if table.rows else []
    return {
        "run_id": table.run_id,
        "trajectories": table.head.get("trajectories"),
        **account.to_dict(),
        "frames": [info.frame for info in ends],
        "time_s": [info.time_s for info in ends],
        "lines_not_read": table.skipped,
    }


def describe_devices() -> dict[str, Any]:
    """The microscopes of this program and the adapters of the installed Micro-Manager."""
    from acquisition.microscope.devices_info import installed_devices

    return _plain_dict(installed_devices())


def _plain_dict(found: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    """Numbers and text that JSON knows; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {storable(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
