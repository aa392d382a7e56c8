"""Base class of the simulated devices: typed properties, and a simulated world shared by name."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from acquisition.microscope.pymmcore import Device
from acquisition.simulated.world import World
from stream.errors import ConfigurationError

Value = TypeVar("Value", int, float, str)

_worlds: dict[str, tuple[World, list[weakref.ref[object]]]] = {}
_worlds_lock = threading.Lock()


def attach(name: str, device: object) -> World:
    """Return the world of this name for a device; created for the first one.

    A world has one device of a class: two microscopes in one process need two names.
    """
    with _worlds_lock:
        if not _users(name):
            _worlds[name] = (World(), [])
        world, users = _worlds[name]
        if any(type(user) is type(device) for user in _users(name)):
            raise ConfigurationError(
                f"the simulated world {name!r} already has a {type(device).__name__}; unload the other "
                "microscope, or give the devices of this one another World"
            )
        users.append(weakref.ref(device))
        return world


def detach(name: str, device: object) -> None:
    """Leave a world; it is deleted with its last device."""
    with _worlds_lock:
        if name in _worlds:
            _worlds[name][1][:] = [weakref.ref(user) for user in _users(name) if user is not device]
            if not _worlds[name][1]:
                del _worlds[name]


def shared_world(name: str) -> World:
    """The world of this name, for access to the truth; `ConfigurationError` if it has no devices."""
    with _worlds_lock:
        if name not in _worlds:
            raise ConfigurationError(
                f"there is no simulated world {name!r}; load a simulated microscope first"
            )
        return _worlds[name][0]


def _users(name: str) -> list[object]:
    """The devices of a world that still exist; one deleted without `shutdown` no longer counts."""
    references = _worlds[name][1] if name in _worlds else []
    return [user for reference in references if (user := reference()) is not None]


class SimulatedDevice(Device):
    """A device with typed properties; it shares a world with others from `initialize` to `shutdown`."""

    def __init__(self) -> None:
        super().__init__()
        self._world: World | None = None
        self._world_name = "world"
        self.last_error = ""
        self.add("World", str, lambda: self._world_name, self._set_world_name, pre_init=True)
        self.add("LastError", str, self.error_text)

    @property
    def attached(self) -> bool:
        """Whether the device has joined its world."""
        return self._world is not None

    @property
    def world(self) -> World:
        """The shared world; raises `ConfigurationError` before `initialize` or after it failed."""
        if self._world is None:
            reason = self.error_text() or "it has not been initialised"
            raise ConfigurationError(f"the simulated {type(self).__name__} cannot be used: {reason}")
        return self._world

    def add(
        self,
        name: str,
        kind: type[Value],
        read: Callable[[], Value],
        write: Callable[[Value], None] | None = None,
        *,
        limits: tuple[float, float] | None = None,
        allowed: Sequence[Value] | None = None,
        pre_init: bool = False,
    ) -> None:
        """Register a property; a value from the core is converted to `kind` or refused in one line."""

        def getter(_: Any) -> Value:
            return read()

        def setter(_: Any, value: Any) -> None:
            if pre_init and self._world is not None:
                raise ConfigurationError(
                    f"{name} cannot change once the device is initialised; set it in the .cfg before Initialize"
                )
            if write is not None:
                write(_converted(name, kind, value))

        self.register_property(
            name,
            property_type=kind,
            default_value=read(),
            getter=getter,
            setter=None if write is None else setter,
            limits=limits,
            allowed_values=allowed,
            is_read_only=write is None,
            is_pre_init=pre_init,
        )

    def initialize(self) -> None:
        """Join the world and set it up; an error is kept, because the core only logs it."""
        try:
            self._world = attach(self._world_name, self)
            self.join()
        except Exception as error:
            self.last_error = str(error)
            self.shutdown()
            raise

    def error_text(self) -> str:
        """Return why the device did not start, or ""."""
        return self.last_error

    def join(self) -> None:
        """Apply the settings of this device to the world."""

    def shutdown(self) -> None:
        """Leave the world."""
        if self._world is not None:
            self._world = None
            detach(self._world_name, self)

    def _set_world_name(self, name: str) -> None:
        self._world_name = name


def _converted(name: str, kind: type[Value], value: Any) -> Value:
    try:
        if kind is int:
            if float(value) != int(float(value)):
                raise ValueError
            return kind(float(value))
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigurationError(f"{name} must be {wanted}, not {value!r}") from None
