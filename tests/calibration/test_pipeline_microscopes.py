"""Microscopes of a DeepTrack pipeline that share a sample, and when their images may be turned or mirrored."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    deeptrack = pytest.importorskip("deeptrack")

from beads_pipeline import BEADS, recorder_of  # noqa: E402

from calibration.deeptrack.recording import Symmetry  # noqa: E402

WHITE_LIGHT = """
sphere = dt.Sphere(
    position=lambda: 48 * np.random.rand(2), radius=3e-7, refractive_index=1.45 + 0.02j,
    position_unit="pixel",
)
sample = sphere ^ 2
LIGHT
seen = [
    dt.Brightfield(
        wavelength=wavelength, NA=0.8, resolution=1e-6, magnification=10, illumination=light,
        output_region=(0, 0, 48, 48),
    )(sample)
    for wavelength in (4e-7, 6e-7)
]
pipeline = sum(seen) >> dt.Gaussian(sigma=0.05)
"""
UNEVEN = "light = dt.IlluminationGradient(gradient=lambda: np.random.randn(2) * 0.01)"
ASLANT = "light = dt.Lambda(lambda: lambda field: field * np.exp(0.1j * np.arange(field.shape[1])))"


def test_microscopes_that_share_a_sample_draw_it_once_for_each_image(tmp_path):
    text = "import deeptrack as dt\nimport numpy as np\n" + WHITE_LIGHT.replace("LIGHT\n", UNEVEN + "\n", 1)
    recorder = recorder_of(tmp_path, text)
    drawn = []
    for microscope in recorder.microscopes:
        work = microscope._process_and_get
        microscope._process_and_get = lambda *given, work=work, **named: (
            drawn.append(1) or work(*given, **named)
        )
    image = recorder.draw(3)
    assert len(drawn) == 2
    assert len(image.seen) == 2
    seen = sum(np.squeeze(np.asarray(view)) for view in image.views)
    noise = image.image - seen
    assert noise.std() == pytest.approx(0.05, rel=0.1)
    assert abs(noise.mean()) < 0.01
    again = recorder.draw_again(image, 4)
    assert len(drawn) == 2
    assert (again.image - seen).std() == pytest.approx(0.05, rel=0.1)


def test_uneven_light_may_be_turned_with_the_sample_and_light_from_aside_may_not(tmp_path):
    for light, symmetry in ((UNEVEN, Symmetry.ALL), (ASLANT, Symmetry.NONE)):
        text = "import deeptrack as dt\nimport numpy as np\n" + WHITE_LIGHT.replace(
            "LIGHT\n", light + "\n", 1
        )
        recorder = recorder_of(tmp_path, text)
        recorder.draw(1)
        assert recorder.symmetry is symmetry


def test_an_aberration_forbids_to_turn_images(tmp_path):
    plain = recorder_of(tmp_path, BEADS + "pipeline = optics(bead)")
    assert plain.symmetry is Symmetry.ALL
    coma = BEADS.replace("NA=0.8,", "NA=0.8, pupil=dt.HorizontalComa(coefficient=1),")
    assert recorder_of(tmp_path, coma + "pipeline = optics(bead)").symmetry is Symmetry.NONE
