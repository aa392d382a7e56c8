"""Results of a batch: those of single runs, made once, whole, and made anew only where that is asked for."""

import csv
import io
import json
import os
from collections import deque
from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest
import tifffile
from batch_fakes import blobs, write_recording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acquisition.recorder.frame_table import FrameRow, head_line, write
from liveptv.batch.jobs import JobState
from liveptv.batch.perform import perform
from liveptv.batch.pieces.detections_file import DetectionsFile, write_detections, write_facts
from liveptv.batch.processing import Notebook, process_recording
from liveptv.batch.results.lease import Lease
from liveptv.batch.results.marker import Marker, complete, marker_of
from liveptv.batch.results.places import Places
from liveptv.batch.run import BatchOptions, entries_of, experiment_of, run_batch
from liveptv.config import load_experiment
from stream.errors import ConfigurationError, SourceError
from stream.messages import Detections, FrameInfo

TIMES = ("wall_s", "commit", "age_ms")


class InThisProcess:
    """Workers that perform a task when their answers are asked for."""

    count, title = 1, "this process"

    def __init__(self, change=lambda task: task):
        self.waiting, self.done, self.change = deque(), [], change

    def __call__(self, options, most, say):
        return self

    def submit(self, ticket, task):
        self.waiting.append((ticket, self.change(task)))

    def answers(self, timeout_s):
        if not self.waiting:
            return []
        ticket, task = self.waiting.popleft()
        self.done.append(task)
        return [(ticket, perform(task))]

    def close(self):
        self.waiting.clear()


def contents(path):
    """Rows and frames of a trajectory file, without what tells when it was made."""
    with h5py.File(path) as file:
        frames = file["frames"][:]
        kept = [name for name in frames.dtype.names if name not in TIMES]
        return file["tracks/rows"][:].tobytes(), [frames[name].tobytes() for name in kept]


def batch(source, out, workers=None, **more):
    said = []
    options = BatchOptions(source, out, settings=("detector.diameter_px=7",), **more)
    jobs = run_batch(options, say=said.append, open_with=workers or InThisProcess())
    return jobs, said


def single(path, out, *more):
    experiment = load_experiment(
        None, ["detector.diameter_px=7", "detector.workers=1", *more], base={"recording": {"path": path}}
    )
    process_recording(experiment, out, Notebook())
    return contents(out)


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "recordings"
    write_recording(folder / "a.tif", 12, 1)
    write_recording(folder / "day/a.tif", 15, 2)
    return folder


@pytest.mark.slow
def test_a_recording_in_one_thread_is_what_a_run_makes_of_it(recordings, tmp_path):
    from liveptv.config import revised
    from liveptv.files import RunFiles
    from liveptv.workflows.run import run_experiment

    path = recordings / "a.tif"
    experiment = load_experiment(
        None,
        ["detector.diameter_px=7", "session.mode=threads", "link.transport=inproc"],
        base={"recording": {"path": path}},
    )
    files = RunFiles.beside(tmp_path / "run.h5")
    experiment = revised(experiment, run={"output": files.tracks})
    outcome = run_experiment(experiment, files, on_update=lambda _p: None, on_note=lambda _t: None)
    assert outcome.result.ok
    assert single(path, tmp_path / "one.h5") == contents(files.tracks)
    with h5py.File(tmp_path / "one.h5") as one, h5py.File(files.tracks) as run:
        assert set(run.attrs) - set(one.attrs) == set()
        accounts = [json.loads(file.attrs["account"]) for file in (one, run)]
        assert accounts[0] == accounts[1]
        assert one["snapshot/image"].shape == run["snapshot/image"].shape


