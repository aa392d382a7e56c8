"""From single precision to 8 bits by NNCF's post-training quantisation: ranges measured on images, no training."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.backends.registry import missing
from engines.engine import BackEndError
from engines.network.layout import STRIDE
from stream.errors import ConfigurationError

TELEMETRY = "openvino_telemetry"
FINE_STRIDE = STRIDE


def quantise_graph(
    path: Path, inputs: Sequence[npt.NDArray[np.float32]], *, fine_in_float: bool = False
) -> tuple[bytes, bytes]:
    """OpenVINO's graph and weights, in 8 bits, of a model file; `inputs` (1, 1, H, W) are typical ones.

    The first and the last convolution, which see the noise and say the place, stay in single precision; with
    `fine_in_float` all at a quarter of the resolution do. Raises `ConfigurationError` where the libraries are
    missing, `BackEndError` where they fail.
    """
    reason = missing("openvino", "nncf", extra="openvino")
    if reason:
        raise ConfigurationError(reason)
    nncf = _nncf_without_telemetry()
    import openvino

    try:
        graph = openvino.Core().read_model(path)
        kept = _kept_in_float(graph, fine_in_float)
        quantised = nncf.quantize(
            graph,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=kept),
            fast_bias_correction=False,
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
        ends += [node for node in convolutions[-3:-1] if node not in ends]
    return [node.get_friendly_name() for node in ends]
