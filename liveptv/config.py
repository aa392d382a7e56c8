"""The experiment file: one frozen pydantic model per section, read from TOML; an unknown key is an error."""

from __future__ import annotations

import math
import tomllib
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from acquisition.physics.refraction import refraction_factor, refraction_in_words
from acquisition.settings import LimitsSettings, MicroscopeSettings, RecordingSettings, ScanSettings
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.link import Policy
from stream.security import HOW_TO_MAKE_KEYS
from stream.settings import LinkSettings, describe
from stream.sockets import LinkAddress
from tracking.control.settings import ControllerSettings, ProtocolSettings
from tracking.settings import TrackerSettings


class Section(BaseModel):
    """A section of the experiment file: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunSettings(Section):
    """Where a run is written and when it ends."""

    output: Path = Field(
        Path("tracks.h5"), description="trajectory file; the event log and the report are written beside it"
    )
    overwrite: bool = Field(False, description="replace existing outputs")
    frames: int | None = Field(None, ge=1, le=10**9, description="end after this many frames")
    seconds: float | None = Field(
        None, gt=0, le=1e9, description="end after this many seconds of the camera's time"
    )
    notes: str = Field("", description="free text, kept in the trajectory file")


class ChannelSettings(Section):
    """The flow channel: flow along x, width along y, depth along z. Needed for the theoretical profile."""

    width_um: float = Field(gt=0, description="inner width of the channel, along y")
    depth_um: float = Field(gt=0, description="inner depth of the channel, along z")
    floor_um: float = Field(0.0, description="focus position at which the channel floor is in focus")
    center_y_um: float | None = Field(
        None, description="y of the channel's centre line in the image; left out: the middle of the image"
    )


class OpticsSettings(Section):
    """How the focus drive's travel relates to height in the channel."""

    refraction_factor: float = Field(
        1.0,
        gt=0,
        description="true height per focus travel; left out: from the indices, or 1, where they match",
    )
    sample_index: float | None = Field(
        None, ge=1, le=5, description="refractive index of the liquid in the channel, such as 1.333 for water"
    )
    immersion_index: float | None = Field(
        None, ge=1, le=5, description="refractive index that the lens is made for: 1 for an air lens"
    )
    numerical_aperture: float | None = Field(
        None, gt=0, le=5, description="of the lens; with the indices: rays are averaged over its pupil"
    )

    @model_validator(mode="before")
    @classmethod
    def _factor_from_the_indices(cls, data: Any) -> Any:
        names = ("sample_index", "immersion_index", "numerical_aperture")
        if not isinstance(data, dict) or not any(data.get(name) is not None for name in names):
            return data
        sample, immersion, aperture = (_number(data.get(name)) for name in names)
        if sample is None or immersion is None:
            raise ValueError("give both sample_index and immersion_index, or refraction_factor alone")
        found = refraction_factor(sample, immersion, aperture)
        given = _number(data.get("refraction_factor"))
        if given is not None and not math.isclose(given, found, rel_tol=1e-6):
            raise ValueError(
                f"refraction_factor is {given:g} and the indices give {found:.6g}; leave one of them out"
            )
        return {**data, "refraction_factor": found}

    def in_words(self) -> str:
        """The factor, where it is from, and the focal shift that follows."""
        return refraction_in_words(
            self.refraction_factor, self.sample_index, self.immersion_index, self.numerical_aperture
        )


class TransportSettings(LinkSettings):
    """The message links between the pipeline stages."""

    transport: Literal["shm", "tcp", "inproc"] = Field(
        "shm", description="shm: shared memory; tcp: sockets; inproc: within one process (mode threads)"
    )

    def fresh_address(self) -> str:
        """An unused address; for shm and tcp the system chooses the port when it is bound."""
        if self.transport == "inproc":
            return f"inproc://{uuid.uuid4().hex}"
        return f"{self.transport}://127.0.0.1:0"

    @property
    def is_live(self) -> bool:
        """Whether the policy `live` was asked for."""
        return self.policy is Policy.LIVE


