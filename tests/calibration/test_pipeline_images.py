"""Images of DeepTrack's pipelines are read with the truth about what is in them, and a network learns from them."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import LivePTVError

pytestmark = pytest.mark.filterwarnings("ignore")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    deeptrack = pytest.importorskip("deeptrack")

from beads_pipeline import BEADS, recorder_of  # noqa: E402

from calibration.deeptrack.errors import PipelineError  # noqa: E402
from calibration.deeptrack.labels import Term, objects_of  # noqa: E402
from calibration.deeptrack.loading import load_pipeline, split_name  # noqa: E402
from calibration.deeptrack.material import from_pipeline  # noqa: E402
from calibration.deeptrack.recording import Recorder, Symmetry  # noqa: E402
from calibration.deeptrack.source import PipelineSource  # noqa: E402
from calibration.deeptrack.survey import survey  # noqa: E402


def centroid(image):
    weight = np.clip(image - np.median(image), 0, None)
    weight[weight < 0.3 * weight.max()] = 0
    rows, columns = np.indices(image.shape)
    return (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()


@pytest.mark.parametrize(
    "after",
    [
        "",
        ">> dt.Add(3.0) >> dt.Gaussian(sigma=0.01)",
        ">> dt.FlipLR(p=1.0)",
        ">> dt.FlipUD(p=1.0) >> dt.Gaussian(sigma=0.01)",
        ">> dt.FlipDiagonal(p=1.0) >> dt.FlipLR()",
        ">> dt.Affine(translate=lambda: np.random.uniform(-3, 3, 2), rotate=lambda: np.random.uniform(-0.5, 0.5))",
        ">> dt.Crop(crop=(40, 44, 1), crop_mode='retain', corner=(2, 3, 0))",
        ">> dt.AveragePooling((2, 2))",
        ">> dt.Lambda(lambda: lambda image: image[4:40, 6:44])",
        "& bead.position",
    ],
)
def test_an_object_is_where_the_image_shows_it_whatever_follows_the_microscope(tmp_path, after):
    recorder = recorder_of(tmp_path, BEADS + f"pipeline = optics(bead) {after}")
    for seed in range(4):
        drawn = recorder.draw(seed)
        found = objects_of(drawn, [])
        x, y = centroid(drawn.image)
        assert found.x_px == pytest.approx([x], abs=0.3)
        assert found.y_px == pytest.approx([y], abs=0.3)


@settings(max_examples=15, deadline=None)
@given(
    places=st.lists(
        st.tuples(st.floats(-5, 60), st.floats(-5, 60), st.floats(-10, 10)),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    radius_nm=st.integers(200, 600),
    first=st.integers(0, 20),
)
def test_positions_and_properties_are_read_as_they_were_given(places, radius_nm, first):
    spheres = [
        deeptrack.Sphere(position=place, radius=1e-9 * radius_nm, intensity=5.0, mass=n)
        for n, place in enumerate(places)
    ]
    optics = deeptrack.Fluorescence(
        resolution=2e-6, magnification=10, output_region=(first, 0, first + 48, 48)
    )
    sample = spheres[0]
    for sphere in spheres[1:]:
        sample = sample >> sphere
    recorder = Recorder(_loaded(optics(sample)))
    found = objects_of(recorder.draw(0), [Term.of("radius"), Term.of("mass")])
    order = np.argsort(found.values[:, 1])
    given_places = np.array(places)
    np.testing.assert_allclose(found.y_px[order], given_places[:, 0] - first, atol=1e-9)
    np.testing.assert_allclose(found.x_px[order], given_places[:, 1], atol=1e-9)
    np.testing.assert_allclose(found.z_um[order], 0.2 * given_places[:, 2], atol=1e-9)
    np.testing.assert_allclose(found.values[:, 0], 1e-9 * radius_nm)


def _loaded(feature):
    from pathlib import Path

    from calibration.deeptrack.loading import Loaded

    return Loaded(Path("here.py"), "pipeline", feature, {}, None, {}, None)


def test_images_without_any_object_are_images_too(tmp_path):
    text = BEADS + (
        "pipeline = optics(bead ^ (lambda: np.random.randint(0, 2))) >> dt.Add(0.2) >> dt.Gaussian(sigma=0.05)"
    )
    recorder = recorder_of(tmp_path, text)
    units = survey(recorder, images=16)
    assert units.pixel_size_um == pytest.approx(0.2)
    drawn = [recorder.draw(seed) for seed in range(8)]
    counts = {len(objects_of(each, []).x_px) for each in drawn}
    assert counts == {0, 1}
    assert {each.image.shape for each in drawn} == {(48, 48)}
    scene = PipelineSource(recorder, units).draw(np.random.default_rng(0), (64, 64), 4)
    assert np.isfinite(scene.images).all()


def test_a_pipeline_that_never_has_an_object_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="show nothing"):
        survey(recorder_of(tmp_path, BEADS + "pipeline = optics(bead ^ 0) >> dt.Add(1.0)"), images=4)


def test_a_core_in_a_shell_is_one_object_and_repeated_ones_are_each_their_own(tmp_path):
    text = BEADS + (
        "shell = dt.Sphere(position=bead.position, radius=1e-6, intensity=1.0, thickness=3)\n"
        "pipeline = optics((bead >> shell) ^ 3)\n"
    )
    found = objects_of(recorder_of(tmp_path, text).draw(1), [Term.of("radius"), Term.of("thickness")])
    assert found.x_px.size == 3
    assert (found.values[:, 0] < 0.8e-6).all()
    assert (found.values[:, 1] == 3).all()


def test_the_same_seed_gives_the_same_image_and_noise_can_be_drawn_anew(tmp_path):
    recorder = recorder_of(
        tmp_path, BEADS + "pipeline = optics(bead ^ 2) >> dt.FlipLR() >> dt.Gaussian(sigma=0.05)"
    )
    first, second, other = recorder.draw(5), recorder.draw(5), recorder.draw(6)
    np.testing.assert_array_equal(first.image, second.image)
    assert not np.array_equal(first.image, other.image)
    assert recorder.is_separable
    again = [recorder.draw_again(first, seed) for seed in range(6)]
    assert not np.array_equal(again[0].image, again[1].image)
    mirrored = [objects_of(each, []).x_px[0] > 24 for each in again]
    assert any(mirrored)
    assert not all(mirrored)
    for each in again:
        here, there = objects_of(each, []), objects_of(first, [])
        assert here.y_px == pytest.approx(there.y_px)
        assert np.abs(here.x_px - 23.5) == pytest.approx(np.abs(there.x_px - 23.5))


def test_what_depends_on_the_objects_is_not_drawn_anew_alone(tmp_path):
    text = BEADS + "pipeline = optics(bead) >> dt.Gaussian(sigma=lambda: 0.01) >> dt.Add(b=bead.intensity)"
    assert not recorder_of(tmp_path, text).is_separable


def test_units_and_ranges_are_found_and_kinds_have_the_names_of_their_variables(tmp_path):
    text = BEADS + (
        "rod = dt.Ellipse(position=lambda: 48 * np.random.rand(2), radius=(1.5e-6, 4e-7), intensity=9,\n"
        "    rotation=lambda: np.pi * np.random.rand())\n"
        "pipeline = optics((bead ^ 1) & (rod ^ 1)) >> dt.Add(0.2) >> dt.Gaussian(sigma=0.05)\n"
    )
    units = survey(recorder_of(tmp_path, text), ["radius[0]", "rotation"], images=30)
    assert units.kind_names == ("bead", "rod")
    assert units.pixel_size_um == pytest.approx(0.2)
    assert not units.depth
    assert units.normalisation == "noise"
    radius, rotation = units.properties
    assert radius.name == "radius_0_um"
    assert radius.low < 0.35
    assert radius.high > 1.45
    assert (rotation.name, rotation.period, rotation.of_kinds) == (
        "rotation_rad",
        pytest.approx(math.pi),
        (1,),
    )
    assert units.symmetry is Symmetry.NONE


def test_crops_show_objects_everywhere_and_each_has_its_label(tmp_path):
    text = BEADS.replace("8 + 32 * np.random.rand(2)", "24 + 2 * np.random.rand(2)")
    recorder = recorder_of(
        tmp_path, text + "pipeline = optics(bead) >> dt.Add(0.2) >> dt.Gaussian(sigma=0.03)"
    )
    units = survey(recorder, ["radius"], images=12)
    scene = PipelineSource(recorder, units).draw(np.random.default_rng(0), (128, 128), 4)
    particles = scene.particles
    assert scene.images.shape == (4, 128, 128)
    assert 4 * 4 <= len(particles) <= 4 * 16
    assert np.ptp(particles.x_px % 48) > 30
    columns, rows = np.rint(particles.x_px).astype(int), np.rint(particles.y_px).astype(int)
    assert np.median(scene.images[particles.frame, rows, columns]) > 5 * np.median(np.abs(scene.images))
    assert ((particles.more > 0.3) & (particles.more < 0.7)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_like_it", "line 1"),
        (BEADS, "must have one DeepTrack pipeline that makes images .found: none."),
        (BEADS + "a = optics(bead)\nb = optics(bead ^ 2)", "found: a, b"),
        (
            BEADS + "pipeline = optics(bead) >> dt.Lambda(lambda: lambda image: image / undefined)",
            r"beads.py, line 10",
        ),
        (BEADS + "pipeline = optics(bead) >> dt.Lambda(lambda: lambda image: image * np.nan)", "not finite"),
        (BEADS + "pixel_size_um = 'small'\npipeline = optics(bead)", "pixel_size_um"),
        (
            BEADS.replace("8 + 32", "200 + 32") + "pipeline = optics(bead) >> dt.Gaussian(0.1)",
            "none of the objects",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, message):
    with pytest.raises(LivePTVError, match=message):
        survey(recorder_of(tmp_path, text), images=3)


@pytest.mark.parametrize(
    ("learn", "message"),
    [
        ("colour", "no object .* has a number 'colour'; there is .*intensity.*radius"),
        ("value", "nothing to learn"),
        ("2 radius", "name properties"),
    ],
)
def test_a_property_that_cannot_be_learnt_is_refused(tmp_path, learn, message):
    recorder = recorder_of(tmp_path, BEADS + "pipeline = optics(bead) >> dt.Gaussian(sigma=0.1)")
    with pytest.raises(PipelineError, match=message):
        survey(recorder, [learn], images=4)


def test_an_image_of_another_size_after_many_is_refused_not_cropped(tmp_path):
    text = BEADS + "import itertools\nnumber = itertools.count()\npipeline = optics(bead) >> dt.Lambda(\n"
    text += "    lambda: lambda image: image if next(number) < 30 else image[:40])\n"
    recorder = recorder_of(tmp_path, text)
    units = survey(recorder, images=10)
    source = PipelineSource(recorder, units)
    with pytest.raises(PipelineError, match="differ in size"):
        _draw_many(source, 640)


def _draw_many(source, crops):
    rng = np.random.default_rng(0)
    for _ in range(crops // 16):
        source.draw(rng, (32, 32), 16)


def test_a_crop_need_not_have_an_object(tmp_path):
    units = survey(recorder_of(tmp_path, BEADS + "pipeline = optics(bead)"), images=10)
    recorder = recorder_of(tmp_path, BEADS + "pipeline = optics(bead ^ 0) >> dt.Gaussian(sigma=0.05)")
    scene = PipelineSource(recorder, units, keeps=False).draw(np.random.default_rng(0), (64, 64), 4)
    assert len(scene.particles.x_px) == 0
    assert scene.images.shape == (4, 64, 64)


def test_an_angle_cannot_be_learnt_where_the_pipeline_turns_images(tmp_path):
    text = BEADS.replace("dt.Sphere(", "dt.Ellipse(rotation=lambda: np.random.rand(),") + (
        "pipeline = optics(bead) >> dt.FlipLR(p=1.0) >> dt.Gaussian(sigma=0.1)"
    )
    with pytest.raises(PipelineError, match="turns, mirrors or stretches"):
        survey(recorder_of(tmp_path, text), ["rotation"], images=4)


def test_a_name_is_told_from_the_colon_of_a_drive():
    assert [str(part) for part in split_name("folder/pipeline.py:dots")] == ["folder/pipeline.py", "dots"]
    assert split_name("pipeline.py")[1] == ""
    assert split_name("C:\\images\\pipeline.py")[1] == ""


def test_the_material_of_a_pipeline_can_be_made_again_from_its_recipe(tmp_path):
    import pickle

    path = tmp_path / "beads.py"
    path.write_text(
        BEADS + "pipeline = optics(bead) >> dt.Add(0.2) >> dt.Gaussian(sigma=0.05)", encoding="utf-8"
    )
    units, recipe = from_pipeline(path, learn=["radius"])
    material = pickle.loads(pickle.dumps(recipe))()
    assert material.properties == units.properties
    assert material.learnt == 1
    scenes = [each.scoring.draw(np.random.default_rng(1), (64, 64), 2) for each in (material, recipe())]
    np.testing.assert_array_equal(scenes[0].images, scenes[1].images)


def test_a_network_learns_places_and_a_property_and_says_how_sure_it_is(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from calibration.training.settings import TrainingSettings
    from engines.factory import open_engine
    from engines.settings import DetectorSettings
    from liveptv.workflows.train import PipelineOf, recipe_for, train_model
    from stream.messages import Detections, Frame, FrameInfo

    monkeypatch.setattr("liveptv.workflows.train.REPORTED_IMAGES", 16)
    monkeypatch.setattr("calibration.training.examination.HELD_OUT_IMAGES", 16)
    path, out = tmp_path / "beads.py", tmp_path / "beads.onnx"
    path.write_text(BEADS + "pipeline = optics(bead) >> dt.Gaussian(sigma=0.05)", encoding="utf-8")
    recipe, _ = recipe_for(None, None, PipelineOf(path, "", ("radius",)))
    quick = TrainingSettings(
        minutes=60.0, steps=60, batch=8, crop_px=64, average=0.9, score_every_s=1e4, learning_rate=8e-3
    )
    trained = train_model(out, recipe, "00" * 32, quick, lambda _progress: None)
    card = trained.card
    assert ([each.name for each in card.properties], card.depth, card.normalisation) == (
        ["radius_um"],
        False,
        "noise",
    )
    assert trained.scores.missed < 0.6
    assert trained.scores.properties[0].of_range < 0.4
    assert "radius_um" in trained.page.read_text(encoding="utf-8")
    recorder = Recorder(load_pipeline(path))
    images = [
        np.clip(np.rint(100 + 60 * recorder.draw(n).image), 0, 65535).astype(np.uint16) for n in range(8)
    ]
    engine = open_engine(DetectorSettings(min_confidence=0.1), model=out, pixel_size_um=card.pixel_size_um)
    engine.warmup(*images[0].shape, images[0].dtype)
    for n, grey in enumerate(images):
        engine.submit(Frame(FrameInfo("run", n, n, 0.0, 0, 0.0), grey))
    results: list[Detections] = []
    while len(results) < len(images):
        results += engine.results(60.0)
    engine.close()
    assert all(found.properties.names == ("radius_um",) for found in results)
    found = max(results, key=len)
    assert len(found) >= 1
    assert np.isnan(found.z_um).all()
    assert (found.properties.error("radius_um") > 0).all()
    assert not engine.info.depth
