"""During a run: a recalibration is proposed where the run's own particles prove it, once, and never applied."""

import os
import re
import time

import numpy as np
import pytest
from recorded_particles import PIXEL_UM, SHAPE, gaussian_psf, record
from test_recalibrate_command import GREY, write_model

from calibration.recalibration.estimate import LINES, RecalibrationError, recalibrate
from calibration.recalibration.terms import Term
from engines.network.model import OnnxModel
from liveptv.config import build_experiment
from liveptv.recalibration import sample as sample_module
from liveptv.recalibration.proposals import Proposer, is_sure
from liveptv.recalibration.sample import Sample
from liveptv.recalibration.subject import Subject
from liveptv.recalibration.worker import MOST_WAITING_FRAMES, Pairs, Recalibration, Watch
from liveptv.session.recalibrator import KIND, Recalibrator, watch_of
from stream.errors import ConfigurationError
from stream.messages import Frame, FrameInfo, TrackFlag, Tracks
from stream.monitor import MonitorPublisher
from stream.run_keys import RunKeys

DEADLINE_S = 300.0


def pairs_of(run) -> list[tuple[Frame, Tracks]]:
    """The images and the tracks of a made-up run, as its stages publish them."""
    rows, found = run.recorded, []
    for number in sorted(run.frames):
        mine = rows.frame == number
        focus_um = float(rows.focus_um[mine][0])
        info = FrameInfo(
            "run", number, number, 0.02 * number, 0, 0.0, focus_um=focus_um, pixel_size_um=PIXEL_UM
        )
        image = np.rint(np.clip(GREY * (1 + run.frames[number]), 0, 65535)).astype(np.uint16)
        tracks = Tracks.from_columns(
            info, track=rows.track[mine], x_um=rows.x_px[mine] * PIXEL_UM, y_um=rows.y_px[mine] * PIXEL_UM,
            z_um=rows.z_um[mine], sigma_x_um=0.1 * PIXEL_UM, sigma_y_um=0.1 * PIXEL_UM, sigma_z_um=0.5,
            detection=np.arange(mine.sum()),
        )  # fmt: skip
        found.append((Frame(info, image), tracks))
    return found


def sample_of(run) -> Sample:
    kept = Sample()
    for pair in pairs_of(run):
        kept.add(*pair)
    return kept


@pytest.fixture
def subject(tmp_path):
    return Subject(write_model(tmp_path / "model.onnx", gaussian_psf()), tmp_path / "tracks.h5", "run")


@pytest.fixture(scope="module")
def moved():
    """Focal lines are 1.6 um closer than in the model."""
    return sample_of(record(gaussian_psf((9.2, -9.2))))


@pytest.fixture(scope="module")
def estimated(moved, tmp_path_factory):
    """What the estimate gives for it, so that not every test waits for it."""
    found = []
    model = write_model(tmp_path_factory.mktemp("model") / "model.onnx", gaussian_psf())

    def estimate(*given, **options):
        found.append(recalibrate(*given, **options))
        return found[0]

    Proposer(Subject(model, model.with_name("tracks.h5"), "run"), estimate).look(moved)
    return lambda *_given, **_options: found[0]


def test_moved_focal_lines_are_proposed_as_a_new_version_beside_the_run(subject, moved):
    before = subject.model.read_bytes()
    found = Proposer(subject).look(moved)
    assert found.is_proposal
    assert re.search(r"focal planes 1\.[5-7] um closer together: reduced chi-square", found.text)
    assert "set detector.model to tracks.recalibrated-1.onnx" in found.text
    old, new = found.facts["chi_square"]
    assert new < old
    assert f"{old:.4g} -> {new:.4g}" in found.text
    assert subject.model.read_bytes() == before
    (entry,) = OnnxModel(subject.output.with_name("tracks.recalibrated-1.onnx")).card.recalibrated
    assert entry["run_id"] == "run"
    (term,) = entry["terms"]
    assert term["after"][0] - term["before"][0] == pytest.approx(-1.6, abs=0.2)


def test_what_has_been_proposed_is_not_said_again_and_a_further_change_is(subject, moved, estimated):
    proposer = Proposer(subject, estimated)
    assert proposer.look(moved).is_proposal
    again = proposer.look(moved)
    assert (again.text, again.facts["last"]) == ("", "as proposed before")
    assert again.facts["proposed"] == "tracks.recalibrated-1.onnx"
    assert len(list(subject.output.parent.glob("*.onnx"))) == 2
    proposer._estimate = recalibrate
    further = proposer.look(sample_of(record(gaussian_psf((8.0, -8.0)), seed=1)))
    assert "tracks.recalibrated-2.onnx" in further.text
    assert further.facts["looks"] == 3


def test_an_existing_file_is_never_replaced(subject, moved, estimated):
    there = subject.output.with_name("tracks.recalibrated-1.onnx")
    there.write_bytes(b"somebody's")
    assert "recalibrated-2" in Proposer(subject, estimated).look(moved).text
    assert there.read_bytes() == b"somebody's"


