import csv
import threading
import time

import numpy as np
import pymmcore
import pytest
from simulated_clock import SimulatedClock

from acquisition.configuration import config_path
from acquisition.microscope.pymmcore import UniMMCore
from acquisition.simulated.sequence import FRAME_NUMBER_KEY, TIME_KEY
from acquisition.simulated.truth import TRUTH_COLUMNS
from stream.errors import ConfigurationError

SMALL = """
#py pyDevice,Camera,acquisition.simulated.devices,SimulatedCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py pyDevice,Pump,acquisition.simulated.devices,SimulatedPump
#py Property,Camera,Width,320
#py Property,Camera,Height,256
#py Property,Camera,ParticlesPerFrame,30
#py Property,Camera,RealTime,0
#py Property,Camera,FrameRate,50
{extra}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
#py Property,Pump,FlowRate,0.0246
"""


def closed(core):
    core.unloadAllDevices()
    pymmcore.CMMCore.registerCallback(core, None)


@pytest.fixture
def load(tmp_path):
    """Load the small microscope, with extra configuration lines before its initialisation."""
    core = UniMMCore()

    def load(*extra):
        path = tmp_path / "small.cfg"
        path.write_text(SMALL.format(extra="\n".join(f"#py Property,{line}" for line in extra)))
        core.loadSystemConfiguration(str(path))
        return core

    yield load
    closed(core)


def burst(core, count):
    """Take frames with stop on overflow; return images and metadata."""
    core.startSequenceAcquisition(count, 0, True)
    frames = []
    deadline = time.monotonic() + 240
    while core.isSequenceRunning() or core.getRemainingImageCount():
        assert time.monotonic() < deadline
        if core.getRemainingImageCount():
            image, metadata = core.popNextImageAndMD()
            frames.append((image.copy(), metadata))
        else:
            time.sleep(0.001)
    core.stopSequenceAcquisition()
    return [image for image, _ in frames], [metadata for _, metadata in frames]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["simulated", "paper"])
def test_a_configuration_file_loads_into_the_real_core_and_snaps(name):
    core = UniMMCore()
    try:
        core.loadSystemConfiguration(str(config_path(name)))
        core.snapImage()
        image = core.getImage()
        assert image.shape == (core.getImageHeight(), core.getImageWidth())
        assert image.dtype == np.uint8
        assert core.getPixelSizeUm() == 0.8
        assert image.min() < image.mean() - 6 * image[:8].std()
        assert core.state()
    finally:
        closed(core)


def test_an_unknown_microscope_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"paper, pipeline, simulated"):
        config_path("mars")


def test_a_burst_has_every_frame_with_the_cameras_own_number_and_time(load):
    images, metadata = burst(load(), 12)
    assert [int(m[FRAME_NUMBER_KEY]) for m in metadata] == list(range(12))
    np.testing.assert_allclose(np.diff([float(m[TIME_KEY]) for m in metadata]), 0.02, atol=2e-6)
    assert len({image.tobytes() for image in images}) == 12


def test_every_nth_frame_is_lost_where_asked_and_counted(load):
    core = load("Camera,DropEvery,4")
    _, metadata = burst(core, 9)
    assert [int(m[FRAME_NUMBER_KEY]) for m in metadata] == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert core.getProperty("Camera", "FramesLost") == 2


def test_the_truth_is_where_the_particles_were_drawn(load, tmp_path):
    truth = tmp_path / "truth.csv"
    core = load("Camera,SNR,1000000", "Camera,PixelType,16bit", "Camera,ParticlesPerFrame,6")
    core.setProperty("Camera", "TruthFile", str(truth))
    images, _ = burst(core, 25)
    rows = rows_of(truth)
    assert tuple(rows[0]) == TRUTH_COLUMNS
    assert {int(row["frame"]) for row in rows} == set(range(25))
    checked = 0
    for row in rows:
        x, y = (float(row[name]) / 0.8 for name in ("x_um", "y_um"))
        assert float(row["z_um"]) == pytest.approx(float(row["height_um"]) - 150, abs=1e-3)
        others = [o for o in rows if o["frame"] == row["frame"] and o["particle"] != row["particle"]]
        if not (60 < x < 260 and 60 < y < 196) or any(
            np.hypot(float(o["x_um"]) / 0.8 - x, float(o["y_um"]) / 0.8 - y) < 80 for o in others
        ):
            continue
        left, top = round(x) - 39, round(y) - 39
        shadow = 1 - images[int(row["frame"])][top : top + 79, left : left + 79] / (200 / 255 * 65535)
        at_row, at_column = np.indices(shadow.shape)
        assert (shadow * at_column).sum() / shadow.sum() + left == pytest.approx(x, abs=0.03)
        assert (shadow * at_row).sum() / shadow.sum() + top == pytest.approx(y, abs=0.03)
        checked += 1
    assert checked


def test_later_sequences_get_truth_files_of_their_own_and_snaps_none(load, tmp_path):
    core = load()
    core.setProperty("Camera", "TruthFile", str(tmp_path / "truth.csv"))
    core.snapImage()
    burst(core, 2)
    burst(core, 3)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["truth-2.csv", "truth.csv"]
    assert {row["frame"] for row in rows_of(tmp_path / "truth-2.csv")} == {"0", "1", "2"}


