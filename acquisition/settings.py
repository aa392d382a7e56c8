"""Settings of acquisition: `[microscope]`, `[recording]`, `[limits]` and `[scan]` of the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from acquisition.stacks.axes import parse_axes


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MicroscopeSettings(_Section):
    """A microscope that Micro-Manager knows. What is left out is asked of the core."""

    config: str = Field(
        description="configuration file of Micro-Manager: a path, `simulated` or `paper` (the simulated "
        "microscope), or a file that lies beside the adapters (MMConfig_demo.cfg)"
    )
    camera: str | None = Field(None, description="label of the camera")
    focus: str | None = Field(None, description="label of the focus drive")
    pump: str | None = Field(None, description="label of the pump; left out: a device with `pump_property`")
    pump_property: str = Field("FlowRate", description="the pump's set-point, uL/s, as a property")
    shutter: str | None = Field(None, description="label of the shutter; it is closed when the run ends")
    trigger: str | None = Field(
        None, description='"Device.Property" that the command `trigger` sets to 1 and back to 0'
    )
    frame_number_key: str | None = Field(
        None, description="where a frame's metadata has the camera's own counter; left out: Micro-Manager's"
    )
    exposure_ms: float | None = Field(None, gt=0)
    pixel_size_um: float | None = Field(None, gt=0, description="in object space")
    properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description='set after loading: "Device.Property" = value'
    )
    buffer_mb: int = Field(1024, ge=16, description="frames that wait in the camera's buffer, at most")
    read_hz: float = Field(20.0, gt=0, description="how often focus and pump are read back, at most")
    stall_s: float = Field(
        30.0, gt=0, description="a camera that delivers nothing for so long (and ten exposures) has failed"
    )


class RecordingSettings(_Section):
    """A recorded video, replayed through the same stages."""

    path: Path = Field(description="TIFF, OME-TIFF, OME-Zarr, HDF5 or a folder of images")
    frame_rate_hz: float | None = Field(None, ge=1e-6, le=1e7, description="overrides what the file says")
    pixel_size_um: float | None = Field(None, ge=1e-6, le=1e7, description="overrides what the file says")
    axes: str | None = Field(
        None,
        description='overrides what the file says: T time, Z focus, C channel, as in "TYX", slowest first',
    )
    pace: bool = Field(False, description="replay at its own frame rate instead of as fast as it goes")

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, axes: str | None) -> str | None:
        return None if axes is None else parse_axes(axes)


class LimitsSettings(_Section):
    """What commands may do to the microscope, whoever sends them."""

    min_focus_um: float | None = Field(None, description="lowest focus position")
    max_focus_um: float | None = Field(None, description="highest focus position")
    max_focus_step_um: float | None = Field(None, gt=0, description="longest single move")
    min_flow_ul_s: float = Field(0.0, description="lowest set-point of the pump")
    max_flow_ul_s: float | None = Field(None, description="highest set-point of the pump")
    safe_flow_ul_s: float | None = Field(
        None, description="set-point when the run ends or its controller falls silent; left out: as it is"
    )
    safe_focus_um: float | None = Field(
        None,
        description="focus position when the run ends or its controller falls silent; left out: as it is",
    )
    min_exposure_ms: float = Field(0.001, gt=0)
    max_exposure_ms: float = Field(10_000.0, gt=0)
    commands_per_s: float = Field(20.0, gt=0, description="more are refused")
    properties: tuple[str, ...] = Field((), description='"Device.Property" that set_property may change')
    watchdog_s: float = Field(
        5.0,
        gt=0,
        description="after so long without a live result (and after a first one) the hardware goes to its "
        "safe state",
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


class ScanSettings(_Section):
    """A focus scan: where from and to, how many images at each position, and what goes with it."""

    start_um: float | None = Field(None, description="focus position of the first plane")
    stop_um: float | None = Field(None, description="where the scan ends; no plane lies beyond it")
    range_um: float | None = Field(
        None, gt=0, description="in place of start and stop: so far, centred on where the focus is now"
    )
    step_um: float = Field(3.0, gt=0, description="from plane to plane")
    images: int = Field(4, ge=1, description="at each plane")
    settle_s: float = Field(0.05, ge=0, description="waited after the drive has come to rest")
    tolerance_um: float | None = Field(
        None, gt=0, description="farthest from the plane, read back; left out: a sixth of the step"
    )
    backlash_um: float = Field(
        0.0, ge=0, description="the first plane and retaken ones are approached from so far before them"
    )
    move_timeout_s: float = Field(30.0, gt=0, description="a move that takes longer has failed")
    image_timeout_s: float = Field(
        5.0, gt=0, description="an image that takes longer (and ten exposures) is late: the plane is retaken"
    )
    tries: int = Field(3, ge=1, description="how often a plane is taken before the scan fails")
    end_um: float | None = Field(
        None,
        description="where the focus goes at the end and when the scan fails; left out: "
        "limits.safe_focus_um, else where it was",
    )
    references: tuple[Literal["bright", "dark"], ...] = Field(
        ("bright", "dark"), description="images without particles, and without light, taken after the scan"
    )
    reference_images: int = Field(16, ge=1, description="of each reference")
    light: str | None = Field(
        None, description='"Device.Property" of the light source: off for the dark reference, on otherwise'
    )
    light_on: str | int | float | bool = Field(1, description="its value for light")
    light_off: str | int | float | bool = Field(0, description="its value for none")
    bright_properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description='"Device.Property" = value: takes the particles out of the picture for the bright '
        "reference, in place of a person; set back after it",
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
