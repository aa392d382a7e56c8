"""Objects of a DeepTrack pipeline behind the real core: where the world has them, and as DeepTrack draws them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

dt = pytest.importorskip("deeptrack", reason="deeptrack is not installed")

import liveptv  # noqa: E402
from acquisition.microscope.microscope import Microscope  # noqa: E402
from acquisition.settings import MicroscopeSettings  # noqa: E402
from acquisition.simulated.stepping import SteppedStream  # noqa: E402
from calibration.deeptrack.errors import PipelineError  # noqa: E402
from calibration.deeptrack.grey_values import gain_for  # noqa: E402
from calibration.deeptrack.labels import Term  # noqa: E402
from calibration.deeptrack.loading import load_pipeline  # noqa: E402
from calibration.deeptrack.objects import PipelineObjects  # noqa: E402
from calibration.deeptrack.recording import Recorder  # noqa: E402
from calibration.deeptrack.survey import property_of  # noqa: E402
from stream.errors import ConfigurationError, SourceError  # noqa: E402

HEAD = "import numpy as np, deeptrack as dt\n"
FLUORESCENCE = (
    "optics = dt.Fluorescence(NA=0.8, wavelength=600e-9, resolution=1e-6, magnification=5, upscale={upscale}, "
    "output_region=(0, 0, 48, 64))\n"
)
BEADS = (
    HEAD + FLUORESCENCE + "bead = dt.Sphere(position=lambda: np.random.uniform(8, 40, 2), "
    "z=lambda: np.random.uniform(-3, 3), radius=lambda: np.random.uniform(4e-7, 8e-7), intensity=100)\n"
    "pipeline = optics(bead ^ 3)\n"
)
HOLOGRAM = (
    HEAD + "optics = dt.Brightfield(NA=1.0, wavelength=633e-9, resolution=1e-6, magnification=10, "
    "output_region=(0, 0, 48, 64))\n"
    "bead = dt.MieSphere(position=lambda: np.random.uniform(8, 40, 2), z=lambda: np.random.uniform(-30, 30), "
    "radius=lambda: np.random.uniform(2e-7, 5e-7), refractive_index=lambda: np.random.uniform(1.42, 1.6))\n"
    "pipeline = optics(bead ^ 3)\n"
)
WHITE = (
    HEAD + "light = [dt.Brightfield(NA=0.9, wavelength=w, resolution=1e-6, magnification=10, "
    "output_region=(0, 0, 48, 64)) for w in (4e-7, 6e-7)]\n"
    "bead = dt.{bead}(position=lambda: np.random.uniform(8, 40, 2), z=lambda: np.random.uniform(-8, 8), "
    "radius=lambda: np.random.uniform(2e-7, 5e-7), refractive_index=1.45)\n"
    "sample = bead ^ 3\n"
    "pipeline = sum([each(sample) for each in light]) >> dt.Multiply(0.5)\n"
)
WHITE_VOLUMES, WHITE_FIELDS = (WHITE.replace("{bead}", bead) for bead in ("Sphere", "MieSphere"))
TWO_KINDS = (
    HEAD + FLUORESCENCE + "bead = dt.Sphere(position=lambda: np.random.uniform(8, 40, 2), radius=5e-7)\n"
    "rod = dt.Ellipsoid(position=lambda: np.random.uniform(8, 40, 2), radius=(1e-6, 3e-7, 3e-7), "
    "rotation=lambda: np.random.uniform(0, np.pi))\n"
    "pipeline = optics((bead ^ 3) & (rod ^ 1))\n"
)
CELL = (
    HEAD + FLUORESCENCE + "core = dt.Sphere(position=lambda: np.random.uniform(8, 40, 2), radius=4e-7)\n"
    "shell = dt.Sphere(position=core.position, radius=lambda: np.random.uniform(8e-7, 1e-6))\n"
    "pipeline = optics((core & shell) ^ 2)\n"
)


def written(folder: Path, text: str, upscale: int = 1) -> str:
    path = folder / "pipeline.py"
    path.write_text(text.replace("{upscale}", str(upscale)))
    return str(path)


@pytest.mark.parametrize(
    ("text", "upscale"),
    [(BEADS, 1), (BEADS, 2), (HOLOGRAM, 1), (CELL, 1), (WHITE_VOLUMES, 1), (WHITE_FIELDS, 1)],
    ids=["beads", "fine", "hologram", "cell", "two wavelengths", "holograms at two wavelengths"],
)
def test_objects_put_where_the_pipeline_had_them_give_the_pipelines_own_image(tmp_path, text, upscale):
    objects = PipelineObjects(written(tmp_path, text, upscale), 3)
    drawn = objects._waiting[: {CELL: 2}.get(text, 3)]
    objects._own = dict(enumerate(drawn))
    places = [each.parts[0][0].properties for each in drawn]
    row, column = np.array([np.ravel(p["position"])[:2] for p in places], float).T
    depth = np.array([float(p.get("z", 0.0)) for p in places])
    pixel = objects.pixel_size_um
    for _ in range(2):  # nothing piles up from frame to frame
        again = objects.draw(np.arange(len(drawn)), column * pixel, row * pixel, depth * pixel)
        np.testing.assert_allclose(
            again, objects.first_image, rtol=1e-9, atol=1e-9 * objects.first_image.max()
        )


def test_an_object_is_seen_where_the_world_has_it(tmp_path):
    objects = PipelineObjects(written(tmp_path, BEADS), 0)
    pixel = objects.pixel_size_um
    for x, y in ((30.25, 20.5), (12.7, 33.1)):
        image = objects.draw(np.array([5]), np.array([x * pixel]), np.array([y * pixel]), np.zeros(1))
        rows, columns = np.indices(image.shape)
        weight = image**2  # so that the halo, which the image cuts off, does not count
        assert (weight * columns).sum() / weight.sum() == pytest.approx(x, abs=0.1)
        assert (weight * rows).sum() / weight.sum() == pytest.approx(y, abs=0.1)


def test_a_particle_keeps_its_object_and_a_new_one_gets_its_own(tmp_path):
    objects = PipelineObjects(written(tmp_path, BEADS), 0)
    first = objects.properties(np.arange(8))["radius_um"]
    assert ((first > 0.4) & (first < 0.8)).all()
    assert len(set(first)) == 8
    np.testing.assert_array_equal(objects.properties(np.arange(8)[::-1])["radius_um"], first[::-1])
    objects.keep(np.array([0]))
    assert objects.properties(np.array([0, 1]))["radius_um"][0] == first[0]
    assert objects.properties(np.array([1]))["radius_um"][0] not in first


def test_kinds_come_in_the_shares_of_the_pipeline(tmp_path):
    objects = PipelineObjects(written(tmp_path, TWO_KINDS), 0)
    kind = objects.properties(np.arange(40))["kind"]
    assert objects.kinds == ("bead", "rod")
    assert kind.mean() == pytest.approx(0.25)


def test_what_describes_an_object_has_the_name_that_a_network_gives_it(tmp_path):
    path = written(tmp_path, TWO_KINDS)
    recorder = Recorder(load_pipeline(Path(path)))
    learnt = {property_of(recorder, term)[0] for term in (Term("rotation", 0), Term("radius", 0))}
    assert learnt == {"rotation_0_rad", "radius_0_um"}
    assert learnt <= set(PipelineObjects(path, 0).names)


def test_an_image_without_objects_is_the_background(tmp_path):
    for text in (BEADS, HOLOGRAM):
        objects = PipelineObjects(written(tmp_path, text), 0)
        none = np.empty(0)
        image = objects.draw(np.empty(0, np.int64), none, none, none)
        assert np.ptp(image) < 1e-6


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("pipeline = optics(bead ^ 3) >> dt.FlipLR()", "moves pixels"),
        ("pipeline = optics(bead ^ 3) >> dt.Lambda(lambda: lambda image: image[:24])", "changes the size"),
        ("pipeline = optics(bead ^ 3) + optics2(bead ^ 3)\n", "several samples"),
        (
            "pipeline = optics((bead ^ 3) >> dt.Lambda(lambda: lambda s: s.__class__(s.array * 2, s.properties)))",
            "changes its objects",
        ),
    ],
    ids=["flip", "smaller", "two samples", "changed objects"],
)
def test_a_pipeline_that_cannot_be_drawn_at_given_places_is_refused(tmp_path, change, why):
    text = (
        BEADS.rsplit("pipeline", 1)[0] + "optics2 = dt.Fluorescence(output_region=(0, 0, 48, 64))\n" + change
    )
    with pytest.raises(PipelineError, match=why):
        PipelineObjects(written(tmp_path, text), 0)


def test_an_error_in_the_users_file_names_its_line(tmp_path):
    text = BEADS.replace("np.random.uniform(4e-7, 8e-7)", "1 / 0")
    with pytest.raises(PipelineError, match=r"pipeline.py, line 3: ZeroDivisionError"):
        PipelineObjects(written(tmp_path, text), 0)


def microscope(pipeline: str, **properties: object) -> Microscope:
    given = {"Camera.RealTime": 0, "Camera.Pipeline": pipeline, **properties}
    return Microscope(MicroscopeSettings(config="pipeline", properties=given))


def test_the_real_core_takes_images_of_a_pipelines_objects_and_the_truth_says_what_they_are(tmp_path):
    scope = microscope(written(tmp_path, BEADS), **{"Camera.TruthFile": str(tmp_path / "truth.csv")})
    try:
        stream = SteppedStream(scope, run_id="run")
        images = [stream.read() for _ in range(2)]
        assert images[0].image.shape == (48, 64)
        assert images[0].image.dtype == np.uint16
        assert images[0].info.pixel_size_um == pytest.approx(0.2)
        assert images[0].image.max() > 20_000
        assert (images[0].image != images[1].image).any()
        scope.core.startSequenceAcquisition(3, 0, True)
        while scope.core.isSequenceRunning():
            pass
    finally:
        scope.close()
    with (tmp_path / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["frame"] for row in rows} == {"0", "1", "2"}
    of_particle: dict[str, set[str]] = {}
    for row in rows:
        assert 0.4 <= float(row["radius_um"]) <= 0.8
        of_particle.setdefault(row["particle"], set()).add(row["radius_um"])
    assert all(len(values) == 1 for values in of_particle.values())


def test_an_image_without_particles_does_not_change_what_they_are_and_a_bad_pipeline_changes_nothing(
    tmp_path,
):
    scope = microscope(written(tmp_path, BEADS), **{"Camera.Diffusion_um2_s": 0})
    try:
        stream = SteppedStream(scope, run_id="run")
        first = stream.read().image
        scope.core.setProperty("Camera", "Particles", 0)
        assert stream.read().image.max() < first.max() / 10
        scope.core.setProperty("Camera", "Particles", 1)
        with pytest.raises(Exception, match="no file missing"):
            scope.core.setProperty("Camera", "Pipeline", "missing.py")
        np.testing.assert_array_equal(stream.read().image, first)
        assert scope.core.getProperty("Camera", "Pipeline") == str(tmp_path / "pipeline.py")
    finally:
        scope.close()


def test_without_a_pipeline_the_camera_says_what_to_set():
    scope = microscope("")
    try:
        with pytest.raises(SourceError, match=r'Pipeline to "pipeline.py"'):
            SteppedStream(scope, run_id="run").read()
    finally:
        scope.close()


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(SourceError, match=r"no file missing.py"):
        microscope("missing.py")


def test_recordings_of_a_pipelines_objects_are_simulated_at_known_positions(tmp_path):
    positions = pd.DataFrame(
        {
            "frame": [0, 0, 2], "particle": [7, 9, 7], "x_um": [4.0, 8.0, 6.0], "y_um": [4.0, 5.0, 4.0],
            "z_um": 0.0,
        }
    )  # fmt: skip
    images, objects = liveptv.simulate_objects(positions, written(tmp_path, BEADS), seed=2)
    assert images.shape == (3, 48, 64)
    assert images.dtype == np.uint16
    assert images[1].max() < 0.01 * images[0].max()
    radius = objects.set_index(["frame", "particle"])["radius_um"]
    assert radius[0, 7] == radius[2, 7] != radius[0, 9]
    again, _ = liveptv.simulate_objects(positions, written(tmp_path, BEADS), seed=2)
    np.testing.assert_array_equal(images, again)
    with pytest.raises(ConfigurationError, match="particle"):
        liveptv.simulate_objects(positions.drop(columns="particle"), written(tmp_path, BEADS))


def test_the_gain_leaves_room_above_and_below():
    dark = np.full((8, 8), 0.01)
    dark[4, 4] = 50.0
    assert gain_for(dark, 0.0, 65535.0) * 50.0 == pytest.approx(0.9 * 65535)
    assert gain_for(np.ones((8, 8)), 0.0, 255.0) == pytest.approx(127.5)
