"""`liveptv plan` says what an experiment takes, asks for what it lacks, and writes a protocol that runs."""

import json
import tomllib

import numpy as np
import pytest
from test_flow_command import channel_file

from liveptv.cli.main import run_command_line
from liveptv.config import build_experiment
from liveptv.planning.earlier_run import earlier_run
from liveptv.planning.planned import plan_of
from stream.errors import ConfigurationError

SETTINGS = {
    "microscope": {"config": "paper", "exposure_ms": 4.0, "pixel_size_um": 0.65},
    "channel": {"width_um": 400.0, "depth_um": 100.0, "floor_um": 12.0},
    "plan": {
        "frame_rate_hz": 20.0,
        "image_px": [512, 400],
        "particles_per_ml": 8e6,
        "flow_ul_s": 0.004,
        "localisation_um": [[-30, 0.2, 0.2, 2.3], [0, 0.1, 0.1, 0.8], [30, 0.2, 0.2, 2.3]],
        "wanted": {"flow_rate": 0.0005, "floor_um": 0.3},
    },
    "diffusion": {"temperature_c": 21.5, "water": True, "particle_diameter_um": 1.0},
}
TEXT = """
[microscope]
config = "paper"
exposure_ms = 4
pixel_size_um = 0.65
[channel]
width_um = 400
depth_um = 100
floor_um = 12
[plan]
frame_rate_hz = 20
image_px = [512, 400]
particles_per_ml = 8e6
flow_ul_s = 0.004
localisation_um = [[-30, 0.2, 0.2, 2.3], [0, 0.1, 0.1, 0.8], [30, 0.2, 0.2, 2.3]]
wanted = { flow_rate = 0.0005, floor_um = 0.3 }
[diffusion]
temperature_c = 21.5
water = true
particle_diameter_um = 1.0
"""


def changed(**plan):
    """The experiment with other settings in [plan]; None takes one away."""
    settings = {**SETTINGS["plan"], **plan}
    kept = {name: value for name, value in settings.items() if value is not None}
    return build_experiment({**SETTINGS, "plan": kept}, "test")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "experiment.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_plan_is_a_page_numbers_and_a_protocol(file, tmp_path, capsys):
    protocol = tmp_path / "protocol.toml"
    assert run_command_line(["plan", str(file), "-o", str(protocol)]) == 0
    page = capsys.readouterr().out
    for words in ("slices", "frames", "wanted 0.05 %", "error is from", "would help", "links"):
        assert words in page
    assert run_command_line(["plan", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["errors"]["flow_rate"] == pytest.approx(0.0005, rel=0.03)
    assert found["errors"]["floor_um"] <= 0.3
    assert found["frames"] == sum(one["frames"] for one in found["slices"])
    written = tomllib.loads(protocol.read_text(encoding="utf-8"))
    runs = build_experiment({**SETTINGS, **written}, "test").protocol
    foci = [focus for step in runs.steps for focus in step.foci_um()]
    assert foci == [one["focus_um"] for one in found["slices"]]
    assert sum(step.frames * len(step.foci_um()) for step in runs.steps) == found["frames"]
    assert run_command_line(["plan", str(file), "-o", str(protocol)]) == 1


def test_what_is_missing_is_asked_for_by_name_in_one_line(file, capsys):
    file.write_text('[microscope]\nconfig = "paper"\n', encoding="utf-8")
    assert run_command_line(["plan", str(file)]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    for name in ("plan.wanted", "plan.frame_rate_hz", "plan.particles_per_ml", "diffusion.temperature_c"):
        assert name in said


def test_a_smaller_error_takes_more_frames():
    few, many = (plan_of(changed(wanted={"flow_rate": error})) for error in (4e-4, 2e-4))
    assert 2.5 < many["frames"] / few["frames"] < 6.0


def test_given_slices_and_frames_are_only_looked_at():
    found = plan_of(changed(slices=[40.0, 60.0, 80.0], frames=50))
    assert [one["focus_um"] for one in found["slices"]] == [40.0, 60.0, 80.0]
    assert found["frames"] == 150
    assert found["reached"]
    assert not plan_of(changed(frames=20, wanted={"flow_rate": 1e-4}))["reached"]


def test_paths_that_bounce_off_the_walls_are_a_caution():
    def cautions(**plan):
        return [one["text"] for one in plan_of(changed(**plan))["findings"] if one["what"] == "walls"]

    slow = {"frames": 400, "flow_ul_s": 0.0008, "wanted": {"wall_shear": 0.01}}
    (text,) = cautions(**slow)
    assert "paths bounce off" in text
    assert cautions(frames=15) == []
    assert cautions(**{**slow, "localisation_um": [[-30, 0.2, 0.2, 60.0], [30, 0.2, 0.2, 60.0]]}) == []


def test_diffusion_is_planned_without_a_channel():
    plan = {**SETTINGS["plan"], "wanted": {"diffusion": 0.02}, "flow_ul_s": None, "depth_range_um": [-5, 5]}
    given = {name: value for name, value in plan.items() if value is not None}
    rest = {name: value for name, value in SETTINGS.items() if name != "channel"}
    found = plan_of(build_experiment({**rest, "plan": given}, "test"))
    assert found["errors"] == {"diffusion": pytest.approx(0.02, rel=0.05)}
    assert any(one["what"] == "Brownian steps" for one in found["findings"])


def test_an_uncertain_viscosity_bounds_the_wall_shear():
    rest = {**SETTINGS, "diffusion": {**SETTINGS["diffusion"], "temperature_error_c": 1.0}}
    rest["plan"] = {**SETTINGS["plan"], "wanted": {"wall_shear": 0.01}}
    with pytest.raises(ConfigurationError, match=r"the viscosity alone is uncertain by 0\.024"):
        plan_of(build_experiment(rest, "test"))


def test_slices_stay_within_the_limits():
    limited = {**SETTINGS, "limits": {"min_focus_um": 0.0, "max_focus_um": 60.0}}
    found = plan_of(build_experiment(limited, "test"))
    assert max(one["focus_um"] for one in found["slices"]) <= 60.0


def test_an_earlier_run_gives_errors_particles_image_and_rate(tmp_path):
    path = channel_file(tmp_path / "tracks.h5")
    like = earlier_run(path)
    assert like.image_px == (300, 300)
    assert like.frame_rate_hz == pytest.approx(10.0)
    assert like.localisation.sigma_um[2] == pytest.approx(0.5)
    assert np.ptp(like.localisation.z_um) == pytest.approx(95, abs=3)
    assert like.particles_per_um3 == pytest.approx(200 / (300 * 300 * 95), rel=0.05)
    found = plan_of(changed(like=path, localisation_um=None, particles_per_ml=None, frame_rate_hz=None))
    assert found["frame_rate_hz"] == pytest.approx(10.0)
