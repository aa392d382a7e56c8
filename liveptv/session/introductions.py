"""Brings the stages of a run together: collects the addresses they have bound and tells each one its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from liveptv.session.link_rules import wants_predictions
from liveptv.session.plan import PREDICTIONS_ADDRESS, RECORD_REQUESTS, ImageFormat, Peers, Recorded
from liveptv.session.run_status import StageView


class Introductions:
    """Addresses by `stage.name`, and what the camera images look like, as far as the stages have said so."""

    def __init__(self, on_record: Callable[[Recorded], None]) -> None:
        """`on_record` gets each record that a stage sends through its pipe."""
        self._on_record = on_record
        self.bound: dict[str, str] = {}
        self.image_format: ImageFormat | None = None

    def poll(self, stages: Mapping[str, StageView]) -> None:
        """Take what the stages have sent, and tell each its inputs as soon as they are known."""
        for view in stages.values():
            for message in view.worker.messages():
                if isinstance(message, Recorded):
                    self._on_record(message)
                    continue
                self.bound |= {f"{view.plan.stage}.{name}": at for name, at in message.addresses.items()}
                self.image_format = message.image_format or self.image_format
                view.waits_for_peers = True
            if view.waits_for_peers and (peers := self._peers_of(view, stages)) is not None:
                view.waits_for_peers = False
                view.worker.tell(peers)

    def _peers_of(self, view: StageView, stages: Mapping[str, StageView]) -> Peers | None:
        """The inputs of a stage; None while they are unknown. The source starts last, when all others are ready."""
        if view.upstream is None:
            others_ready = all(other.ready for other in stages.values() if other is not view)
            return Peers({}) if others_ready else None
        upstream = self.bound.get(f"{view.upstream}.{view.plan.stage}")
        commands = self.bound.get("acquire.commands")
        if upstream is None or self.image_format is None or commands is None:
            return None
        addresses = {"upstream": upstream, "commands": commands}
        if view.plan.stage == "detect" and wants_predictions(view.plan.experiment):
            predictions = self.bound.get(f"track.{PREDICTIONS_ADDRESS}")
            if predictions is None:
                return None
            addresses[PREDICTIONS_ADDRESS] = predictions
        if view.plan.stage == "control" and "record" in stages:
            requests = self.bound.get(RECORD_REQUESTS)
            if requests is None:
                return None
            addresses[RECORD_REQUESTS] = requests
        return Peers(addresses, view.upstream, self.image_format)
