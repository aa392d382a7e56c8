import subprocess
import sys
import threading
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from acquisition.physics.optics import OpticsModel, fine_images, shifted_images, spectrum_of
from calibration.psf_model import PsfModel
from engines.engine import EngineInfo
from engines.refine.misfit import Misfit
from engines.refine.rendering import BOX, SPARE_UM, set_box
from engines.selfcheck.checked_engine import CheckedEngine
from engines.selfcheck.directions import NAMES, SEPARATION, TURNED, WIDER_X, WIDER_Y, Directions
from engines.selfcheck.dust import LOOKS, DustCheck
from engines.selfcheck.gauges import DETAIL, gauges_of
from engines.selfcheck.images import FEWEST, ImageCheck
from engines.selfcheck.inspector import Inspector
from engines.selfcheck.light import FIRST_LOOKS, LATEST_LOOKS, LightCheck
from engines.selfcheck.scores import estimate, score
from stream.evidence import FALSE_ALARMS, is_sure, limit
from stream.messages import DetectionFlag, Detections, Frame, FrameInfo

OPTICS = OpticsModel(
    wavelengths_um=(0.53,),
    focal_line_separation_um=100.0,
    visible_um=110.0,
    range_um=130.0,
)
DEPTHS_UM = np.linspace(-OPTICS.visible_um, OPTICS.visible_um, 45)
NOISE = 0.01
SHAPE = (240, 240)
CENTRES = [(40 + 80 * (k % 3), 40 + 80 * (k // 3)) for k in range(9)]


@pytest.fixture(scope="module")
def model():
    images = shifted_images(spectrum_of(fine_images(OPTICS, DEPTHS_UM)), OPTICS, 0.0, 0.0)
    built = PsfModel.from_images(
        images,
        float(DEPTHS_UM[0]),
        float(DEPTHS_UM[1] - DEPTHS_UM[0]),
        pixel_size_um=OPTICS.pixel_size_um,
        polarity="dark",
    )
    return built.for_fit()


@pytest.fixture(scope="module")
def directions(model):
    return Directions(model)


def fitted(directions, frame, start):
    """Gauss-Newton from the truth, to the best fit of a wrong model."""
    theta, box = start.copy(), np.empty(BOX, np.int64)
    for _ in range(4):
        set_box(theta, frame.shape, directions.psf, SPARE_UM, box)
        own, _ = directions.of(theta, box)
        seen = frame[box[0] : box[1], box[2] : box[3]]
        rows = np.vstack([own.reshape(4, -1), np.ones(seen.size)])
        step = np.linalg.lstsq(rows.T, (seen - theta[3] * own[3]).ravel(), rcond=None)[0][:4]
        theta += np.clip(step, -6, 6)
        theta[2] = np.clip(theta[2], directions.model.z_min_um, directions.model.z_max_um)
    return theta


def judged(directions, changed=OPTICS, corner_px=0.0, frames=24, seed=0):
    """What is told, and the check, after frames of nine particles through optics that are not the model's."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    depths = DEPTHS_UM[4:-4]
    spectrum = spectrum_of(fine_images(changed, depths))
    check = ImageCheck(directions, SHAPE)
    told = []
    for _ in range(frames):
        frame = np.zeros(SHAPE)
        thetas = []
        for k, (x, y) in enumerate(CENTRES):
            one = int(rng.integers(len(depths)))
            dx, dy = rng.uniform(-0.5, 0.5, 2)
            image = shifted_images(spectrum[one : one + 1], changed, dx, dy)[0].astype(float)
            if k == 2 and corner_px:
                image = gaussian_filter(image, corner_px)
            half = image.shape[0] // 2
            frame[y - half : y + half + 1, x - half : x + half + 1] += image
            thetas.append([x + dx, y + dy, depths[one], 1.0])
        frame += rng.normal(0, NOISE, SHAPE)
        found = np.array([fitted(directions, frame, np.array(theta)) for theta in thetas])
        alone = check.alone(found)
        check.add(frame, found[alone], (0.0, NOISE**2), 9)
        told += check.judge()
    return told, check


def test_the_focal_planes_of_a_model_are_where_the_optics_have_them(directions):
    assert directions.separation_um == pytest.approx(OPTICS.focal_line_separation_um, rel=0.15)


def test_nothing_is_told_of_the_optics_that_were_calibrated(directions):
    told, check = judged(directions)
    assert not told
    assert np.abs(check.together.value / check.together.error).max() < 4
    chi = [c for c in check.facts()["chi_square_field"] if c is not None]
    assert chi == pytest.approx([1.0] * len(chi), abs=0.1)


def test_chi_squares_are_compared_with_those_of_the_calibration(model):
    depths_um = np.array([model.z_min_um, model.z_max_um])
    image = np.full((3, 3, 2), NOISE**2)
    image[0] *= 3  # at the top, images of calibrated particles differ more from their model
    misfit = Misfit(SHAPE, depths_um, np.zeros((3, 3, 2, 3)), image)
    _, known = judged(Directions(replace(model, misfit=misfit)))
    _, unknown = judged(Directions(model))
    found, plain = (check.facts()["chi_square_field"] for check in (known, unknown))
    assert found[:3] == pytest.approx(np.array(plain[:3]) / 4, rel=0.06)
    assert found[3:] == pytest.approx(np.array(plain[3:]) / 2, rel=0.06)


@pytest.mark.parametrize("part", [0.92, 1.08])
def test_focal_planes_that_have_moved_are_told_with_how_far(directions, part):
    changed = OPTICS.model_copy(update={"focal_line_separation_um": part * OPTICS.focal_line_separation_um})
    told, check = judged(directions, changed)
    moved = (part - 1) * OPTICS.focal_line_separation_um
    assert check.together.value[SEPARATION] == pytest.approx(moved, rel=0.3)
    assert {one.name for one in told} == {"focal_planes"}
    assert ("apart" if part > 1 else "closer together") in told[0].text


def test_turned_images_are_told_with_the_angle_and_nothing_else(directions):
    told, check = judged(directions, OPTICS.model_copy(update={"rotation_deg": 4.0}))
    assert check.together.value[TURNED] == pytest.approx(4.0, rel=0.15)
    assert {one.name for one in told} == {"turned"}


def test_a_smeared_corner_is_told_by_its_place(directions):
    told, check = judged(directions, corner_px=1.2, frames=40)
    assert {one.name for one in told} == {"smeared_2"}
    assert "at the top right" in told[0].text
    wider = check.regions[2].value[WIDER_X] + check.regions[2].value[WIDER_Y]
    assert 0.5 * 2 * 1.2**2 < wider < 1.5 * 2 * 1.2**2


def test_few_particles_are_not_judged(directions):
    told, check = judged(directions, OPTICS.model_copy(update={"rotation_deg": 20.0}), frames=FEWEST // 9)
    assert not told
    assert check.facts() == {}


def test_an_image_on_top_of_another_or_at_the_edge_is_left_out(directions):
    check = ImageCheck(directions, SHAPE)
    theta = np.array(
        [
            [60.0, 60.0, 20.0, 1.0],
            [180.0, 180.0, 20.0, 1.0],
            [184.0, 182.0, 20.0, 1.0],
            [3.0, 120.0, 20.0, 1.0],
        ]
    )
    assert check.alone(theta).tolist() == [0]


def test_a_change_is_estimated_beside_what_was_fitted():
    rng = np.random.default_rng(0)
    true = np.array([0.3, -0.2])
    scores, information = [], []
    for _ in range(300):
        own, changes = rng.normal(size=(4, 9, 8)), rng.normal(size=(2, 9, 8))
        weight = rng.uniform(0.5, 2.0, (9, 8))
        changes = changes + own[:2]  # what the fit can imitate must not count
        seen = np.tensordot(true, changes, 1) + np.tensordot(rng.normal(size=4), own, 1) + 7.0
        one = score(seen + rng.normal(size=(9, 8)) / np.sqrt(weight), weight, own, changes)
        scores.append(one.score)
        information.append(one.information)
    found = estimate(np.array(scores), np.array(information))
    assert np.abs((found.value - true) / found.error).max() < 4
    assert found.error == pytest.approx(np.sqrt(np.diag(np.linalg.inv(np.sum(information, axis=0)))), rel=0.3)


def test_runs_without_a_change_are_told_one_as_seldom_as_promised():
    rng = np.random.default_rng(1)
    runs, looks, estimates = 1500, 300, 3
    values = rng.standard_normal((runs, looks, estimates))
    limits = np.array([limit(look + 1, estimates) for look in range(looks)])
    alarms = (np.abs(values) > limits[:, None]).any(axis=(1, 2)).mean()
    assert alarms < 2 * FALSE_ALARMS


def test_what_is_tolerated_is_not_told_however_sure_it_is():
    assert not is_sure(0.99, 1e-6, 1.0, 1, 1)
    assert is_sure(1.01, 1e-6, 1.0, 1000, 10)
    assert not is_sure(5.0, np.inf, 1.0, 1, 1)


def light_run(light_at, brightness_at=None, exposure_ms=lambda _: 2.0, looks=FIRST_LOOKS + 2 * LATEST_LOOKS):
    rng, check, told = np.random.default_rng(0), LightCheck(), []
    for k in range(looks):
        part = (brightness_at or light_at)(k)
        check.add(200.0 * light_at(k), 30.0 * part * np.exp(0.1 * rng.standard_normal(60)), exposure_ms(k))
        told += check.judge()
    return told


def test_light_that_is_down_by_a_fifth_is_told():
    told = light_run(lambda k: 1.0 if k < FIRST_LOOKS + 5 else 0.8)
    assert {one.name for one in told} == {"light"}
    assert "the light is down by 20 %" in told[0].text


def test_particles_that_fade_over_a_steady_background_are_told_as_that():
    told = light_run(lambda _: 1.0, lambda k: 1.0 if k < FIRST_LOOKS + 5 else 0.75)
    assert {one.name for one in told} == {"brightness"}
    assert "fainter" in told[-1].text


def test_light_that_wanders_by_a_few_percent_or_follows_the_exposure_is_not_told():
    assert not light_run(lambda k: 1.0 + 0.04 * np.sin(k / 5))
    longer = lambda k: 2.0 if k < FIRST_LOOKS + 5 else 4.0  # noqa: E731
    assert not light_run(lambda k: longer(k) / 2, exposure_ms=longer)


def dusty(dust, moving=True, seed=0, stuck=False):
    """What is told after looks at images in which particles move, with something at a fixed place."""
    rng, check, told = np.random.default_rng(seed), DustCheck(), []
    y, x = np.mgrid[0:200, 0:260]
    places = rng.uniform(20, 180, (12, 2))
    for _ in range(LOOKS):
        contrast = rng.normal(0, NOISE, y.shape).astype(np.float32)
        if moving:
            places = rng.uniform(20, 180, (12, 2))
        for px, py in places:
            contrast += 0.1 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8).astype(np.float32)
        if dust:
            contrast[100:104, 220:225] += 0.08
        seen = np.vstack([places, [[222.0, 101.5]]]) if stuck else places
        told += check.add(contrast, seen, np.full(len(seen), 8.0), NOISE)
    return told


@pytest.mark.parametrize("seed", range(5))
def test_dust_is_told_by_its_place_and_moving_particles_are_none(seed):
    told = dusty(dust=True, seed=seed)
    assert len(told) == 1
    assert "x = 222, y = 102 px" in told[0].text
    assert not dusty(dust=False, seed=seed)


def test_particles_that_stand_still_or_are_stuck_are_no_dust():
    assert not dusty(dust=False, moving=False)
    assert not dusty(dust=True, stuck=True)


@pytest.mark.parametrize("seed", range(5))
def test_slow_particles_are_no_dust(seed):
    """Near a wall, where the flow is slow: 1 px a look, so that a particle stays for half of the looks."""
    rng, check, told = np.random.default_rng(seed), DustCheck(), []
    y, x = np.mgrid[0:200, 0:260]
    slow = rng.uniform(30, 170, (6, 2))
    for _ in range(LOOKS):
        slow[:, 0] += 1.0
        places = np.vstack([slow, rng.uniform(20, 180, (20, 2))])
        contrast = rng.normal(0, NOISE, y.shape).astype(np.float32)
        for px, py in places:
            contrast += 0.1 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8).astype(np.float32)
        told += check.add(contrast, places, np.full(len(places), 8.0), NOISE)
    assert not told


@pytest.mark.parametrize(("seen", "told"), [(True, []), (False, ["dust"])])
def test_a_particle_that_stays_is_no_dust_even_if_there_was_no_time_to_fit_it(model, seen, told):
    rng, inspector = np.random.default_rng(0), Inspector(model, 1.0)
    depths = DEPTHS_UM[20:24]
    images = shifted_images(spectrum_of(fine_images(OPTICS, depths)), OPTICS, 0.0, 0.0)
    half = images.shape[1] // 2
    found = []
    for look in range(LOOKS + 1):
        places = np.vstack([[[60.0, 60.0]], rng.uniform(half + 2, 238 - half, (5, 2)).round()])
        contrast = rng.normal(0, NOISE, SHAPE)
        for (x, y), image in zip(places.astype(int), images[rng.integers(4, size=6)], strict=True):
            contrast[y - half : y + half + 1, x - half : x + half + 1] += image
        detections = Detections.from_columns(
            FrameInfo("r", look, look, float(look), 0, 0.0),
            x_um=places[not seen :, 0], y_um=places[not seen :, 1], z_um=depths[0], brightness=20.0,
            flags=int(DetectionFlag.REDUCED),
        )  # fmt: skip
        found += inspector.look(100 * (1 - contrast), detections, float(look))
    assert [name for name in ("dust",) if any(name in text for text in found)] == told


class Steady:
    """An engine that finds nothing."""

    def __init__(self):
        self.waiting = []
        self.closed = False
        self.info = EngineInfo("steady", "none", "cpu", details={"refine": {}})

    @property
    def pending(self):
        return len(self.waiting)

    def warmup(self, height, width, dtype, depth=1):
        pass

    def submit(self, frame, predicted=None):
        self.waiting.append(frame)

    def results(self, timeout_s):
        ready, self.waiting = self.waiting, []
        return [Detections.empty(frame.info) for frame in ready]

    def counts(self):
        return {}

    def close(self):
        self.closed = True


def frame(number):
    return Frame(FrameInfo("run", number, number, 0.1 * number, 0, 0.0), np.zeros((8, 8), np.uint8))


def wait_for_the_look(engine):
    """A look is made in a thread of its own, which may come late; what it found is told with the next results."""
    if engine._look is not None:
        wait([engine._look])


def ran(inspector, frames=40):
    said, clock = [], iter(np.arange(0, 1000, 0.15))
    engine = CheckedEngine(Steady(), lambda: inspector, said.append, clock=lambda: float(next(clock)))
    answered = []
    for number in range(frames):
        engine.submit(frame(number))
        answered += engine.results(0.0)
        wait_for_the_look(engine)
    engine.results(0.0)
    info = engine.info
    engine.close()
    return said, answered, info


def test_the_checked_engine_answers_every_frame_and_passes_on_what_is_found():
    seen = []

    def look(image, detections, now_s):
        seen.append(detections.info.frame)
        return ["changed"] if len(seen) == 3 else []

    facts = {"changes": {"separation": [1.0, 0.1]}, "chi_square_field": [1.0, None]}
    said, answered, info = ran(SimpleNamespace(look=look, facts=lambda: facts))
    assert said == ["changed"]
    assert [d.info.frame for d in answered] == list(range(40))
    assert seen == sorted(set(seen))
    assert info.details[DETAIL] == facts


def test_a_check_that_fails_is_told_and_the_run_goes_on():
    def look(*_):
        raise RuntimeError("broken")

    said, answered, _ = ran(SimpleNamespace(look=look, facts=dict))
    assert len(said) == 1
    assert "not checked any more" in said[0]
    assert len(answered) == 40


def test_the_checks_are_prepared_before_the_first_frame_where_nothing_has_to_be_compiled():
    prepared = []

    def make():
        prepared.append(threading.current_thread())
        return SimpleNamespace(look=lambda *_: [], facts=dict, rehearse=lambda *given: prepared.append(given))

    with closing(CheckedEngine(Steady(), make, print)) as engine:
        engine.warmup(8, 9, np.dtype(np.uint8))
        assert prepared == [threading.current_thread(), ((8, 9), np.dtype(np.uint8))]


def test_checks_that_would_have_to_be_compiled_wait_until_they_are():
    ready, prepared, clock = threading.Event(), [], iter(range(1000))

    def make():
        prepared.append(ready.is_set())
        return SimpleNamespace(look=lambda *_: ["changed"], facts=dict)

    said = []
    engine = CheckedEngine(Steady(), make, said.append, lambda: float(next(clock)), ready.is_set)
    with closing(engine):
        engine.warmup(8, 8, np.dtype(np.uint8))
        for number in range(40):
            if number == 20:
                assert prepared == said == []
                ready.set()
            engine.submit(frame(number))
            engine.results(0.0)
            wait_for_the_look(engine)
    assert prepared == [True]
    assert said[0] == "changed"


def test_checks_that_cannot_be_prepared_are_told_and_the_run_goes_on():
    def make():
        raise RuntimeError("broken")

    said = []
    with closing(CheckedEngine(Steady(), make, said.append)) as engine:
        engine.warmup(8, 8, np.dtype(np.uint8))
        engine.submit(frame(0))
        assert len(engine.results(0.0)) == 1
    assert len(said) == 1
    assert "not checked any more" in said[0]


def test_closing_waits_for_a_look_however_long_it_takes_and_says_what_it_found():
    begun, goes_on, ended = threading.Event(), threading.Event(), []

    def look(*_):
        begun.set()
        goes_on.wait(240.0)
        ended.append(True)
        return ["changed"]

    said = []
    inspector = SimpleNamespace(look=look, facts=lambda: {"light": 0.5})
    engine = CheckedEngine(Steady(), lambda: inspector, said.append)
    engine.submit(frame(0))
    engine.results(0.0)
    assert begun.wait(240.0)
    closed = threading.Thread(target=engine.close)
    closed.start()
    closed.join(0.2)
    assert closed.is_alive()
    goes_on.set()
    closed.join(240.0)
    assert not closed.is_alive()
    assert ended == [True]
    assert said == ["changed"]
    assert engine.info.details[DETAIL] == {"light": 0.5}


UNCLOSED = """
import threading, time
import numpy as np
from types import SimpleNamespace
from numba import njit
from engines.engine import EngineInfo
from engines.selfcheck.checked_engine import CheckedEngine
from stream.messages import Detections, Frame, FrameInfo

class Steady:
    info = EngineInfo("steady", "none", "cpu")
    pending = 0
    def submit(self, frame, predicted=None): self.frame = frame
    def results(self, timeout_s): return [Detections.empty(self.frame.info)]

begun = threading.Event()

def make():
    def look(*_):
        begun.set()
        for k in range(3):  # longer than the end of an interpreter takes
            njit(lambda x: np.sort(x).sum() + k)(np.ones(3))
        print("looked", flush=True)
        return []
    return SimpleNamespace(look=look, facts=dict)

engine = CheckedEngine(Steady(), make, print)
engine.submit(Frame(FrameInfo("run", 0, 0, 0.0, 0, 0.0), np.zeros((8, 8), np.uint8)))
engine.results(0.0)
begun.wait()
"""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_nothing_remains_of_the_look_before_the_first(model, dtype):
    rng = np.random.default_rng(5)
    rehearsed, other = (Inspector(model, OPTICS.pixel_size_um) for _ in range(2))
    rehearsed.rehearse((400, 500), dtype)
    assert rehearsed.facts() == {}
    told = []
    for number in range(FIRST_LOOKS + LATEST_LOOKS):
        light = 100.0 if number < FIRST_LOOKS else 70.0
        image = rng.normal(light, 0.02 * light, (400, 500)).astype(dtype)
        x_um, y_um = (rng.uniform(60, size * OPTICS.pixel_size_um - 60, 30) for size in (500, 400))
        found = Detections.from_columns(
            FrameInfo("r", number, number, float(number), 0, 0.0), x_um=x_um, y_um=y_um,
            z_um=rng.uniform(-80, 80, 30), brightness=0.2 * light, flags=0.0,
        )  # fmt: skip
        one, two = (inspector.look(image, found, float(number)) for inspector in (rehearsed, other))
        assert one == two
        told += one
    assert any("light" in text for text in told)
    assert rehearsed.facts() == other.facts() != {}


def test_a_process_that_ends_without_closing_lets_what_is_being_compiled_finish():
    """A thread that still compiles while the interpreter ends uses what is gone: LLVM then aborts the process."""
    ended = subprocess.run([sys.executable, "-c", UNCLOSED], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "looked\n", "")


def test_gauges_are_flat_numbers_without_what_is_not_known():
    facts = {
        "changes": {name: [0.5, 0.1] for name in NAMES},
        "chi_square_field": [1.0, None, 1.2],
        "light": 0.9,
        "brightness": [0.8, 0.01],
        "dust_px": [[1, 2], [3, 4]],
    }
    found = gauges_of(facts)
    assert found["check_separation"] == 0.5
    assert found["check_turned_error"] == 0.1
    assert "check_chi_square_field_1" not in found
    assert found["check_dust"] == 2.0
    assert all(isinstance(value, float) for value in found.values())
    assert gauges_of({}) == {}