def test_the_same_seed_gives_the_same_pictures(load):
    core = load("Camera,Seed,7")
    first, _ = burst(core, 3)
    core.unloadAllDevices()
    again, _ = burst(load("Camera,Seed,7"), 3)
    np.testing.assert_array_equal(first, again)
    core.unloadAllDevices()
    other, _ = burst(load("Camera,Seed,8"), 3)
    assert not np.array_equal(first, other)


def test_continuous_acquisition_stops_when_told_and_ends_the_truth(load, tmp_path):
    core = load("Camera,RealTime,1", "Camera,FrameRate,20")
    core.setProperty("Camera", "TruthFile", str(tmp_path / "truth.csv"))
    core.startContinuousSequenceAcquisition(0)
    deadline = time.monotonic() + 240
    while core.getRemainingImageCount() < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    core.stopSequenceAcquisition()
    assert not core.isSequenceRunning()
    taken = core.getRemainingImageCount()
    time.sleep(0.1)  # two more would have come
    assert core.getRemainingImageCount() == taken
    last = (tmp_path / "truth.csv").read_text()
    assert last.endswith("\n")
    assert last.count("\n") > 20


def test_paced_frames_are_due_on_the_cameras_own_clock(load):
    core = load("Camera,RealTime,1", "Camera,FrameRate,100")
    started = time.perf_counter()
    _, metadata = burst(core, 21)
    assert time.perf_counter() - started >= 0.2
    times = [float(m[TIME_KEY]) for m in metadata]
    assert times[-1] - times[0] == pytest.approx(int(metadata[-1][FRAME_NUMBER_KEY]) / 100, abs=1e-5)


def test_the_focus_moves_the_picture_through_the_particles(load, tmp_path):
    core = load("Camera,Diffusion_um2_s,0")
    core.setProperty("Pump", "FlowRate", 0.0)
    depths = []
    for number, focus_um in enumerate((140.0, 160.0)):
        core.setPosition(focus_um)
        core.waitForDevice("Focus")
        core.setProperty("Camera", "TruthFile", str(tmp_path / f"{number}.csv"))
        burst(core, 6)
        assert core.getPosition() == pytest.approx(focus_um, abs=0.01)
        last = [row for row in rows_of(tmp_path / f"{number}.csv") if row["frame"] == "5"]
        depths.append({row["particle"]: float(row["z_um"]) for row in last})
    shared = depths[0].keys() & depths[1].keys()
    assert len(shared) > 10
    for particle in shared:
        assert depths[1][particle] - depths[0][particle] == pytest.approx(-20.0, abs=0.02)


def test_the_pump_and_its_faults_can_be_set_and_read(load):
    core = load("Pump,Gain,0.9", "Pump,Lag_s,0.5")
    core.setProperty("Pump", "FlowRate", "0.1")
    assert core.getProperty("Pump", "FlowRate") == 0.1
    before = core.getProperty("Pump", "ActualFlow_uL_s")
    burst(core, 200)
    assert before < core.getProperty("Pump", "ActualFlow_uL_s") == pytest.approx(0.09, rel=1e-3)


@pytest.mark.parametrize(
    ("device", "name", "value", "message"),
    [
        ("Pump", "FlowRate", 99, "range"),
        ("Pump", "FlowRate", "fast", "Non-numeric"),
        ("Camera", "FrameRate", 0.1, "range"),
        ("Camera", "FrameRate", 5000, "exposure"),
        ("Camera", "DropEvery", 1, "every frame"),
        ("Camera", "DropEvery", 2.5, "whole number"),
        ("Camera", "Width", 640, "initialised"),
        ("Camera", "FramesLost", 0, "read-only"),
    ],
)
def test_a_property_out_of_range_is_refused_and_keeps_its_value(load, device, name, value, message):
    core = load()
    before = core.getProperty(device, name)
    with pytest.raises(ValueError, match=message):
        core.setProperty(device, name, value)
    assert core.getProperty(device, name) == before


@pytest.mark.parametrize(
    "line", ["Camera,Width,wide", "Camera,CondenserNA,0.3", "Camera,Polarity,grey", "Camera,Colour,red"]
)
def test_a_wrong_line_in_the_configuration_is_named(load, line):
    with pytest.raises(RuntimeError, match=line.split(",")[1]):
        load(line)


def test_the_focus_stays_within_its_limits(load):
    core = load("Focus,UpperLimit_um,200")
    with pytest.raises(ConfigurationError, match="within"):
        core.setPosition(250.0)
    with pytest.raises(ConfigurationError, match="too long for 50 frames"):
        core.setExposure(1000.0)
    with pytest.raises(ConfigurationError, match="origin"):
        core.setOrigin()
    assert core.getPosition() == 150.0