@pytest.mark.parametrize("seed", range(2))
def test_a_model_that_fits_is_left_alone(subject, seed):
    found = Proposer(subject).look(sample_of(record(gaussian_psf(), seed=seed)))
    assert (found.text, found.facts["last"]) == ("", "no term changes")
    assert list(subject.output.parent.glob("*.onnx")) == [subject.model]


def test_too_few_particles_are_no_news(subject):
    found = Proposer(subject).look(sample_of(record(gaussian_psf(), moving=3)))
    assert found.text == ""
    assert "lone particles" in found.facts["last"]


def test_images_of_another_objective_are_not_compared(subject, moved):
    other = Sample()
    for frame, tracks in moved._kept:
        info = FrameInfo("run", frame.info.frame, 0, 0.0, 0, 0.0, pixel_size_um=2 * PIXEL_UM)
        other.add(Frame(info, frame.image), Tracks(info, tracks.table))
    assert "no images with pixels of 0.5 um" in Proposer(subject).look(other).facts["last"]


def test_the_longer_one_looks_the_surer_a_change_must_be():
    term = Term(LINES, "um", (20.0,), (18.0,), (0.5,), 100.0, 50.0, 60, changed=True)
    assert is_sure(term, 1, 5)
    assert not is_sure(term, 30, 5)


def test_of_a_term_of_several_numbers_only_those_that_were_estimated_count():
    sd = (np.nan, 0.5, 0.0)
    still = Term("focal surface", "um", (0.0,) * 3, (9.0, 0.1, 5.0), sd, 1.0, 0.0, 6, changed=True)
    moved = Term("focal surface", "um", (0.0,) * 3, (9.0, 4.0, 5.0), sd, 1.0, 0.0, 6, changed=True)
    assert not is_sure(still, 1, 5)
    assert is_sure(moved, 1, 5)


def test_the_sample_keeps_the_newest_images_within_its_memory(monkeypatch):
    some = pairs_of(record(gaussian_psf(), moving=2, frames=5))
    monkeypatch.setattr(sample_module, "MOST_BYTES", 3 * some[0][0].image.nbytes + 1)
    kept = Sample()
    for pair in some:
        kept.add(*pair)
    assert len(kept) == 3
    rows = kept.recorded()
    assert set(rows.frame.tolist()) == {0, 1, 2}
    np.testing.assert_allclose(rows.x_px[:2], some[2][1].x_um / PIXEL_UM)
    assert kept.shape == SHAPE


def test_predicted_rows_and_those_without_depth_are_neighbours_only():
    frame, tracks = pairs_of(record(gaussian_psf(), moving=3, frames=1))[0]
    columns = {name: getattr(tracks, name).copy() for name in Tracks.COLUMNS}
    columns["flags"][0], columns["z_um"][1] = int(TrackFlag.PREDICTED), np.nan
    kept = Sample()
    kept.add(frame, Tracks.from_columns(tracks.info, **columns))
    assert kept.recorded().used.tolist() == [False, False, True]


def test_images_of_another_region_replace_the_sample():
    kept = Sample()
    for frame, tracks in pairs_of(record(gaussian_psf(), moving=2, frames=2)):
        kept.add(frame, tracks)
    kept.add(Frame(frame.info, frame.image[:100]), tracks)
    assert (len(kept), kept.shape) == (1, (100, SHAPE[1]))


class Queue:
    """A subscription of which a test knows what waits in it."""

    def __init__(self):
        self.waiting, self.is_on = [], True

    def receive(self, timeout_s):
        return self.waiting.pop(0) if self.waiting else None

    def pause(self):
        self.is_on = False
        self.waiting.clear()

    def resume(self):
        self.is_on = True


def frame_and_tracks(number, nbytes=4):
    info = FrameInfo("r", number, number, number / 10, 0, 0.0)
    return Frame(info, np.zeros((1, nbytes), np.uint8)), Tracks.empty(info)


@pytest.fixture
def queues():
    return Queue(), Queue()


def test_an_image_is_taken_with_the_tracks_of_its_own_frame_and_then_nothing_is_asked_for(queues):
    frames, tracks = queues
    pairs = Pairs(frames, tracks)
    frames.waiting = [frame_and_tracks(n)[0] for n in (4, 9)]
    tracks.waiting = [frame_and_tracks(n)[1] for n in range(5, 12)]
    frame, found = pairs.poll(0.0, 0.1)
    assert frame.info == found.info
    assert frame.info.frame == 9
    pairs.rest_until(10.0)
    assert not frames.is_on
    assert not tracks.is_on
    assert pairs.poll(9.9, 0.1) is None
    assert not frames.is_on
    assert pairs.poll(10.0, 0.1) is None
    assert frames.is_on
    assert tracks.is_on


