"""The newest fit of the flow that a run has recorded, as the page shows it."""

from __future__ import annotations

from typing import Any

from liveptv.flow_fit.words import live_words
from tracking.physics.live.findings import FlowFindings, findings_from
from tracking.physics.live.pump_history import is_another_flow


class RunningFlow:
    """Takes the entries of kind `flow` of a run's event log."""

    def __init__(self) -> None:
        self._newest: FlowFindings | None = None

    def happened(self, event: dict[str, Any]) -> None:
        """Take an entry. Raises `LinkError` if it is not a fit."""
        self._newest = findings_from(event)

    def facts(self, flow_ul_s: float) -> dict[str, Any] | None:
        """Lines of words, the fitted profile and the residuals over the section; None without a fit.

        `was_before`: the fit is of another flow than that of the pump's present set-point.
        """
        flow = self._newest
        if flow is None:
            return None
        facts = flow.facts()
        return {
            "rows": [{"name": name, "text": text} for name, text in live_words(flow)],
            "was_before": flow.set_point_ul_s is not None and is_another_flow(flow_ul_s, flow.set_point_ul_s),
            "differs": bool(flow.told),
            "profile": facts["profile"],
            "residuals": facts["residuals"],
            "maximum_um_s": abs(flow.maximum_um_s.value),
        }
