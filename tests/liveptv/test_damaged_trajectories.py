"""Finished trajectory files with something wrong in them: every command judges them alike, in one line."""

import logging
import shutil

import h5py
import numpy as np
import pytest

from liveptv.cli import run_command_line
from liveptv.reports import page
from stream.errors import SourceError
from stream.messages import Detections, Frame, FrameInfo, Tracks
from tracking.trajectories.attribute_types import text
from tracking.trajectories.compression import pack
from tracking.trajectories.control_record import store_control
from tracking.trajectories.file import TrajectoryWriter, read_trajectories
from tracking.trajectories.recovery import recover
from tracking.trajectories.schema import ATTRIBUTES, FRAMES, ROWS
from tracking.trajectories.snapshot import store_snapshot

FRAMES_WRITTEN = 40
WRONG = {
    "text": [3.5, h5py.Empty("f8")],
    "whole": ["{not json", -1],
    "positive": ["abc", 0.0],
    "number": ["abc", h5py.Empty("f8")],
    "sequence": ["[1,2", '{"a": 1}'],
    "mapping": ["{not json", "[1,2]"],
}
KIND = {
    "schema_version": "whole",
    **dict.fromkeys(("pixel_size_um", "refraction_factor"), "positive"),
    **dict.fromkeys(("frame_rate_hz", "age_limit_ms"), "number"),
    **dict.fromkeys(("image_shape", "failures", "joined"), "sequence"),
}
MISSING = (
    "schema",
    "schema_version",
    "run_id",
    "end_reason",
    "pixel_size_um",
    "image_shape",
    "configuration",
    "account",
)
EXPERIMENT = """
[microscope]
config = "simulated"
[controller.hold_flow]
target_um_s = 100
max_flow_ul_s = 0.05
"""
GIVEN = {
    "pixel_size_um": 0.5,
    "refraction_factor": 1.0,
    "image_shape": [32, 64],
    "image_dtype": "uint8",
    "frame_rate_hz": 50.0,
    "age_limit_ms": 100.0,
    "source": "made up",
    "notes": "{remember",
    "user": "me",
    "computer": "mine",
    "configuration": {
        "channel": {"width_um": 30.0, "depth_um": 20.0, "center_y_um": None},
        "controller": None,
    },
    "model": {"kind": "classical", "file": ""},
    "failures": [],
    "learnt": {},
    "joined": [],
    "begun_in": {},
    "recovered": {},
    "session_end_reason": "done",
    "accounts": {"acquire": {"received": FRAMES_WRITTEN, "sent": FRAMES_WRITTEN}},
    "account": {"exposed": FRAMES_WRITTEN, "in_file": FRAMES_WRITTEN, "lost": {}, "not_known": []},
    "my_own": "{anything",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    path = folder / "good.h5"
    numbers = np.arange(12)
    with TrajectoryWriter(path, run_id="run", attributes=GIVEN) as writer:
        for frame in range(FRAMES_WRITTEN):
            info = FrameInfo("run", frame, frame, 0.02 * frame, 0, 1e9 + 0.02 * frame, flow_ul_s=0.01)
            columns = {"x_um": frame + numbers, "y_um": 2.0 * numbers, "vx_um_s": 50.0, "detection": numbers}
            writer.append(Tracks.from_columns(info, track=numbers, flags=0, **columns))
        writer.event("note", "something")
        writer.finalize({}, "done")
    image = Frame(info, np.zeros((32, 64), np.uint8))
    store_snapshot(path, image, Detections.from_columns(info, x_um=numbers, y_um=numbers))
    store_control(path, [{"wall_s": 0.0, "kind": "command", "text": "", "command": "trigger"}])
    pack(path)
    (folder / "experiment.toml").write_text(EXPERIMENT)
    return path


@pytest.fixture
def judged(good, tmp_path, monkeypatch, capsys, caplog):
    """Changes a copy of the good file and says how each command ends on it, and what it says."""
    monkeypatch.setattr(page, "_figures", lambda *_: [])
    monkeypatch.setattr(page, "publish", lambda *_, **__: ())
    rounds = iter(range(1000))

    def judge(change):
        path = tmp_path / f"{next(rounds)}.h5"
        shutil.copy(good, path)
        with h5py.File(path, "r+") as file:
            change(file)
        found = {}
        for command in (
            f"info {path} --json",
            f"report {path}",
            f"export {path} -o {path}.csv",
            f"export {path} -o {path}.xml",
            f"export {path} -o {path}.parquet",
            f"control {path} {good.parent / 'experiment.toml'}",
            f"evaluate --truth {good} --found {path}",
            f"recover {path}",
        ):
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                status = run_command_line(command.split())
            said = capsys.readouterr()
            errors = [line for line in said.err.splitlines() if line.strip()]
            warnings = [r.getMessage() for r in caplog.records if "damaged" in r.getMessage()]
            assert "bug in liveptv" not in said.err, (command, said.err)
            assert "object at 0x" not in said.err
            assert (status == 0) == (not errors), (command, said.err)
            assert len(errors) <= 1, (command, said.err)
            assert len(warnings) <= 1, (command, warnings)
            verb = command.split()[0]
            name = f"export{command.rpartition('.')[2]}" if verb == "export" else verb
            found[name] = (status, (errors + warnings + [""])[0], "is repaired" in said.out)
        return path, found

    return judge


def check_agreement(found):
    """All alike: whole, or damaged, where rows that can be read without what is damaged are read with a warning."""
    whole = found["info"][0] == 0
    assert found["report"][0] == found["info"][0], found
    status, _, mended = found["recover"]
    assert (status == 0 and not mended) == whole, found
    for name in ("exportcsv", "exportxml", "exportparquet", "control", "evaluate"):
        assert bool(found[name][1]) != whole, (name, found)
        assert whole <= (found[name][0] == 0), (name, found)
    return whole


def put(name, value):
    def change(file):
        file.attrs.pop(name, None)
        if value is not None:
            file.attrs[name] = value

    return change


def test_the_good_file_is_whole_and_so_is_one_with_attributes_of_the_user(judged):
    def add(file):
        for index, value in enumerate(value for values in WRONG.values() for value in values):
            file.attrs[f"own {index}"] = value

    assert check_agreement(judged(add)[1])


@pytest.mark.parametrize("name", [name for name in ATTRIBUTES if name != "schema"])
def test_an_attribute_of_another_kind_is_damage_to_all_commands(judged, name):
    kind = KIND.get(name, "text" if ATTRIBUTES[name].read is text else "mapping")
    for value in WRONG[kind]:
        path, found = judged(put(name, value))
        assert not check_agreement(found)
        for status, said, _ in found.values():
            assert f"is damaged: the attribute {name} cannot be read" in said
            assert status == 1 or not ATTRIBUTES[name].needed
        if not ATTRIBUTES[name].needed:
            assert found["exportcsv"][0] == 0
            assert name not in read_trajectories(path).attributes


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_attribute_is_judged_alike(judged, name):
    _, found = judged(put(name, None))
    if name == "end_reason":  # a file that was never finished, which is no damage
        assert found["recover"][2]
        return
    if name == "schema":
        assert {status for status, *_ in found.values()} == {1}
        return
    assert check_agreement(found) == (not ATTRIBUTES[name].always)


def replaced(name, values):
    def change(file):
        attributes = dict(file[name].attrs)
        del file[name]
        if values is not None:
            file[name] = values
            file[name].attrs.update(attributes)

    return change


def changed(name, **columns):
    def change(file):
        table = file[name][:]
        for column, (where, value) in columns.items():
            table[column][where] = value
        file[name][:] = table

    return change


def cut(name, size):
    return lambda file: file[name].resize((size,))


def bytes_of(text):
    return np.frombuffer(text, np.uint8)


EVERY = slice(None)
DAMAGE = {
    "rows of all frames": changed(FRAMES, rows=(EVERY, 4_000_000_000)),
    "rows of one frame": changed(FRAMES, rows=(20, 11)),
    "first row": changed(FRAMES, first_row=(5, 2**63)),
    "commits of the end": changed(FRAMES, commit=(slice(30, None), 0)),
    "one commit": changed(FRAMES, commit=(30, 0)),
    "frame numbers": changed(FRAMES, frame=(EVERY, 3)),
    "rows cut": cut(ROWS, 300),
    "rows gone": cut(ROWS, 0),
    "frames cut": cut(FRAMES, 30),
    "frames gone": cut(FRAMES, 0),
    "rows more": lambda file: file[ROWS].resize((1000,)),
    "tracks": changed(ROWS, track=(7, 2**32 - 1)),
    "rows' frames": changed(ROWS, frame=(7, 9)),
    **{f"no {name}": replaced(name, None) for name in (ROWS, FRAMES, "events")},
    **{f"{name} of numbers": replaced(name, np.zeros(9)) for name in (ROWS, FRAMES, "events")},
    **{f"{name} of text": replaced(name, "words") for name in (ROWS, FRAMES, "events")},
    "events no JSON": replaced("events", bytes_of(b"{not json\n")),
    "events a list": replaced("events", bytes_of(b"[1]\n")),
    "events without a time": replaced("events", bytes_of(b'{"kind": "note", "text": "x"}\n')),
    "events of numbers": replaced("events", bytes_of(b'{"wall_s": 1, "kind": 2, "text": 3}\n')),
    "record no JSON": replaced("control/record", bytes_of(b"{not json\n")),
    "record a list": replaced("control/record", bytes_of(b"[1]\n")),
    "record of text": replaced("control/record", "words"),
    "no record": replaced("control/record", None),
    "no image": replaced("snapshot/image", None),
    "image of text": replaced("snapshot/image", "words"),
    "image of a line": replaced("snapshot/image", np.zeros(9)),
    "no detections": replaced("snapshot/detections", None),
    "detections of text": replaced("snapshot/detections", "words"),
    "detections of other columns": replaced("snapshot/detections", np.zeros((3, 4))),
    "detections without columns": lambda file: file["snapshot/detections"].attrs.pop("columns"),
    "image without a frame": lambda file: file["snapshot/image"].attrs.pop("frame"),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_dataset_is_damage_to_all_commands(judged, change):
    path, found = judged(change)
    assert not check_agreement(found), found
    if found["recover"][2]:
        assert run_command_line(["info", str(path), "--json"]) == 0


@pytest.mark.parametrize("values", [{"time_s": (5, np.nan)}, {"wall_s": (EVERY, np.inf)}])
def test_values_that_are_odd_but_possible_are_no_fault(judged, values):
    check_agreement(judged(changed(FRAMES, **values))[1])


def test_a_missing_picture_and_record_are_no_damage(judged):
    def change(file):
        del file["snapshot"], file["control"], file["VTKHDF"]

    assert check_agreement(judged(change)[1])


def test_a_file_that_was_not_finished_may_have_a_torn_end_and_loses_what_only_tells_of_the_run(
    good, tmp_path
):
    path = tmp_path / "torn.h5"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        del file.attrs["end_reason"]
        file.attrs["model"] = "{not json"
        changed(FRAMES, rows=(slice(30, None), 4_000_000_000))(file)
    assert len(read_trajectories(path).frames) == 30
    report = recover(path)
    assert (report.frames, report.rows, report.frames_cut) == (30, 360, 10)
    attributes = read_trajectories(path).attributes
    assert attributes["recovered"]["removed_attributes"] == ["model"]


def test_what_recover_refuses_goes_by_the_name_of_the_file(good, tmp_path):
    path = tmp_path / "Spuren Ä.h5"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        dtype = file[ROWS].dtype
        del file[ROWS]
        file.create_dataset(ROWS, (10**12,), dtype, chunks=(4096,))
    with pytest.raises(SourceError, match=r"Spuren Ä\.h5: tracks/rows claims 81 TB"):
        recover(path)