def test_a_truth_file_that_cannot_be_opened_is_an_error_before_the_first_frame(load, tmp_path):
    core = load()
    core.setProperty("Camera", "TruthFile", str(tmp_path / "nowhere" / "truth.csv"))
    with pytest.raises(OSError, match="TruthFile"):
        core.startSequenceAcquisition(3, 0, True)
    assert not core.isSequenceRunning()


def test_a_fault_in_the_cameras_thread_surfaces_and_can_be_read(load, monkeypatch):
    core = load()
    caught = []
    monkeypatch.setattr(threading, "excepthook", caught.append)

    def broken(*_):
        raise ValueError("the sensor is on fire")

    monkeypatch.setattr("acquisition.physics.rendering.Renderer.render", broken)
    core.startSequenceAcquisition(3, 0, True)
    deadline = time.monotonic() + 240
    while not caught and time.monotonic() < deadline:
        time.sleep(0.005)
    core.stopSequenceAcquisition()
    assert "on fire" in str(caught[0].exc_value)
    assert core.getProperty("Camera", "LastError") == "the sensor is on fire"


def test_a_microscope_that_did_not_start_says_why_when_it_is_used(load):
    core = load("Focus,StartPosition_um,99999")
    assert "cannot go" in core.getProperty("Focus", "LastError")
    with pytest.raises(ConfigurationError, match="cannot go to 99999"):
        core.getPosition()


def test_two_microscopes_in_one_process_need_two_worlds(load):
    load()
    core = UniMMCore()
    try:
        core.loadDevice("Camera2", "acquisition.simulated.devices", "SimulatedCamera")
        core.setProperty("Camera2", "Width", 64)
        core.initializeDevice("Camera2")
        assert "already has a SimulatedCamera" in core.getProperty("Camera2", "LastError")
        core.setProperty("Camera2", "World", "second")
        core.initializeDevice("Camera2")
        core.setCameraDevice("Camera2")
        core.snapImage()
        assert core.getImage().shape == (512, 64)
    finally:
        closed(core)


def test_a_camera_more_than_a_second_behind_loses_frames_visibly(load, monkeypatch):
    clock = SimulatedClock()
    for module in ("sequence", "world"):
        monkeypatch.setattr(f"acquisition.simulated.{module}.time", clock)
    core = load("Camera,RealTime,1", "Camera,FrameRate,50")
    camera = core._pydevices["Camera"]
    slow = threading.Event()

    def get_buffer(shape, dtype):
        if not slow.is_set():
            slow.set()
            clock.sleep(1.395)
        return np.empty(shape, dtype)

    numbers = [int(metadata[FRAME_NUMBER_KEY]) for metadata in camera.start_sequence(4, get_buffer)]
    lost = core.getProperty("Camera", "FramesLost")
    assert lost == 19  # frames 1 to 19 were due 1.375 to 1.015 s ago, frame 20 less than a second
    assert numbers == [0, 20, 21, 22]


def test_whoever_reads_the_focus_until_it_rests_finds_it_at_its_target_also_in_simulated_time(load):
    core = load("Focus,StartPosition_um,150")
    core.setPosition("Focus", 153.0)
    assert not core.deviceBusy("Focus")
    first_um = core.getPosition("Focus")
    readings_um = [core.getPosition("Focus") for _ in range(9)]
    assert first_um < 153.0 - 0.05
    assert readings_um[-1] == pytest.approx(153.0, abs=1e-3)
    assert readings_um[-1] == readings_um[-2]


def test_the_lamp_and_the_particles_can_be_taken_away_for_references(load):
    core = load("Camera,Diffusion_um2_s,0")
    (usual,), _ = burst(core, 1)
    core.setProperty("Camera", "Particles", 0)
    (bright,), _ = burst(core, 1)
    core.setProperty("Camera", "Lamp", 0)
    (dark,), _ = burst(core, 1)
    core.setProperty("Camera", "Lamp", 0.5)
    (half,), _ = burst(core, 1)
    assert dark.max() == 0
    assert half.mean() == pytest.approx(bright.mean() / 2, abs=0.5)
    assert usual.min() < bright.min() - 10
    assert core.getProperty("Camera", "Particles") == 0


def test_the_particles_there_are_can_be_had_with_their_heights(load, tmp_path):
    core = load("Camera,Diffusion_um2_s,0")
    core.setProperty("Pump", "FlowRate", 0)
    core.setProperty("Camera", "ParticlesFile", str(tmp_path / "all.csv"))
    core.setProperty("Camera", "TruthFile", str(tmp_path / "truth.csv"))
    burst(core, 2)
    everyone = {row["particle"]: row for row in rows_of(tmp_path / "all.csv")}
    seen = rows_of(tmp_path / "truth.csv")
    assert seen
    for row in seen:
        for column in ("x_um", "y_um", "height_um"):
            assert row[column] == everyone[row["particle"]][column]


def test_a_place_where_the_particles_cannot_be_written_is_refused(load, tmp_path):
    core = load()
    with pytest.raises((RuntimeError, ConfigurationError, OSError), match="ParticlesFile"):
        core.setProperty("Camera", "ParticlesFile", str(tmp_path / "nowhere" / "all.csv"))