class SessionSettings(Section):
    """How the pipeline stages run, and what happens when one of them fails."""

    mode: Literal["processes", "threads"] = Field(
        "processes",
        description="run each pipeline stage in a process of its own, or all in threads of one process",
    )
    restart_detector: int = Field(3, ge=0, description="how many times a failed detector is restarted")
    hang_s: float = Field(
        10.0,
        gt=0,
        description="a pipeline stage that is silent for this long is taken for hung and is killed",
    )
    recover_s: float = Field(
        30.0, gt=0, description="longest wait for a restarted detector before the run ends"
    )
    start_timeout_s: float = Field(
        300.0,
        gt=0,
        description="longest start-up of the pipeline stages; the first one compiles the detector",
    )
    stop_timeout_s: float = Field(
        60.0, gt=0, description="longest time to process the frames still in the pipeline at the end"
    )
    monitor: str = Field(
        "tcp://127.0.0.1:0",
        description="address for viewers; port 0: any free port, for viewers of the same user only",
    )
    keys: Path | None = Field(
        None, description="folder of CURVE keys (`liveptv keys make`); needed if other computers may connect"
    )
    monitor_hz: float = Field(2.0, gt=0, description="camera images per second sent to viewers")


class RecalibrationSettings(Section):
    """Whether a run tells that its model no longer fits, and what to use in its place."""

    live: Literal["off", "propose"] = Field(
        "off",
        description="propose: look now and then, in a process of the lowest priority, whether the run's own "
        "particles show that named terms of the PSF model have changed; a new version of the model is written "
        "beside the trajectory file and told, never used by this run",
    )
    every_minutes: float = Field(10.0, ge=0.5, le=1e5, description="time between two looks")
    wall_distance_um: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="distance of two walls with particles at rest on both: tells the depth scale",
    )
    wall_focus_um: float | None = Field(
        None, ge=-1e6, le=1e6, description="focus position at which particles at rest on a wall are in focus"
    )


IN_SIMULATED_TIME = (
    "link.policy live drops frames that are late, and in simulated time (RealTime 0) none is; leave it out"
)


class Experiment(Section):
    """The whole experiment file. Source: a microscope, or a recording where `recording.path` is set."""

    run: RunSettings = Field(default_factory=RunSettings, description="output and length of the run")
    microscope: MicroscopeSettings | None = Field(None, description="the microscope to acquire from")
    recording: RecordingSettings | None = Field(
        None, description="a recorded video to replay in place of a microscope"
    )
    limits: LimitsSettings = Field(
        default_factory=LimitsSettings, description="limits of all commands, and the safe state"
    )
    scan: ScanSettings | None = Field(None, description="the focus scan that `liveptv scan` takes")
    channel: ChannelSettings | None = Field(None, description="dimensions of the flow channel")
    optics: OpticsSettings = Field(default_factory=OpticsSettings, description="from focus travel to height")
    detector: DetectorSettings = Field(
        default_factory=DetectorSettings, description="how particles are found in an image"
    )
    tracker: TrackerSettings = Field(
        default_factory=TrackerSettings, description="how detections are linked into tracks"
    )
    controller: ControllerSettings | None = Field(None, description="feedback control of the experiment")
    protocol: ProtocolSettings | None = Field(None, description="steps that the run goes through in order")
    recalibration: RecalibrationSettings = Field(
        default_factory=RecalibrationSettings, description="whether a run tells that its model no longer fits"
    )
    link: TransportSettings = Field(
        default_factory=TransportSettings, description="message links between the pipeline stages"
    )
    session: SessionSettings = Field(
        default_factory=SessionSettings, description="processes, time limits and viewers"
    )

    @model_validator(mode="after")
    def _one_source_and_reachable_stages(self) -> Self:
        if self.microscope is not None and self.recording is not None:
            raise ValueError("there is both a [microscope] and a [recording] section; remove one of them")
        if self.link.is_live and self.recording is not None and not self.recording.pace:
            raise ValueError(
                'link.policy "live" drops frames that are late, and a recording that is replayed as fast as '
                "possible has none; set recording.pace (replay --pace), or leave link.policy out"
            )
        if self.link.is_live and self.microscope is not None and _has_simulated_time(self.microscope):
            raise ValueError(IN_SIMULATED_TIME)
        if self.controller is not None:
            self.controller.check_ages(self.limits.watchdog_s)
        if self.link.transport == "inproc" and self.session.mode == "processes":
            raise ValueError('link.transport "inproc" needs session.mode "threads"; processes use shm or tcp')
        model = self.detector.model
        if self.recalibration.live != "off" and (model is None or model.suffix.lower() != ".onnx"):
            raise ValueError(
                'recalibration.live "propose" needs a network: give detector.model (.onnx), or leave it out'
            )
        monitor = LinkAddress.parse(self.session.monitor)
        if not monitor.is_local and self.session.keys is None:
            raise ValueError(
                f"session.monitor {self.session.monitor} can be reached from other computers, which needs keys; "
                f"make them with `{HOW_TO_MAKE_KEYS}` and set session.keys to their folder"
            )
        if self.protocol is not None and self.controller is not None and self.controller.steers_the_run:
            raise ValueError("a protocol moves through its slices itself; remove controller.until_enough")
        return self

    @property
    def is_controlled(self) -> bool:
        """Whether a controller or a protocol steers the run from its start."""
        return self.controller is not None or self.protocol is not None

    @property
    def can_be_controlled(self) -> bool:
        """Whether the run can be steered, possibly by a controller that is switched on later."""
        return self.microscope is not None or self.is_controlled

    def resolved(self) -> dict[str, Any]:
        """All settings with their values in JSON types, as stored in the trajectory file."""
        return self.model_dump(mode="json")


