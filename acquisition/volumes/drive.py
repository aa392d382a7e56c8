"""The focus drive that scans: what it can do, loading positions, starting and stopping its sequence."""

from __future__ import annotations

from acquisition.microscope.core import reason
from acquisition.microscope.microscope import Microscope
from acquisition.volumes.plan import VolumePlan
from acquisition.volumes.settings import VolumeSettings
from stream.errors import ConfigurationError, SourceError


class ScanDrive:
    """The focus drive of a microscope, scanned by the camera's trigger (`sequenced`) or moved slice by slice."""

    def __init__(self, microscope: Microscope, settings: VolumeSettings, plan: VolumePlan) -> None:
        """Raises `ConfigurationError` if the drive cannot do what the settings ask for."""
        if not microscope.focus:
            raise ConfigurationError("volumes need a focus drive, and none was found; set microscope.focus")
        self._scope = microscope
        self._core = microscope.core
        self._label = microscope.focus
        self._late = settings.second_image_at == "first"
        self._loaded: tuple[float, ...] = ()
        self.why_stepped = ""
        self.longest = self._longest()
        self.sequenced = self._can_be_sequenced(settings, plan)

    def _longest(self) -> int:
        """Positions that the drive can hold; 0 if it is not sequenceable."""
        try:
            if not self._core.isStageSequenceable(self._label):
                return 0
            return int(self._core.getStageSequenceMaxLength(self._label))
        except Exception as error:
            raise SourceError(
                f"{self._label} does not say whether it is sequenceable: {reason(error)}"
            ) from error

    def _can_be_sequenced(self, settings: VolumeSettings, plan: VolumePlan) -> bool:
        if settings.mode == "stepped":
            return False
        cycle = plan.images * plan.volumes_per_cycle
        needed = plan.images if settings.volumes_per_s is not None or not settings.drive_repeats else cycle
        if not self.longest:
            self.why_stepped = f"{self._label} cannot be sequenced"
        elif needed > self.longest:
            self.why_stepped = (
                f"{self._label} holds {self.longest} positions, and {needed} images make "
                f"{'an upward and a downward volume' if needed > plan.images else 'a volume'}"
            )
        if not self.why_stepped:
            return True
        if settings.mode == "sequenced":
            raise ConfigurationError(
                f'{self.why_stepped}; set volume.mode = "stepped", or take fewer slices or one direction'
            )
        if settings.settle_images:
            raise ConfigurationError(
                f"{self.why_stepped}, so volumes are stepped, where volume.settle_images has no meaning; "
                "leave it out, or set volume.settle_s"
            )
        return False

    def claim(self) -> None:
        """Scan from now on, also after something else has moved the drive."""
        self._scope.focus_taken = False

    @property
    def taken(self) -> bool:
        """Whether something else, such as the safe state, has moved the drive, which ends the scan."""
        return self._scope.focus_taken

    def start(self, plan: VolumePlan, volumes: int, timeout_s: float) -> bool:
        """Bring the drive to the first position, load the positions of the first volumes and arm it.

        Returns False if the drive was `taken` meanwhile. Raises `SourceError` if it fails or does not arrive within
        `timeout_s`.
        """
        positions = plan.positions_um(volumes)
        if not self._scope.scan_focus(positions[0]):
            return False
        self._scope.wait_for_focus(timeout_s)
        self._load(tuple([*positions[1:], positions[0]] if self._late else positions))
        return self._scope.start_focus_sequence()

    def move(self, position_um: float) -> bool:
        """Start a move to a slice, without waiting; False if the drive was `taken`."""
        return self._scope.scan_focus(position_um)

    def moves(self) -> bool:
        """Whether the drive still moves."""
        return self._scope.focus_moves()

    def position_um(self) -> float:
        """Where the drive is, as read back."""
        return self._scope.read_focus()

    def _load(self, positions: tuple[float, ...]) -> None:
        if positions == self._loaded:
            return
        self._loaded = ()
        try:
            self._core.loadStageSequence(self._label, list(positions))
        except Exception as error:
            raise SourceError(f"{self._label} does not take its positions: {reason(error)}") from error
        self._loaded = positions

    def stop(self) -> None:
        """Stop a running sequence; the drive stays where it is."""
        self._scope.stop_focus_sequence()
