"""A small simulated experiment, run as a user would run it, and what came of it."""

import json
import signal
import time

import psutil

from liveptv.config import build_experiment
from liveptv.files import RunFiles
from liveptv.session.run_card import cards_folder, read_card
from liveptv.workflows.run import run_experiment
from tracking.trajectories.file import TrajectoryFile

SMALL = """
#py pyDevice,Camera,acquisition.simulated.devices,SimulatedCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py pyDevice,Pump,acquisition.simulated.devices,SimulatedPump
#py Property,Camera,Width,320
#py Property,Camera,Height,256
#py Property,Camera,ParticlesPerFrame,20
#py Property,Camera,RealTime,{real_time}
#py Property,Camera,FrameRate,{rate}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
#py Property,Pump,FlowRate,0.0246
"""


def small_experiment(folder, *, real_time=True, rate=60, frames=60, **sections):
    config = folder / "small.cfg"
    config.write_text(SMALL.format(real_time=int(real_time), rate=rate))
    data = {
        "run": {"frames": frames, "output": str(folder / "tracks.h5")},
        "microscope": {"config": str(config), "pixel_size_um": 0.8},
        "detector": {"polarity": "dark", "diameter_px": 15, "workers": 1},
        "session": {"hang_s": 20.0},
        "link": {
            "policy": "block"
        },  # lossless, so that a test can tell a lost frame; live runs: test_live_runs
    }
    for name, section in sections.items():
        data[name] = {**data.get(name, {}), **section}
    return build_experiment(data, "the test")


FRAMES_AFTER = 20


class Run:
    """One run with its notes, events and files; `act` is called once, after `act_after` frames.

    With `until`, the run is stopped some frames after its log says something, however long that takes.
    """

    def __init__(self, experiment, act=None, act_after=20, until=None):
        self.files = RunFiles.beside(experiment.run.output)
        self.notes, self.shown = [], []
        self._act, self._act_after = act, act_after
        self.acted_at = None
        self._until, self._stop_at = until, None
        self.outcome = run_experiment(
            experiment, self.files, on_update=self._update, on_note=self.notes.append
        )
        self.result = self.outcome.result

    def _update(self, progress):
        self.shown.append(progress.stage)
        if self._act is not None and progress.frames >= self._act_after:
            act, self._act = self._act, None
            self.acted_at = progress.frames
            act(self)
        if self._until is not None and self._act is None and self._until(self):
            self._until, self._stop_at = None, progress.frames + FRAMES_AFTER
        if self._stop_at is not None and progress.frames >= self._stop_at:
            self._stop_at = None
            signal.raise_signal(signal.SIGINT)

    def says(self, *texts):
        """Whether the log has all of these."""
        log = self.files.events.read_text() if self.files.events.exists() else ""
        return all(text in log for text in texts)

    def events(self, kind=None):
        lines = self.files.events.read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return [event for event in events if kind in {None, event["kind"]}]

    def keys(self):
        """What opens the command sockets of this run, as its own user's programs find it."""
        run_id = self.events("start")[0]["text"].removeprefix("run ")
        return read_card(cards_folder() / f"{run_id}.json").steering.security()

    def process(self, stage):
        return psutil.Process(next(e["pid"] for e in self.events("process") if e["stage"] == stage))

    def frames(self):
        with TrajectoryFile(self.files.tracks) as file:
            assert file.finished
            return file.frames["frame"].tolist(), file.attributes


def kill(stage):
    """An action that kills a stage's process at once."""
    return lambda run: run.process(stage).kill()


def wait_until(condition, within_s=180.0):
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