def test_each_recording_has_the_result_of_a_single_run_and_is_not_done_again(recordings, tmp_path):
    out = tmp_path / "out"
    jobs, _ = batch(recordings, out)
    assert [job.state for job in jobs] == [JobState.DONE] * 2
    assert contents(out / "a.h5") == single(recordings / "a.tif", tmp_path / "1.h5")
    assert contents(out / "day/a.h5") == single(recordings / "day/a.tif", tmp_path / "2.h5")
    assert sorted(path.name for path in out.rglob("*")) == sorted(
        ["a.h5", "a.done.json", "batch.csv", "day", "a.h5", "a.done.json"]
    ), "nothing unfinished is left"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    workers = InThisProcess()
    jobs, _ = batch(recordings, out, workers)
    assert [job.state for job in jobs] == [JobState.THERE] * 2
    assert workers.done == []
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")}


def test_the_table_says_what_became_of_each(recordings, tmp_path):
    broken = write_recording(recordings / "broken.tif", 20)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    jobs, _ = batch(recordings, tmp_path / "out")
    assert [job.state for job in jobs] == [JobState.DONE, JobState.FAILED, JobState.DONE]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/batch.csv").read_text())))
    assert [row["state"] for row in rows] == ["done", "failed", "done"]
    assert "damaged or truncated" in rows[1]["why"]
    assert int(rows[0]["frames"]) == 12
    assert int(rows[0]["rows"]) > 0
    assert (tmp_path / "out/broken.partial.h5").is_file(), "what was tracked before the fault is kept"
    assert not (tmp_path / "out/broken.h5").exists()
    assert not (tmp_path / "out/.batch").exists()


def test_a_recording_that_failed_is_tried_again_by_the_next_batch(recordings, tmp_path):
    path = write_recording(recordings / "broken.tif", 20)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    batch(recordings, tmp_path / "out")
    path.write_bytes(whole)
    jobs, _ = batch(recordings, tmp_path / "out")
    assert [job.state for job in jobs] == [JobState.THERE, JobState.DONE, JobState.THERE]
    assert not (tmp_path / "out/broken.partial.h5").exists()


def test_results_of_other_settings_are_replaced_only_on_request(recordings, tmp_path):
    batch(recordings, tmp_path / "out")
    options = BatchOptions(recordings, tmp_path / "out", settings=("detector.diameter_px=9",))
    with pytest.raises(ConfigurationError, match=r"diameter_px 7.0 instead of 9.0 \(and 1 more\)"):
        run_batch(options, say=print, open_with=InThisProcess())
    said = []
    jobs = run_batch(replace(options, overwrite=True), say=said.append, open_with=InThisProcess())
    assert [job.state for job in jobs] == [JobState.DONE] * 2
    assert len(said) == 2
    assert "is made anew" in said[0]
    assert marker_of(Places(tmp_path / "out", "a")).identity["detector.diameter_px"] == 9


def test_a_recording_that_has_changed_is_done_again_only_on_request(recordings, tmp_path):
    batch(recordings, tmp_path / "out")
    write_recording(recordings / "a.tif", 13, 5)
    with pytest.raises(ConfigurationError, match="another recording"):
        batch(recordings, tmp_path / "out")
    jobs, _ = batch(recordings, tmp_path / "out", overwrite=True)
    assert [job.state for job in jobs] == [JobState.DONE, JobState.THERE]