def test_images_whose_tracks_never_come_do_not_pile_up(queues):
    frames, tracks = queues
    pairs = Pairs(frames, tracks)
    for number in range(100):
        frames.waiting.append(frame_and_tracks(number)[0])
        assert pairs.poll(0.0, 0.1) is None
    assert len(pairs._images) == MOST_WAITING_FRAMES


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def watch_for(seconds, queues, look, period_s=60.0):
    """A run of so many seconds, ten frames a second, with everything that was said."""
    clock, said = Clock(), []
    frames, tracks = queues
    made = Recalibration(
        Pairs(frames, tracks), Sample(), period_s, lambda: look, lambda *entry: said.append(entry), clock
    )
    for number in range(10 * seconds):
        clock.now_s = number / 10
        if frames.is_on:
            frame, found = frame_and_tracks(number)
            frames.waiting.append(frame)
            tracks.waiting.append(found)
        made.step(0.0)
    return said


def test_it_looks_at_most_once_in_a_period_at_an_even_sample_of_it(queues):
    sizes = []

    def look(sample):
        sizes.append((len(sample), sample._kept[0][0].info.time_s))
        raise RecalibrationError("too few")

    watch_for(250, queues, look)
    assert len(sizes) == 4
    assert all(50 <= size <= sample_module.MOST_FRAMES for size, _ in sizes)
    assert [first_s for _, first_s in sizes] == pytest.approx([0, 60, 120, 180], abs=8)


def test_a_look_that_fails_is_told_once_and_the_next_ones_follow(queues):
    looks = []

    def look(_sample):
        looks.append(1)
        raise ZeroDivisionError("of something")

    said = watch_for(250, queues, look)
    assert len(looks) == 4
    ((kind, text, _),) = said
    assert kind == "failed"
    assert "ZeroDivisionError: of something; the run is not affected" in text


def until(condition, act):
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        act()
        time.sleep(0.02)


def test_the_process_beside_a_run_proposes_and_ends_with_it(subject):
    sent, said = pairs_of(record(gaussian_psf((9.2, -9.2)))), []
    detect = MonitorPublisher("tcp://127.0.0.1:0", run_id="r", source="liveptv/detect")
    track = MonitorPublisher("tcp://127.0.0.1:0", run_id="r", source="liveptv/track")
    watch = Watch(detect.address, track.address, None, None, 6.0, subject)
    made = Recalibrator(watch, said.append)
    turn = iter(range(10**9))

    def go_on():
        frame, tracks = sent[next(turn) % len(sent)]
        detect.publish(frame)
        track.publish(tracks)
        made.poll()

    try:
        until(lambda: "proposed" in made.facts or said, go_on)
        assert subject.output.with_name("tracks.recalibrated-1.onnx").is_file()
        (entry,) = said
        assert entry.kind == KIND
        assert entry.text.startswith("recalibration proposed: focal planes")
        assert entry.facts["proposed"] == "tracks.recalibrated-1.onnx"
    finally:
        made.close()
        detect.close()
        track.close()
    assert not made._process.is_alive()
    assert len(said) == 1


def die(_watch, _pipe):
    os._exit(7)


def hang(_watch, pipe):
    pipe.send(("looked", "", {"looks": 1}))
    time.sleep(1e6)


def test_a_process_that_dies_is_told_once_and_the_run_goes_on(subject):
    said = []
    made = Recalibrator(Watch("", "", None, None, 60.0, subject), said.append, die)
    until(lambda: said, made.poll)
    made.poll()
    made.close()
    (entry,) = said
    assert "has ended (exit status 7)" in entry.text


def test_a_process_that_hangs_does_not_keep_the_run_from_ending(subject):
    made = Recalibrator(Watch("", "", None, None, 60.0, subject), [].append, hang)
    until(lambda: made.facts, made.poll)
    made.close()
    assert not made._process.is_alive()


RUN = {"recording": {"path": "images.tif"}, "run": {"output": "tracks.h5"}}


def test_it_is_off_unless_it_is_asked_for(tmp_path):
    bound = {"detect.monitor": "tcp://127.0.0.1:1", "track.monitor": "tcp://127.0.0.1:2"}
    keys = RunKeys.fresh()
    settings = {**RUN, "detector": {"model": "m.onnx"}}
    assert watch_of(build_experiment(settings, "t"), "r", keys, bound) is None
    asked = build_experiment({**settings, "recalibration": {"live": "propose", "every_minutes": 2}}, "t")
    assert watch_of(asked, "r", keys, {}) is None
    found = watch_of(asked, "r", keys, bound)
    assert (found.period_s, found.subject.model.name) == (120, "m.onnx")
    assert found.watching == keys.password


@pytest.mark.parametrize("model", [None, "curve.h5"])
def test_it_needs_a_network(model):
    detector = {"model": model} if model else {}
    with pytest.raises(ConfigurationError, match=r"propose.*needs a network"):
        build_experiment({**RUN, "detector": detector, "recalibration": {"live": "propose"}}, "t")
