"""Quantisation from single precision to 8 bits (NNCF, post-training): ranges are measured on images."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.backends.registry import missing
from engines.engine import BackEndError
from stream.errors import ConfigurationError

TELEMETRY = "openvino_telemetry"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ways to lose less accuracy: keep the widest convolution, at a quarter of the resolution, in single precision;
    use weights of seven bits, whose products cannot saturate on processors without VNNI."""

    fine_in_float: bool
    seven_bits: bool

    def __str__(self) -> str:
        fine = ", the finest level in single precision" if self.fine_in_float else ""
        return f"in 8 bits{', weights in 7' if self.seven_bits else ''}{fine}"


RECIPES = (Recipe(False, False), Recipe(True, False), Recipe(True, True))
"""The fastest first."""


def check_libraries() -> None:
    """Raise `ConfigurationError` where what is needed to quantise is not installed."""
    reason = missing("openvino", "nncf", extra="openvino")
    if reason:
        raise ConfigurationError(reason)


def quantise_graph(
    path: Path, inputs: Sequence[npt.NDArray[np.float32]], recipe: Recipe
) -> tuple[bytes, bytes]:
    """OpenVINO's graph and weights, in 8 bits, of a model file; `inputs` (1, 1, H, W) are typical ones.

    The first and the last convolution, which read the noise and give the position, stay in single precision. Raises
    `ConfigurationError` where the libraries are missing, `BackEndError` where they fail.
    """
    check_libraries()
    nncf = _nncf_without_telemetry()
    import openvino

    try:
        graph = openvino.Core().read_model(path)
        kept = _kept_in_float(graph, recipe.fine_in_float)
        fix = nncf.OverflowFix.ENABLE if recipe.seven_bits else nncf.OverflowFix.DISABLE
        quantised = nncf.quantize(
            graph,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=kept),
            fast_bias_correction=False,
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=fix),
        )
        with tempfile.TemporaryDirectory(prefix="liveptv-int8-") as folder:
            xml, weights = Path(folder) / "graph.xml", Path(folder) / "graph.bin"
            openvino.serialize(quantised, str(xml), str(weights))
            return xml.read_bytes(), weights.read_bytes()
    except (RuntimeError, ValueError, nncf.InternalError) as error:
        raise BackEndError(f"nncf cannot quantise {path.name}: {' '.join(str(error).split())}") from error


def _nncf_without_telemetry() -> Any:
    """NNCF, which otherwise reports over the network each time it is used; a microscope's computer must not."""
    known = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        import nncf
    finally:
        if known is None:
            del sys.modules[TELEMETRY]
        else:
            sys.modules[TELEMETRY] = known
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def _kept_in_float(graph: Any, fine: bool) -> list[str]:
    """The names of the convolutions to leave alone, in the order of the graph."""
    kinds = ("Convolution", "ConvolutionBackpropData")
    convolutions = [node for node in graph.get_ordered_ops() if node.get_type_name() in kinds]
    ends = [convolutions[0], convolutions[-1]]
    if fine:
        ends.append(convolutions[-2])
    return [node.get_friendly_name() for node in ends]