def _number(value: Any) -> float | None:
    """A number as a setting gives it, None where there is none; what is no number is refused afterwards."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _has_simulated_time(microscope: MicroscopeSettings) -> bool:
    """Whether a property in the settings says so; the microscope's own configuration is read when it is opened."""
    return any(
        name.endswith(".RealTime") and str(value).strip() in {"0", "0.0", "False"}
        for name, value in microscope.properties.items()
    )


def load_experiment(
    path: Path | None, overrides: Iterable[str] = (), base: dict[str, Any] | None = None
) -> Experiment:
    """Read an experiment file and apply `section.key=value` overrides (values in TOML syntax or bare text).

    Without a file, `base` holds the settings that the overrides are applied to.

    Raises `ConfigurationError` with the file, the key and what is wrong with it, all in one line.
    """
    data: dict[str, Any] = base or {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError as error:
            raise ConfigurationError(f"no experiment file {path}") from error
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path} is not a UTF-8 text file") from error
        except (ValueError, RecursionError) as error:  # a number of too many digits, lists in lists in lists
            raise ConfigurationError(f"{path} is not valid TOML: {' '.join(str(error).split())}") from error
    for override in overrides:
        apply_override(data, override)
    experiment = build_experiment(data, str(path) if path is not None else "the settings given")
    if experiment.microscope is None and experiment.recording is None:
        raise ConfigurationError(
            f"{path or 'the experiment'} has no source: add a [microscope] or a [recording] section"
        )
    return experiment


def revised(experiment: Experiment, **sections: dict[str, Any]) -> Experiment:
    """The experiment with other values in some sections; values that are None are left as they are.

    Raises `ConfigurationError` like a file with these values would.
    """
    data = experiment.model_dump(exclude_unset=True)
    for name, values in sections.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            data[name] = {**(data.get(name) or {}), **given}
    return build_experiment(data, "the command line")


def settings_only(overrides: Iterable[str]) -> Experiment:
    """Apply overrides to the defaults, for commands that work on files and need no source."""
    data: dict[str, Any] = {}
    for override in overrides:
        apply_override(data, override)
    return build_experiment(data, "--set")


def build_experiment(data: dict[str, Any], origin: str) -> Experiment:
    """Validate nested settings; `origin` names them in errors."""
    if place := _place_of_nul(data):
        raise ConfigurationError(f"{origin}: {place} contains a NUL character; remove it")
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(f"{origin}: {describe(error)}") from error


def _place_of_nul(data: object, place: str = "") -> str:
    """Where in nested settings a text or a key has a NUL, which no path and no device takes; "" for nowhere."""
    if isinstance(data, str):
        return place if "\0" in data else ""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        name = f"{place}.{key}".lstrip(".")
        found = name if "\0" in str(key) else _place_of_nul(value, name)
        if found:
            return found.replace("\0", "?")
    return ""


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in nested `data`.

    The value is read as TOML; what is not valid TOML is taken as text. Quote a part of the key that has
    dots in it: `microscope.properties."Camera.Seed"=3`.
    """
    key, separator, value = override.partition("=")
    if not separator or not key.strip():
        raise ConfigurationError(f"--set {override!r}: write it as section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value
    try:
        parts = _key_parts(key.strip())
    except ValueError as error:
        raise ConfigurationError(f"--set {override!r}: {key!r} is not a valid key: {error}") from error
    for part in parts[:-1]:
        inner = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"--set {override!r}: {part!r} is a value, not a section")
        data = inner
    data[parts[-1]] = parsed


def _key_parts(key: str) -> list[str]:
    parts = []
    node: Any = tomllib.loads(f"{key} = 0")
    while isinstance(node, dict):
        if len(node) != 1:
            raise ValueError("it is not one key")
        part, node = next(iter(node.items()))
        parts.append(part)
    return parts
