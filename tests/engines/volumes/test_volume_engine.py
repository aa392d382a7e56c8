"""The engine for volumes finds what is drawn, in its place, and refuses what it cannot read."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.volume_scene import Scene, Volume, draw
from engines.engine import DetectionError
from engines.factory import is_for_volumes, open_engine
from engines.settings import DetectorSettings
from engines.volumes.layout import GROUP, KIND, KIND_ATTRIBUTE, NOISE, PSF
from engines.volumes.model import load_volume_model
from engines.volumes.psf import VolumePsf
from engines.volumes.slice_times import times_of
from stream.errors import ConfigurationError
from stream.messages import DetectionFlag, Detections, Frame, FrameInfo
from stream.volume_info import VolumeInfo

PIXEL_UM, STEP_UM = 0.1, 0.3
SHAPE = (10, 96, 96)
SPOT_UM = (0.13, 0.13, 0.39)


def _frame(image: np.ndarray, number: int = 0, **volume) -> Frame:
    info = FrameInfo(
        run_id="test",
        frame=number,
        camera_frame=number,
        time_s=float(number),
        monotonic_ns=0,
        wall_s=0.0,
        pixel_size_um=PIXEL_UM,
        volume=VolumeInfo(tuple(STEP_UM * k for k in range(len(image))), **volume),
    )
    return Frame(info, image)


def _detect(
    images, model: Path | None = None, say=lambda _text: None, frames=None, **settings
) -> list[Detections]:
    engine = open_engine(
        DetectorSettings(workers=2, **settings), model=model, pixel_size_um=PIXEL_UM, say=say, volumes=True
    )
    found = []
    try:
        for frame in frames or [_frame(image, number) for number, image in enumerate(images)]:
            engine.submit(frame)
            found += engine.results(0.0)
        while engine.pending:
            found += engine.results(30.0)
    finally:
        engine.close()
    return found


def _errors(found: Detections, volume: Volume) -> np.ndarray:
    """Distance in voxels (z, y, x) of each true particle to the nearest found one."""
    places = np.stack([found.z_um / STEP_UM, found.y_um / PIXEL_UM, found.x_um / PIXEL_UM], axis=1)
    return np.array([places[np.argmin(((places - t) ** 2).sum(axis=1))] - t for t in volume.truth])


@pytest.fixture(scope="module")
def volumes() -> list[Volume]:
    return [draw(Scene(7, 12, seed, shape=SHAPE, background=50)) for seed in range(3)]


def test_particles_are_found_between_the_voxels_in_the_order_of_the_volumes(volumes):
    found = _detect([v.image for v in volumes], spot_um=SPOT_UM)
    assert [d.info.frame for d in found] == [0, 1, 2]
    for detections, volume in zip(found, volumes, strict=True):
        errors = _errors(detections, volume)
        near = np.abs(errors).max(axis=1) < 1
        assert near.mean() > 0.8  # two of a pair may be one
        assert np.sqrt((errors[near] ** 2).mean()) < 0.2
        assert len(detections) <= len(volume.truth)
        assert (detections.confidence > 0.9).all()
        assert np.isfinite(detections.sigma_z_um).all()
        assert np.isfinite(detections.chi_square).all()


def test_without_a_size_it_is_estimated_and_said(volumes):
    said: list[str] = []
    found = _detect([volumes[0].image], say=said.append)
    assert len(found[0]) >= 9
    (line,) = (text for text in said if "detector.spot_um" in text)
    sizes = [float(part) for part in line.split("[")[1].split("]")[0].split(",")]
    np.testing.assert_allclose(sizes, SPOT_UM, rtol=0.15)


def test_volumes_of_noise_give_nothing_and_are_counted_while_the_size_is_not_known():
    rng = np.random.default_rng(0)
    engine = open_engine(DetectorSettings(workers=1), model=None, pixel_size_um=PIXEL_UM, volumes=True)
    engine.submit(_frame(rng.poisson(20, SHAPE).astype(np.uint8)))
    (found,) = engine.results(400.0)
    assert len(found) == 0
    assert engine.counts()["no_size"] == 1
    engine.close()


def test_missing_slices_are_not_used_and_particles_keep_their_heights(volumes):
    image = volumes[0].image.copy()
    image[4] = 0
    (found,) = _detect([], frames=[_frame(image, missing=(4,))], spot_um=SPOT_UM)
    errors = _errors(found, volumes[0])
    assert (np.abs(errors).max(axis=1) < 1).mean() > 0.8
    (as_image,) = _detect([], frames=[_frame(image)], spot_um=SPOT_UM)
    assert np.abs(_errors(as_image, volumes[0])).sum() > np.abs(errors).sum()


def test_particles_at_an_end_of_the_stack_are_marked_and_less_certain():
    light = np.full(SHAPE, 50.0)
    for z, y in ((0.0, 30), (5.0, 60)):
        k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
        light += 400 * np.exp(-((k - z) ** 2 + (j - y) ** 2 + (i - 48) ** 2) / 3.38)
    (found,) = _detect([np.random.default_rng(1).poisson(light).astype(np.uint16)], spot_um=SPOT_UM)
    order = np.argsort(found.z_um)
    assert len(found) == 2
    flags = found.flags[order].astype(int)
    assert flags[0] & DetectionFlag.AT_END
    assert not flags[1] & DetectionFlag.AT_END
    assert found.sigma_z_um[order[0]] > 1.3 * found.sigma_z_um[order[1]]


def test_a_particle_has_the_time_of_its_slices(volumes):
    times = tuple(0.01 * k for k in range(SHAPE[0]))
    (found,) = _detect([], frames=[_frame(volumes[0].image, time_s=times)], spot_um=SPOT_UM)
    inner = (found.z_um > 4 * STEP_UM) & (found.z_um < 5.5 * STEP_UM)
    np.testing.assert_allclose(found.time_offset_s[inner], 0.01 * found.z_um[inner] / STEP_UM, atol=0.004)


def test_the_time_of_a_particle_beside_missing_slices_is_that_of_the_others():
    heights, times = np.arange(4.0), np.array([0.0, 1.0, 2.0, 3.0])
    at = times_of(np.array([1.0]), heights, times, np.array([False, True, False, True]), 0.5)
    assert at[0] == pytest.approx(1.0)
    none = times_of(np.array([1.0]), heights, times, np.ones(4, bool), 0.5)
    assert np.isnan(none[0])


def test_one_slice_has_no_height():
    image = draw(Scene(7, 5, 2, shape=(1, 96, 96), background=50)).image
    (found,) = _detect([image], spot_um=SPOT_UM)
    assert np.isnan(found.z_um).all()


def test_sef3d_gives_whole_voxels(volumes):
    (found,) = _detect([volumes[1].image], engine="sef3d", spot_um=SPOT_UM)
    assert len(found) >= 9
    np.testing.assert_allclose(found.z_um / STEP_UM, np.rint(found.z_um / STEP_UM), atol=1e-6)
    assert np.isnan(found.sigma_x_um).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_saturated_and_empty_volumes_are_read(dtype):
    image = np.full(SHAPE, 10, dtype)
    bright = image.copy()
    bright[4:7, 40:46, 40:46] = np.iinfo(dtype).max
    for frame in (np.zeros(SHAPE, dtype), image, bright):
        (found,) = _detect([frame], spot_um=SPOT_UM)
        assert np.isfinite(found.x_um).all()


def test_images_and_volumes_without_heights_are_refused(volumes):
    engine = open_engine(DetectorSettings(), model=None, pixel_size_um=PIXEL_UM, volumes=True)
    frame = _frame(volumes[0].image)
    with pytest.raises(DetectionError, match="use a source of volumes"):
        engine.submit(Frame(frame.info, volumes[0].image[0]))
    unknown = FrameInfo("r", 0, 0, 0.0, 0, 0.0)
    with pytest.raises(DetectionError, match="--z-step"):
        engine.submit(Frame(unknown, volumes[0].image))
    engine.close()
    for_images = open_engine(DetectorSettings(), model=None, pixel_size_um=PIXEL_UM)
    with pytest.raises(DetectionError, match="use a source of images"):
        for_images.submit(frame)
    with pytest.raises(DetectionError, match="volumes of 10 slices"):
        for_images.warmup(64, 64, np.dtype(np.uint8), 10)
    for_images.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "network"}, "give a model"),
        ({"engine": "classical"}, "reads images"),
    ],
)
def test_settings_that_volumes_do_not_have_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        open_engine(DetectorSettings(**settings), model=None, pixel_size_um=PIXEL_UM, volumes=True)


def test_a_calibration_is_not_for_dark_particles(tmp_path):
    with pytest.raises(ConfigurationError, match="invert the images"):
        open_engine(
            DetectorSettings(polarity="dark"),
            model=_calibration(tmp_path / "beads.h5"),
            pixel_size_um=PIXEL_UM,
            volumes=True,
        )


def test_settings_for_volumes_are_refused_for_images():
    settings = DetectorSettings(spot_um=SPOT_UM)
    assert is_for_volumes(settings)
    with pytest.raises(ConfigurationError, match="for volumes"):
        open_engine(settings, model=None, pixel_size_um=PIXEL_UM)


def _calibration(path: Path, **noise: float) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs[KIND_ATTRIBUTE] = KIND
        group = file.create_group(GROUP)
        VolumePsf.gaussian(*SPOT_UM, (STEP_UM, PIXEL_UM, PIXEL_UM)).save(group.create_group(PSF))
        for name in NOISE:
            group.attrs[name] = noise.get(name, 1.0 if name == "gain" else 0.0)
    return path


def test_a_calibration_gives_size_and_noise(tmp_path, volumes):
    path = _calibration(tmp_path / "beads.h5")
    model = load_volume_model(path)
    assert model.pixel_size_um == PIXEL_UM
    assert is_for_volumes(DetectorSettings(model=path))
    (found,) = _detect([volumes[0].image], model=path)
    assert len(found) >= 9
    with pytest.raises(ConfigurationError, match="for volumes"):
        open_engine(DetectorSettings(model=path), model=path, pixel_size_um=PIXEL_UM)


def test_damaged_calibrations_are_refused_in_one_line(tmp_path):
    wrong = _calibration(tmp_path / "noise.h5", gain=-1.0)
    with pytest.raises(ConfigurationError, match="gain"):
        load_volume_model(wrong)
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file.attrs[KIND_ATTRIBUTE] = KIND
    with pytest.raises(ConfigurationError, match="no PSF"):
        load_volume_model(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ConfigurationError, match="calibrate again"):
        load_volume_model(tmp_path / "text.h5")
