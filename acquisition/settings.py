"""Settings of acquisition: `[microscope]`, `[recording]`, `[limits]` and `[scan]` of the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from acquisition.stacks.axes import parse_axes
from acquisition.stacks.scales import LEAST_UM, MOST_UM
from stream.settings import Section


class MicroscopeSettings(Section):
    """A microscope driven by Micro-Manager. What is left out is read from the core."""

    config: str = Field(
        description="configuration file of Micro-Manager: a path, `simulated`, `paper`, `fluorescence`, "
        "`light_sheet`, `pipeline` or `holograms` (the simulated microscopes), or the name of a file in an "
        "adapter folder (MMConfig_demo.cfg)"
    )
    camera: str | None = Field(None, description="label of the camera; left out: the core's camera")
    focus: str | None = Field(None, description="label of the focus drive; left out: the core's focus drive")
    pump: str | None = Field(
        None, description="label of the pump; left out: the first device that has `pump_property`"
    )
    pump_property: str = Field(
        "FlowRate", description="property of the pump that holds its set-point, in uL/s"
    )
    shutter: str | None = Field(None, description="label of the shutter; it is closed when the run ends")
    trigger: str | None = Field(
        None, description='"Device.Property" that the command `trigger` sets to 1 and back to 0'
    )
    frame_number_key: str | None = Field(
        None, description="metadata key of the camera's own frame counter; left out: Micro-Manager's"
    )
    exposure_ms: float | None = Field(None, gt=0, description="exposure time; left out: as the camera has it")
    pixel_size_um: float | None = Field(
        None, gt=0, description="pixel size in object space; left out: the core's pixel size"
    )
    properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description='device properties to set after loading: "Device.Property" = value'
    )
    buffer_mb: int = Field(1024, ge=16, description="size of the buffer in which frames wait to be read")
    read_hz: float = Field(
        20.0, gt=0, description="how often per second focus and pump are read back, at most"
    )
    stall_s: float = Field(
        30.0, gt=0, description="a camera that delivers no frame for this long plus ten exposures has failed"
    )


class RecordingSettings(Section):
    """A recorded video, replayed through the same pipeline."""

    path: Path = Field(description="TIFF, OME-TIFF, OME-Zarr, HDF5 or a folder of images")
    frame_rate_hz: float | None = Field(
        None, ge=1e-6, le=1e7, description="frame rate; overrides the one in the file"
    )
    pixel_size_um: float | None = Field(
        None, ge=1e-6, le=1e7, description="pixel size in object space; overrides the one in the file"
    )
    axes: str | None = Field(
        None,
        description='axes of the file, slowest first, as in "TYX" (T time, Z focus, C channel); overrides the file',
    )
    z_step_um: float | None = Field(
        None,
        ge=LEAST_UM,
        le=MOST_UM,
        description="distance between the slices of a volume; overrides the one in the file, and reads the z "
        "planes of each time as one volume. A detector for volumes does so by itself",
    )
    pace: bool = Field(
        False, description="replay at the recording's frame rate; otherwise as fast as possible"
    )
    decisions: Literal["auto", "run", "off"] = Field(
        "auto",
        description="of a recorded run; run: do with each frame what the run's detector did, and leave out those "
        "it did not see; off: all frames, each as if there were time; auto: run, if model, settings and versions "
        "are those of the run, so that the result is the same, else off",
    )

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, axes: str | None) -> str | None:
        return None if axes is None else parse_axes(axes)


class LimitsSettings(Section):
    """What commands may do to the microscope, whoever sends them, and its safe state."""

    min_focus_um: float | None = Field(None, description="lowest focus position")
    max_focus_um: float | None = Field(None, description="highest focus position")
    max_focus_step_um: float | None = Field(None, gt=0, description="longest single focus move")
    min_flow_ul_s: float = Field(0.0, description="lowest set-point of the pump")
    max_flow_ul_s: float | None = Field(None, description="highest set-point of the pump")
    safe_flow_ul_s: float | None = Field(
        None, description="pump set-point of the safe state; left out: the pump is left as it is"
    )
    safe_focus_um: float | None = Field(
        None,
        description="focus position of the safe state; left out: the focus is left as it is",
    )
    min_exposure_ms: float = Field(0.001, gt=0, description="shortest exposure time")
    max_exposure_ms: float = Field(10_000.0, gt=0, description="longest exposure time")
    commands_per_s: float = Field(20.0, gt=0, description="most commands per second; more are refused")
    properties: tuple[str, ...] = Field(
        (), description='properties that `set_property` may change, each as "Device.Property"'
    )
    watchdog_s: float = Field(
        5.0,
        gt=0,
        description="the hardware goes to its safe state after this long without a live result, once there "
        "was one",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        pairs = (
            ("focus_um", self.min_focus_um, self.max_focus_um),
            ("flow_ul_s", self.min_flow_ul_s, self.max_flow_ul_s),
            ("exposure_ms", self.min_exposure_ms, self.max_exposure_ms),
        )
        for name, low, high in pairs:
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} must not be above max_{name}")
        safe_um, low_um, high_um = self.safe_focus_um, self.min_focus_um, self.max_focus_um
        if safe_um is not None and not (
            low_um is not None and high_um is not None and low_um <= safe_um <= high_um
        ):
            raise ValueError("safe_focus_um must lie within min_focus_um and max_focus_um")
        return self


class ScanSettings(Section):
    """A focus scan: its range, the images at each focus position, and the references."""

    start_um: float | None = Field(None, description="focus position of the first plane")
    stop_um: float | None = Field(
        None, description="focus position at which the scan ends; no plane lies beyond it"
    )
    range_um: float | None = Field(
        None, gt=0, description="range centred on the present focus position, in place of start and stop"
    )
    step_um: float = Field(3.0, gt=0, description="distance between two planes")
    images: int = Field(4, ge=1, description="images taken at each plane")
    settle_s: float = Field(0.05, ge=0, description="wait after the drive has come to rest")
    tolerance_um: float | None = Field(
        None, gt=0, description="largest deviation of the position read back; left out: a sixth of the step"
    )
    backlash_um: float = Field(
        0.0, ge=0, description="the first plane and retaken planes are approached from this far before them"
    )
    move_timeout_s: float = Field(30.0, gt=0, description="a move that takes longer has failed")
    image_timeout_s: float = Field(
        5.0,
        gt=0,
        description="an image that takes longer than this plus ten exposures is late; the plane is retaken",
    )
    tries: int = Field(3, ge=1, description="attempts at each plane before the scan fails")
    end_um: float | None = Field(
        None,
        description="focus position at the end of the scan, also of a failed one; left out: "
        "limits.safe_focus_um, else where the focus was before",
    )
    references: tuple[Literal["bright", "dark"], ...] = Field(
        ("bright", "dark"),
        description="reference images to take after the scan: without particles, without light",
    )
    reference_images: int = Field(16, ge=1, description="images averaged for each reference")
    light: str | None = Field(
        None, description='"Device.Property" that switches the light source off for the dark reference'
    )
    light_on: str | int | float | bool = Field(1, description="value of `light` that switches it on")
    light_off: str | int | float | bool = Field(0, description="value of `light` that switches it off")
    bright_properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description='"Device.Property" = value: removes the particles from view for the bright reference; '
        "set back afterwards; left out: you are asked to remove them",
    )

    @property
    def tolerated_um(self) -> float:
        """How far from its plane the drive may stand, um."""
        return self.step_um / 6 if self.tolerance_um is None else self.tolerance_um

    @model_validator(mode="after")
    def _one_range(self) -> Self:
        ends = (self.start_um is not None) + (self.stop_um is not None)
        if ends + 2 * (self.range_um is not None) != 2:
            raise ValueError("give start_um and stop_um, or range_um alone")
        if self.tolerated_um > self.step_um / 2:
            raise ValueError("tolerance_um must not be above half a step")
        return self