def test_a_file_that_no_batch_has_made_is_not_replaced(recordings, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.h5").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="was not made by a batch"):
        batch(recordings, tmp_path / "out")
    assert (tmp_path / "out/a.h5").read_bytes() == b"mine"


def test_a_batch_killed_between_result_and_marker_is_finished_by_the_next(recordings, tmp_path):
    batch(recordings, tmp_path / "out")
    places = Places(tmp_path / "out", "a")
    places.work.mkdir(parents=True)
    places.marker.replace(places.coming_marker)
    assert marker_of(places) is None
    assert complete(places) is not None
    jobs, _ = batch(recordings, tmp_path / "out")
    assert [job.state for job in jobs] == [JobState.THERE] * 2


def test_a_marker_that_is_prepared_for_a_result_that_never_came_counts_for_nothing(recordings, tmp_path):
    batch(recordings, tmp_path / "out")
    places = Places(tmp_path / "out", "a")
    places.work.mkdir(parents=True)
    facts = json.loads(places.marker.read_text())
    facts["result"]["run_id"] = "another run"
    places.marker.unlink()
    places.coming_marker.write_text(json.dumps(facts))
    assert complete(places) is None


def test_what_a_killed_worker_has_left_is_removed(recordings, tmp_path):
    places = Places(tmp_path / "out", "a")
    places.make_folders()
    left = places.fresh("recording", ".h5")
    left.write_bytes(b"half")
    batch(recordings, tmp_path / "out")
    assert not left.exists()
    assert not (tmp_path / "out/.batch").exists()


def test_a_recording_that_another_process_has_is_busy(recordings, tmp_path):
    out = tmp_path / "out"
    workers = InThisProcess()
    with Lease(Places(out, "a").lock, "another batch"):
        jobs, _ = batch(recordings, out, workers, waits_for_others=False)
    assert [job.state for job in jobs] == [JobState.ELSEWHERE, JobState.DONE]
    assert f"process {os.getpid()}" in jobs[0].why


def test_a_worker_of_another_version_says_so(recordings, tmp_path):
    workers = InThisProcess(lambda task: replace(task, version="0.0.0"))
    jobs, _ = batch(recordings, tmp_path / "out", workers)
    assert all("install the same" in job.why for job in jobs)


@pytest.mark.parametrize("longest", [3, 5, 11])
def test_pieces_joined_are_the_recording_in_one_piece(recordings, tmp_path, longest):
    jobs, _ = batch(recordings, tmp_path / "out", piece_frames=longest)
    assert [job.state for job in jobs] == [JobState.DONE] * 2
    assert [job.marker.pieces for job in jobs] == [-(-12 // longest), -(-15 // longest)]
    assert contents(tmp_path / "out/a.h5") == single(recordings / "a.tif", tmp_path / "1.h5")
    assert contents(tmp_path / "out/day/a.h5") == single(recordings / "day/a.tif", tmp_path / "2.h5")
    assert not (tmp_path / "out/.batch").exists(), "pieces are removed"
    with h5py.File(tmp_path / "out/a.h5") as file, h5py.File(tmp_path / "1.h5") as one:
        joined, whole = (json.loads(one.attrs["account"]) for one in (file, one))
        assert joined == whole
        assert (
            json.loads(file.attrs["accounts"])["detect"]["particles"]
            == (json.loads(one.attrs["accounts"])["detect"]["particles"])
        )


def test_a_recorded_run_in_pieces_keeps_the_numbers_of_its_frames(recordings, tmp_path):
    path = recordings / "run/tracks.frames.ome.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, blobs(12), metadata={"axes": "TYX"})
    numbers = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 16, 17]
    rows = [FrameRow(n, None, FrameInfo("a", k, k, 0.1 * k, 0, 0.0)) for n, k in enumerate(numbers)]
    write(path.with_name("tracks.frames.jsonl"), head_line("a", "tracks.h5", path.name), rows)
    jobs, _ = batch(recordings / "run", tmp_path / "out", piece_frames=5)
    assert [(job.state, job.marker.pieces) for job in jobs] == [(JobState.DONE, 3)], jobs[0].why
    assert contents(next((tmp_path / "out").glob("*.h5"))) == single(path, tmp_path / "1.h5")
    with h5py.File(tmp_path / "1.h5") as file:
        assert file["frames"]["frame"].tolist() == numbers


def test_pieces_that_are_there_are_not_detected_again(recordings, tmp_path):
    class Dies(InThisProcess):
        def answers(self, timeout_s):
            if sum(task.kind == "piece" for task in self.done) == 3:
                raise SourceError("all workers are gone")
            return super().answers(timeout_s)

    with pytest.raises(SourceError):
        batch(recordings, tmp_path / "out", Dies(), piece_frames=5)
    made = list((tmp_path / "out/.batch").rglob("*.detections"))
    assert len(made) == 3
    times = {path: path.stat().st_mtime_ns for path in made}
    seen = {}

    class Looks(InThisProcess):
        def answers(self, timeout_s):
            for path in made:
                if path.exists():
                    seen[path] = path.stat().st_mtime_ns
            return super().answers(timeout_s)

    jobs, _ = batch(recordings, tmp_path / "out", Looks(), piece_frames=5)
    assert [job.state for job in jobs] == [JobState.DONE] * 2
    assert seen == times
    assert contents(tmp_path / "out/a.h5") == single(recordings / "a.tif", tmp_path / "1.h5")


def test_a_list_gives_names_and_settings_of_their_own(recordings, tmp_path):
    table = recordings / "list.csv"
    table.write_text("recording,name,frame_rate_hz\na.tif,slow/first,5\nday/a.tif,,\nmissing.tif,,\n")
    jobs, _ = batch(table, tmp_path / "out")
    assert [job.state for job in jobs] == [JobState.DONE, JobState.DONE, JobState.FAILED]
    assert "there is no recording" in jobs[2].why
    assert contents(tmp_path / "out/slow/first.h5") == single(
        recordings / "a.tif", tmp_path / "1.h5", "recording.frame_rate_hz=5"
    )


def test_settings_that_a_batch_cannot_have_are_refused(recordings, tmp_path):
    options = BatchOptions(recordings, tmp_path / "out", settings=("recording.pace=true",))
    entry = entries_of(options, print)[0]
    with pytest.raises(ConfigurationError, match="as fast as it can"):
        experiment_of(entry, options)


def test_a_marker_reads_back_and_nonsense_is_none(recordings, tmp_path):
    batch(recordings, tmp_path / "out")
    marker = marker_of(Places(tmp_path / "out", "a"))
    assert Marker.of(marker.to_dict()) == replace(marker, seconds=round(marker.seconds, 3))
    for nonsense in (
        None,
        {},
        {"liveptv_batch": 1},
        {**marker.to_dict(), "result": 5},
        {"liveptv_batch": 99},
    ):
        assert Marker.of(nonsense) is None
    assert asdict(marker.fingerprint)["files"] == 1


def messages(rng, count):
    for n in range(count):
        info = FrameInfo("run", n, 2 * n, rng.normal(), n, rng.normal(), pixel_size_um=0.1 + 1e-17)
        yield Detections(info, rng.normal(size=(len(Detections.COLUMNS), rng.integers(0, 5))))


def test_detections_read_back_bit_for_bit(tmp_path):
    sent, path = list(messages(np.random.default_rng(0), 7)), tmp_path / "a.detections"
    with path.open("wb") as stream:
        for message in sent:
            write_detections(stream, message)
        write_facts(stream, {"count": 7})
    file = DetectionsFile(path)
    found = list(file.messages())
    assert file.facts == {"count": 7}
    for one, other in zip(sent, found, strict=True):
        assert one.table.tobytes() == other.table.tobytes()
        assert repr(one.info) == repr(other.info)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3000), st.integers(0, 255))
def test_a_damaged_file_of_detections_is_told_or_whole(tmp_path, place, value):
    stream, path = io.BytesIO(), tmp_path / "a.detections"
    for message in messages(np.random.default_rng(1), 3):
        write_detections(stream, message)
    write_facts(stream, {"count": 3})
    data = bytearray(stream.getvalue())
    path.write_bytes(data[:place])
    if place < len(data):
        with pytest.raises(SourceError, match="damaged"):
            list(DetectionsFile(path).messages())
        data[place] = value
        path.write_bytes(data)
        try:
            found = list(DetectionsFile(path).messages())
        except SourceError:
            return
        assert len(found) <= 3
