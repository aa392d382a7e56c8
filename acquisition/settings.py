"""Settings of the source: `[microscope]`, `[recording]` and `[limits]` of the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
    frame_rate_hz: float | None = Field(None, gt=0, description="overrides what the file says")
    pixel_size_um: float | None = Field(None, gt=0, description="overrides what the file says")
    pace: bool = Field(False, description="replay at its own frame rate instead of as fast as it goes")


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
        None, description="focus position when the run ends or its controller falls silent; left out: as it is"
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
