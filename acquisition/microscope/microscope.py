"""A microscope in Micro-Manager: a camera and, if present, a focus drive, a pump and a shutter."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from acquisition.microscope.core import close_core, open_core, reason
from acquisition.microscope.pymmcore import DeviceType, UniMMCore
from acquisition.microscope.watched_state import WatchedState
from acquisition.settings import MicroscopeSettings
from acquisition.source import SourceInfo
from stream.errors import ConfigurationError, SourceError

NAN = math.nan
log = logging.getLogger(__name__)
Value = TypeVar("Value")
STILL_UM = 0.05
"""Two readings within this distance, um, mean that the drive rests: above encoder noise (some nm), below the
standard error of z (0.3 um and more). Twice as much would accept a drive that still creeps at 10 um/s."""
READING_APART_S = 0.01
"""Between the two readings, s: a creeping drive moves by more than `STILL_UM` in it. Adds as much to every move."""
OWN_PIXEL_SIZE = "PixelSize_um"  # property of a camera that knows what a pixel is in object space
PIXEL_BYTES = {1: "uint8", 2: "uint16"}


class Actuators:
    """A loaded core with the devices that can be made safe: focus drive, pump and shutter, if present.

    Methods that wait must be called from one thread; those that set or read one device may be called from any
    thread, as the core locks each device.

    `focus_commanded_um` is the last target of the focus drive. All methods raise `SourceError` if a device fails,
    with its label and the reason that its adapter gives.
    """

    def __init__(self, settings: MicroscopeSettings) -> None:
        """Load the configuration and find the devices.

        Raises `ConfigurationError` for a device or property that does not exist.
        """
        self.settings = settings
        self.core: UniMMCore = open_core(settings.config, buffer_mb=settings.buffer_mb)
        self._closed = False
        self._last_reading: tuple[float, float] | None = None
        self.focus_commanded_um = NAN
        self.rested_ns = 0  # not known: the drive is asked whether it rests
        self.focus_sequence_runs = False
        self.focus_taken = False
        self._focus_lock = threading.Lock()
        try:
            self._labels = tuple(self.core.getLoadedDevices())
            self.focus = self._role(settings.focus, self.core.getFocusDevice(), "microscope.focus")
            self.shutter = self._role(settings.shutter, "", "microscope.shutter")
            self.pump = self._pump()
        except BaseException:
            self.close()
            raise

    def _role(self, wanted: str | None, default: str, setting: str) -> str:
        label = wanted if wanted is not None else str(default or "")
        if label and label not in self._labels:
            raise ConfigurationError(
                f"{setting}: there is no device {label!r} in {self.settings.config}; it has "
                f"{', '.join(self._labels)}"
            )
        return label

    def _pump(self) -> str:
        name = self.settings.pump_property
        label = self._role(self.settings.pump, "", "microscope.pump")
        if label:
            if not self._is_native_pump(label) and not self.core.hasProperty(label, name):
                raise ConfigurationError(
                    f"microscope.pump: {label} has no property {name!r}; set microscope.pump_property to one of "
                    f"{', '.join(self.core.getDevicePropertyNames(label))}"
                )
            return label
        others = [other for other in self._labels if other != "Core"]
        found = [other for other in others if self.core.hasProperty(other, name)]
        found += [other for other in others if self._is_native_pump(other)]
        return found[0] if found else ""

    def _is_native_pump(self, label: str) -> bool:
        return self.core.getDeviceType(label) == DeviceType.VolumetricPumpDevice

    def check_property(self, device: str, name: str) -> None:
        """Raise `ConfigurationError` if there is no such device or property."""
        if device not in self._labels:
            raise ConfigurationError(
                f"there is no device {device!r} in {self.settings.config}; it has {', '.join(self._labels)}"
            )
        if not self.core.hasProperty(device, name):
            names = ", ".join(self.core.getDevicePropertyNames(device))
            raise ConfigurationError(f"{device} has no property {name!r}; it has {names}")

    def read_focus(self) -> float:
        """Focus position read back, um; NaN without a drive."""
        return float(self._do(self.focus, self.core.getPosition, self.focus)) if self.focus else NAN

    def move_focus(self, position_um: float) -> None:
        """Start a move of the focus drive, without waiting. It ends a scan: the drive is taken from it."""
        with self._focus_lock:
            self.focus_taken = True
            self._stop_focus_sequence()
            self._set_focus(position_um)

    def _set_focus(self, position_um: float) -> None:
        self._do(self.focus, self.core.setPosition, self.focus, position_um)
        self.focus_commanded_um = position_um
        self._last_reading = None

    def scan_focus(self, position_um: float) -> bool:
        """Start a move that belongs to a scan; False, and no move, once the drive has been taken from it."""
        with self._focus_lock:
            if not self.focus_taken:
                self._stop_focus_sequence()
                self._set_focus(position_um)
            return not self.focus_taken

    def start_focus_sequence(self) -> bool:
        """Let the drive follow its trigger through the positions loaded into it; False once it has been taken."""
        with self._focus_lock:
            if not self.focus_taken:
                self._do(self.focus, self.core.startStageSequence, self.focus)
                self.focus_sequence_runs = True
            return not self.focus_taken

    def stop_focus_sequence(self) -> None:
        """Let the focus drive follow no trigger any more. Idempotent."""
        with self._focus_lock:
            self._stop_focus_sequence()

    def _stop_focus_sequence(self) -> None:
        if self.focus_sequence_runs:
            self._do(self.focus, self.core.stopStageSequence, self.focus)
            self.focus_sequence_runs = False

    def focus_moves(self) -> bool:
        """Whether the focus drive still moves.

        Many drives report "not busy" while they still creep: the drive rests once two readings, some milliseconds
        apart, agree within `STILL_UM`.
        """
        if self._do(self.focus, self.core.deviceBusy, self.focus):
            self._last_reading = None
            return True
        now_s, last = time.monotonic(), self._last_reading
        if last is not None and now_s - last[0] < READING_APART_S:
            return True
        position_um = self.read_focus()
        self._last_reading = (now_s, position_um)
        return last is None or abs(position_um - last[1]) > STILL_UM

    def read_flow(self) -> float:
        """The pump's set-point, uL/s; NaN without a pump."""
        if not self.pump:
            return NAN
        if self._is_native_pump(self.pump):
            return float(self._do(self.pump, self.core.getPumpFlowrate, self.pump))
        return float(self._do(self.pump, self.core.getProperty, self.pump, self.settings.pump_property))

    def set_flow(self, flow_ul_s: float) -> None:
        """Set the pump."""
        if self._is_native_pump(self.pump):
            self._do(self.pump, self.core.setPumpFlowrate, self.pump, flow_ul_s)
        else:
            self.set_property(self.pump, self.settings.pump_property, flow_ul_s)

    def set_property(self, device: str, name: str, value: str | float | bool) -> None:
        """Set a property of a device."""
        given: str | float = int(value) if isinstance(value, bool) else value
        self._do(f"{device}.{name}", self.core.setProperty, device, name, given)

    def read_property(self, device: str, name: str) -> str | float:
        """The value of a device's property: text from adapters, a number from some Python devices."""
        value: object = self._do(f"{device}.{name}", self.core.getProperty, device, name)
        return value if isinstance(value, str | int | float) else str(value)

    def set_shutter(self, is_open: bool) -> None:
        """Open or close the shutter."""
        self._do(self.shutter, self.core.setShutterOpen, self.shutter, is_open)

    def shutter_is_open(self) -> bool:
        """Whether the shutter is open, as read back."""
        return bool(self._do(self.shutter, self.core.getShutterOpen, self.shutter))

    def wait_for_focus(self, timeout_s: float) -> None:
        """Wait until the focus drive rests. Raises `SourceError` if it still moves after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while self.focus and self.focus_moves():
            if time.monotonic() > deadline_s:
                raise SourceError(f"{self.focus} still moves after {timeout_s:g} s; is it blocked?")
            time.sleep(0.002)

    def _do(self, what: str, call: Callable[..., Value], *arguments: object) -> Value:
        try:
            return call(*arguments)
        except Exception as error:
            raise SourceError(f"{what} of {self.settings.config} failed: {reason(error)}") from error

    def close(self) -> None:
        """Unload all devices. Idempotent."""
        if not self._closed:
            self._closed = True
            try:
                self.stop_focus_sequence()
            except SourceError as error:
                log.warning("the focus drive may still follow its trigger: %s", error)
            close_core(self.core)


class Microscope(Actuators):
    """A microscope with its camera, set up according to the settings; see `Actuators`."""

    def __init__(self, settings: MicroscopeSettings) -> None:
        """Load the configuration, find the devices and apply the settings.

        Raises `ConfigurationError` for a device or property that does not exist.
        """
        super().__init__(settings)
        try:
            self.camera = self._camera()
            self._apply()
            self.focus_commanded_um = self.read_focus()
        except BaseException:
            self.close()
            raise

    def _camera(self) -> str:
        label = self._role(self.settings.camera, self.core.getCameraDevice(), "microscope.camera")
        if not label:
            raise ConfigurationError(
                f"{self.settings.config} names no camera; set microscope.camera to one of "
                f"{', '.join(self._labels)}"
            )
        if label != self.core.getCameraDevice():
            self._do(label, lambda: self.core.setCameraDevice(label))
        if not self.core.isPyDevice(label):
            self._do(label, self.core.setCircularBufferMemoryFootprint, self.settings.buffer_mb)
        return label

    def _apply(self) -> None:
        for key, value in self.settings.properties.items():
            device, _, name = key.partition(".")
            self.check_property(device, name)
            self.set_property(device, name, value)
        if self.settings.exposure_ms is not None:
            self.set_exposure(self.settings.exposure_ms)

    def info(self) -> SourceInfo:
        """Properties of the camera's images now.

        Raises `SourceError` for colour images, for pixels that are neither uint8 nor uint16, and for several
        cameras in one stream.
        """
        core = self.core
        channels = self._do(self.camera, core.getNumberOfCameraChannels)
        if channels > 1:
            raise SourceError(
                f"{self.camera} delivers images of {channels} cameras in turn; set microscope.camera to "
                "one of them"
            )
        components = self._do(self.camera, core.getNumberOfComponents)
        nbytes = self._do(self.camera, core.getBytesPerPixel)
        dtype = PIXEL_BYTES.get(nbytes)
        if components != 1 or dtype is None:
            what = "colour images" if components != 1 else f"{nbytes} bytes per pixel"
            raise SourceError(
                f"{self.camera} delivers {what}; set its PixelType to 8 or 16 bit grey "
                f'(--set microscope.properties."{self.camera}.PixelType"=16bit)'
            )
        rate_hz, described = self._frame_rate_hz()
        pixel_um, assumed = self._pixel_size_um()
        return SourceInfo(
            height=self._do(self.camera, core.getImageHeight),
            width=self._do(self.camera, core.getImageWidth),
            depth=1,
            dtype=dtype,
            pixel_size_um=pixel_um,
            frame_rate_hz=rate_hz,
            frames=None,
            name=self.camera,
            description=f"camera {self.camera} of {self.settings.config}{described}{assumed}",
        )

    def _frame_rate_hz(self) -> tuple[float, str]:
        for name in ("FrameRate", "AcquisitionFrameRate"):
            if self.core.hasProperty(self.camera, name):
                try:
                    rate_hz = float(self.core.getProperty(self.camera, name))
                except ValueError:
                    continue
                if rate_hz > 0:
                    return rate_hz, ""
        return NAN, ""

    def known_pixel_size_um(self) -> float | None:
        """Pixel size in object space from the settings, else from the core, um; None if unknown."""
        if self.settings.pixel_size_um is not None:
            return self.settings.pixel_size_um
        return self._read_pixel_size_um()

    def _read_pixel_size_um(self) -> float | None:
        """The core's pixel size, um, else the camera's own (a property `PixelSize_um`); None if neither knows."""
        size_um = float(self._do("pixel size", self.core.getPixelSizeUm))
        if size_um <= 0 and self.core.hasProperty(self.camera, OWN_PIXEL_SIZE):
            size_um = float(self._do("pixel size", self.core.getProperty, self.camera, OWN_PIXEL_SIZE))
        return size_um if size_um > 0 else None

    def read_state(self) -> WatchedState:
        """The values in the core that can change while the camera runs."""
        return WatchedState(
            pixel_size_um=self._read_pixel_size_um(),
            exposure_ms=self.read_exposure(),
            bit_depth=int(self._do(self.camera, self.core.getImageBitDepth)),
            shutter_open=self.shutter_is_open() if self.shutter else None,
        )

    def _pixel_size_um(self) -> tuple[float, str]:
        size_um = self.known_pixel_size_um()
        if size_um is not None:
            return size_um, ""
        return 1.0, "; its pixel size is unknown, 1 um is assumed: set microscope.pixel_size_um"

    def read_exposure(self) -> float:
        """Exposure time, ms."""
        return float(self._do(self.camera, self.core.getExposure))

    def set_exposure(self, exposure_ms: float) -> None:
        """Set the exposure time, ms."""
        self._do(self.camera, self.core.setExposure, exposure_ms)

    def set_auto_shutter(self, is_on: bool) -> bool:
        """Whether the core opens its shutter for every image; returns the previous setting."""
        before = bool(self._do("auto-shutter", self.core.getAutoShutter))
        self._do("auto-shutter", self.core.setAutoShutter, is_on)
        return before

    def camera_error(self) -> str:
        """Why a Python camera stopped; "" if unknown."""
        if self.core.isPyDevice(self.camera) and self.core.hasProperty(self.camera, "LastError"):
            return str(self.core.getProperty(self.camera, "LastError"))
        return ""

    def simulated_time(self) -> bool:
        """Whether the camera is simulated and its time is not the wall clock (`RealTime` is 0)."""
        if not (self.core.isPyDevice(self.camera) and self.core.hasProperty(self.camera, "RealTime")):
            return False
        return float(self.core.getProperty(self.camera, "RealTime")) == 0

    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Pixel type of the images."""
        return np.dtype(np.uint8) if self.core.getBytesPerPixel() == 1 else np.dtype(np.uint16)
