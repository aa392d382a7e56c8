"""Controllers in volumes, on the simulated microscope in simulated time: a scan that is moved by what it finds."""

from contextlib import ExitStack

import numpy as np
import pytest

from acquisition.commands.execution import CommandExecutor
from acquisition.microscope.microscope import Microscope
from acquisition.settings import LimitsSettings, MicroscopeSettings
from acquisition.volumes.settings import VolumeSettings
from acquisition.volumes.stream import VolumeStream
from engines.settings import DetectorSettings
from engines.volumes.engine import VolumeEngine
from liveptv.config import build_experiment
from tracking.control.controllers import load_controller
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

MICROSCOPE = """
#py pyDevice,Camera,acquisition.simulated.devices,FluorescenceCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py Property,Camera,Width,96
#py Property,Camera,Height,96
#py Property,Camera,ChannelWidth_um,40
#py Property,Camera,ChannelDepth_um,30
#py Property,Camera,ParticlesPerVolume,150
#py Property,Camera,Peak,200
#py Property,Camera,Diffusion_um2_s,0.002
#py Property,Camera,DriveStarts_per_s,0
#py Property,Camera,FrameRate,200
#py Property,Camera,RealTime,0
#py Property,Focus,StartPosition_um,15
#py Property,Focus,LowerLimit_um,0
#py Property,Focus,UpperLimit_um,40
#py Property,Focus,Lag_s,0
#py Property,Focus,Drift_um_s,{drift}
#py Property,Focus,SequenceMaxLength,1000
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
"""
DRIFT_UM_S = 0.3
VOLUMES = 120


def rehearsed(folder, controller):
    """Runs the loop, volume by volume; returns the commands, the answers, and what the last volume says of itself.

    The drive is stepped: a camera that fills a buffer as fast as it can would be far ahead of its commands."""
    path = folder / "drifting.cfg"
    path.write_text(MICROSCOPE.format(drift=DRIFT_UM_S))
    settings = MicroscopeSettings(config=str(path), pixel_size_um=0.2)
    limits = LimitsSettings(min_focus_um=2, max_focus_um=28, max_focus_step_um=2)
    commands, answers = [], []
    with ExitStack() as stack:
        microscope = Microscope(settings)
        stack.callback(microscope.close)
        stream = VolumeStream(
            microscope, settings, VolumeSettings(slices=10, z_step_um=0.5, centre_um=15, mode="stepped"), limits,
            run_id="x", report=lambda _: None,
        )  # fmt: skip
        stack.callback(stream.close)
        executor = CommandExecutor(microscope, stream, limits, focus=stream.steering, clock=stream.now_s)
        spots = DetectorSettings(spot_um=[0.26, 0.26, 0.65], workers=1)
        engine = VolumeEngine(spots, 0.2, say=lambda _: None)
        stack.callback(engine.close)
        tracker = OnlineTracker(TrackerSettings())
        stream.start()
        number = heard = 0
        while number < VOLUMES:
            answers += executor.poll()
            frame = stream.read(5.0)
            if frame is None:
                continue
            number += 1
            answers += executor.frame_taken(frame)
            while heard < len(answers):
                controller.acknowledged(answers[heard])
                heard += 1
            engine.submit(frame)
            found = []
            while not found:
                found = engine.results(5.0)
            for command in controller.update(tracker.step(found[0])):
                commands.append(command)
                answer = executor.execute(command)
                answers += [] if answer is None else [answer]
        last = frame.info
    return commands, answers, last


def test_the_scan_follows_a_drift_of_the_focus(tmp_path):
    experiment = build_experiment(
        {
            "microscope": {"config": "simulated"},
            "limits": {"min_focus_um": 2, "max_focus_um": 28, "max_focus_step_um": 2},
            "controller": {"hold_focus": {"reference": "tracks"}},
        },
        "the test",
    )
    controller = load_controller(experiment.controller, None, experiment.limits.watchdog_s)
    commands, answers, last = rehearsed(tmp_path, controller)
    assert commands
    assert all(answer.accepted for answer in answers), [answer.reason for answer in answers]
    assert len(answers) >= len(commands) - 1
    assert last.focus_um == pytest.approx(12.75 - DRIFT_UM_S * last.time_s, abs=0.8)
    assert np.isfinite([command.value for command in commands]).all()
