"""Training images with their exact truth, from a scan's own pixels or from the PSF model."""

from calibration.synthesis.cut_and_paste import CutAndPaste
from calibration.synthesis.inputs import BackgroundModel, Cutouts, Distribution, NoiseModel
from calibration.synthesis.layout import Layout
from calibration.synthesis.rendered_source import Rendered
from calibration.synthesis.scene import Particles, Scene
from calibration.synthesis.sources import Source

__all__ = [
    "BackgroundModel",
    "CutAndPaste",
    "Cutouts",
    "Distribution",
    "Layout",
    "NoiseModel",
    "Particles",
    "Rendered",
    "Scene",
    "Source",
]
