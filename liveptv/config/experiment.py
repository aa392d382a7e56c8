"""The whole experiment file: one frozen pydantic model per section; an unknown key is an error."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from acquisition.recorder.settings import RecordSettings
from acquisition.settings import LimitsSettings, MicroscopeSettings, RecordingSettings, ScanSettings
from acquisition.source_settings import SourceSettings
from acquisition.volumes.settings import VolumeSettings
from engines.settings import DetectorSettings
from liveptv.config.plan_settings import PlanSettings
from liveptv.config.sections import (
    ChannelSettings,
    OpticsSettings,
    RecalibrationSettings,
    RunSettings,
    SessionSettings,
    TransportSettings,
)
from stream.security import HOW_TO_MAKE_KEYS
from stream.settings import Section
from stream.sockets import LinkAddress
from tracking.control.protocol_settings import ProtocolSettings
from tracking.control.settings import ControllerSettings
from tracking.physics.diffusion.settings import DiffusionSettings
from tracking.physics.live.settings import FlowSettings
from tracking.settings import TrackerSettings

IN_SIMULATED_TIME = (
    "link.policy live drops frames that are late, and in simulated time (RealTime 0) none is; leave it out"
)
NO_SOURCE = "there is no source: add a [microscope], a [recording] or a [source] section"


class Experiment(Section):
    """The whole experiment file. Frames come from a microscope, a recording, or another program (`source`)."""

    run: RunSettings = Field(default_factory=RunSettings, description="output and length of the run")
    microscope: MicroscopeSettings | None = Field(None, description="the microscope to acquire from")
    recording: RecordingSettings | None = Field(
        None, description="a recorded video to replay in place of a microscope"
    )
    source: SourceSettings | None = Field(
        None, description="another program that takes the frames, in place of a microscope"
    )
    volume: VolumeSettings | None = Field(
        None, description="volumes that the microscope takes, in place of single images"
    )
    limits: LimitsSettings = Field(
        default_factory=LimitsSettings, description="limits of all commands, and the safe state"
    )
    scan: ScanSettings | None = Field(None, description="the focus scan that `liveptv scan` takes")
    channel: ChannelSettings | None = Field(None, description="dimensions of the flow channel")
    flow: FlowSettings = Field(default_factory=FlowSettings, description="the fit of the flow in the channel")
    optics: OpticsSettings = Field(default_factory=OpticsSettings, description="from focus travel to height")
    detector: DetectorSettings = Field(
        default_factory=DetectorSettings, description="how particles are found in an image"
    )
    tracker: TrackerSettings = Field(
        default_factory=TrackerSettings, description="how detections are linked into tracks"
    )
    diffusion: DiffusionSettings = Field(
        default_factory=DiffusionSettings, description="what is known of particles and liquid, for diffusion"
    )
    plan: PlanSettings = Field(
        default_factory=PlanSettings, description="what `liveptv plan` plans the experiment for"
    )
    controller: ControllerSettings | None = Field(None, description="feedback control of the experiment")
    protocol: ProtocolSettings | None = Field(None, description="steps that the run goes through in order")
    recalibration: RecalibrationSettings = Field(
        default_factory=RecalibrationSettings, description="whether a run tells that its model no longer fits"
    )
    record: RecordSettings = Field(
        default_factory=RecordSettings, description="whether the camera images of a run are kept"
    )
    link: TransportSettings = Field(
        default_factory=TransportSettings, description="message links between the pipeline stages"
    )
    session: SessionSettings = Field(
        default_factory=SessionSettings, description="processes, time limits and viewers"
    )

    @model_validator(mode="after")
    def _one_source_and_reachable_stages(self) -> Self:
        given = [name for name in ("microscope", "recording", "source") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"there is both a [{given[0]}] and a [{given[1]}] section; remove one of them")
        self._check_source()
        self._check_volume()
        if self.link.is_live and self.recording is not None and not self.recording.pace:
            raise ValueError(
                'link.policy "live" drops frames that are late, and a recording that is replayed as fast as '
                "possible has none; set recording.pace (replay --pace), or leave link.policy out"
            )
        if self.link.is_live and self.microscope is not None and _has_simulated_time(self.microscope):
            raise ValueError(IN_SIMULATED_TIME)
        if self.controller is not None:
            self.controller.check_ages(self.limits.watchdog_s)
        self._check_flow()
        if self.link.transport == "inproc" and self.session.mode == "processes":
            raise ValueError('link.transport "inproc" needs session.mode "threads"; processes use shm or tcp')
        model = self.detector.model
        if self.recalibration.live != "off" and (model is None or model.suffix.lower() != ".onnx"):
            raise ValueError(
                'recalibration.live "propose" needs a network: give detector.model (.onnx), or leave it out'
            )
        if self.record.mode != "off" and self.record.on.hardware is not None and self.microscope is None:
            raise ValueError("record.on.hardware needs a microscope; leave it out")
        monitor = LinkAddress.parse(self.session.monitor)
        if not monitor.is_local and self.session.keys is None:
            raise ValueError(
                f"session.monitor {self.session.monitor} can be reached from other computers, which needs keys; "
                f"make them with `{HOW_TO_MAKE_KEYS}` and set session.keys to their folder"
            )
        if self.protocol is not None and self.controller is not None and self.controller.steers_the_run:
            raise ValueError("a protocol moves through its slices itself; remove controller.until_enough")
        return self

    def _check_flow(self) -> None:
        if self.channel is not None and self.channel.center_y_um is None and self.flow.center_error_um:
            raise ValueError("flow.center_error_um is the error of channel.center_y_um; give that too")
        for steers in (self.controller, self.protocol):
            if steers is None:
                continue
            if steers.needs_flow and not self.follows_flow:
                raise ValueError(
                    f"{steers.needs_flow} needs the fit of the flow; add a [channel], and leave flow.live out"
                )
            if steers.needs_viscosity and self.viscosity_mpa_s is None:
                raise ValueError(f"{steers.needs_viscosity} needs the viscosity; set flow.viscosity_mpa_s")

    def _check_volume(self) -> None:
        if self.volume is None:
            return
        if self.microscope is None:
            raise ValueError("[volume] says how a microscope takes volumes; add a [microscope], or remove it")
        if self.limits.min_focus_um is None or self.limits.max_focus_um is None:
            raise ValueError(
                "[volume] moves the focus, which needs limits; set limits.min_focus_um and limits.max_focus_um"
            )

    def _check_source(self) -> None:
        source = self.source
        if source is None:
            return
        if self.link.is_live and not source.is_live:
            raise ValueError(
                'link.policy "live" drops frames that are late, and files of a folder wait; leave link.policy out'
            )
        is_local = source.address is None or LinkAddress.parse(source.address).is_local
        if not is_local and self.session.keys is None:
            raise ValueError(
                f"other computers can reach {source.address}, which needs keys; make them with "
                f"`{HOW_TO_MAKE_KEYS}` and set session.keys to their folder"
            )

    @property
    def is_live(self) -> bool:
        """Whether frames come as they are taken: from a microscope, or sent by another program."""
        return self.microscope is not None or (self.source is not None and self.source.is_live)

    @property
    def is_controlled(self) -> bool:
        """Whether a controller or a protocol steers the run from its start."""
        return self.controller is not None or self.protocol is not None

    @property
    def follows_flow(self) -> bool:
        """Whether the flow in the channel is fitted during the run."""
        return self.channel is not None and self.flow.live

    @property
    def viscosity_mpa_s(self) -> float | None:
        """Viscosity of the liquid, as `[flow]`, or else `[diffusion]`, gives it."""
        return self.flow.viscosity_mpa_s or self.diffusion.known_viscosity_mpa_s

    @property
    def can_be_controlled(self) -> bool:
        """Whether the run can be steered, possibly by a controller that is switched on later."""
        return self.microscope is not None or self.is_controlled

    @property
    def needs_control_stage(self) -> bool:
        """Whether a stage looks at each frame's tracks: to steer, to fit a live flow, or to ask for a recording."""
        records = self.record.mode != "off" and self.record.on.needs_tracks
        return self.can_be_controlled or (self.follows_flow and self.is_live) or records

    def resolved(self) -> dict[str, Any]:
        """All settings with their values in JSON types, as stored in the trajectory file."""
        return self.model_dump(mode="json")


def _has_simulated_time(microscope: MicroscopeSettings) -> bool:
    """Whether a property in the settings says so; the microscope's own configuration is read when it is opened."""
    return any(
        name.endswith(".RealTime") and str(value).strip() in {"0", "0.0", "False"}
        for name, value in microscope.properties.items()
    )
