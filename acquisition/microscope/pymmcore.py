"""What we use of pymmcore-plus, imported without its side effect on others.

Importing pymmcore-plus sets the root logger to DEBUG; in a notebook every library then prints its debug messages.
Here the root logger keeps its level.
"""

import logging

_root = logging.getLogger()
_level = _root.level
try:
    from pymmcore_plus import DeviceType, find_micromanager
    from pymmcore_plus.experimental.unicore import (
        CameraDevice,
        Device,
        GenericDevice,
        ShutterDevice,
        StageDevice,
        UniMMCore,
    )
finally:
    _root.setLevel(_level)

__all__ = [
    "CameraDevice",
    "Device",
    "DeviceType",
    "GenericDevice",
    "ShutterDevice",
    "StageDevice",
    "UniMMCore",
    "find_micromanager",
]
