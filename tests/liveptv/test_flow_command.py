"""`liveptv flow` says what flows through the channel of a trajectory file."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from liveptv.cli.main import run_command_line
from liveptv.flow_fit.channel_flow import channel_flow, flow_in
from liveptv.flow_fit.recorded import recorded_flow
from liveptv.flow_fit.region_flow import read_region, region_flow
from liveptv.flow_fit.run_settings import last_change_s, steady_flow_ul_s
from liveptv.flow_fit.words import in_words, region_words
from stream.errors import ConfigurationError
from stream.messages import FrameInfo, Tracks
from tracking.physics.channel.parameters import prior_of
from tracking.physics.live.follower import FlowFollower
from tracking.physics.sections.choice import profile_of
from tracking.physics.sections.section_text import section_from
from tracking.physics.sections.shapes import Ellipse, Rectangle
from tracking.trajectories.control_record import store_control
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter, read_trajectories
from tracking.trajectories.playback import play

WIDTH_UM, DEPTH_UM, FLOOR_UM, MEAN_UM_S = 300.0, 100.0, 20.0, 50.0


def channel_file(path, *, channel=True, tracks=200, frames=40):
    """Particles in a channel whose floor is at 20 um, measured with known errors."""
    rng = np.random.default_rng(0)
    x, y, z = rng.uniform(0, 200, tracks), rng.uniform(-140, 140, tracks), rng.uniform(3, 97, tracks)
    speed = MEAN_UM_S * profile_of(Rectangle(WIDTH_UM, DEPTH_UM)).at(y, z)
    attributes = {"image_shape": [300, 300], "pixel_size_um": 1.0}
    if channel:
        attributes["configuration"] = {"channel": {"width_um": WIDTH_UM, "depth_um": DEPTH_UM}}
    with TrajectoryWriter(path, run_id="run", attributes=attributes) as writer:
        for frame in range(frames):
            info = FrameInfo("run", frame, frame, frame / 10, 0, 0.0, focus_um=50.0, flow_ul_s=0.0015)
            noise = rng.normal(0, 1, (3, tracks)) * [[0.1], [0.1], [0.5]]
            writer.append(
                Tracks.from_columns(
                    info, track=np.arange(tracks), x_um=x + speed * frame / 10 + noise[0],
                    y_um=y + 150 + noise[1], z_um=z + FLOOR_UM - 50 + noise[2], sigma_x_um=0.1, sigma_y_um=0.1,
                    sigma_z_um=0.5, age_frames=frame, detection=np.arange(tracks),
                )
            )  # fmt: skip
        writer.finalize({}, "done")
    return path


def test_the_fits_of_a_run_are_read_back_from_its_file(tmp_path):
    path = channel_file(tmp_path / "tracks.h5", tracks=5, frames=5)
    assert recorded_flow(path) == []
    channel = Rectangle(WIDTH_UM, DEPTH_UM)
    follower = FlowFollower(channel, prior_of(channel), in_thread=False)
    fits = []
    for tracks in play_of(channel_file(tmp_path / "long.h5", frames=80)):
        follower.take_in(tracks)
        if (flow := follower.poll()) is not None:
            fits.append(flow.findings)
    assert len(fits) >= 2
    entries = [{"kind": "flow", "wall_s": 1.0, "text": "", **fit.facts()} for fit in fits]
    store_control(path, [{"kind": "measured", "wall_s": 1.0, "text": ""}, *entries])
    assert recorded_flow(path) == fits


def play_of(path):
    with TrajectoryFile(path) as file:
        yield from play(file)


def test_since_the_pump_changed_only_later_trajectories_count(tmp_path):
    first = read_trajectories(channel_file(tmp_path / "tracks.h5"))
    frames = first.frames.copy()
    frames["flow_ul_s"][:10] = 0.0007
    changed = replace(first, frames=frames)
    assert last_change_s(first) == -math.inf
    assert last_change_s(changed) == 1.0
    assert steady_flow_ul_s(changed) is None
    assert steady_flow_ul_s(changed, 1.0) == 0.0015
    with pytest.raises(ConfigurationError, match="too few"):
        flow_in(changed)  # every trajectory began before


def test_the_command_finds_flow_walls_shear_and_pressure(tmp_path, capsys):
    path = channel_file(tmp_path / "tracks.h5")
    assert run_command_line(["flow", str(path), "--viscosity", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rate = found["flow_rate_ul_s"]
    assert rate["value"] == pytest.approx(0.0015, abs=4 * rate["standard_error"])
    assert rate["set_point"] == 0.0015
    for name, true in [("floor_um", FLOOR_UM), ("center_y_um", 150.0), ("yaw_deg", 0.0)]:
        one = found["parameters"][name]
        assert one["told"]
        assert one["value"] == pytest.approx(true, abs=4 * one["standard_error"])
    balance = (
        found["pressure_gradient_pa_m"]["value"] * WIDTH_UM * DEPTH_UM / (2 * (WIDTH_UM + DEPTH_UM)) * 1e-6
    )
    assert found["wall_shear_pa"]["mean"]["value"] == pytest.approx(balance, rel=2e-3)
    assert found["misfit"]["told"] == []
    assert found["over_time"] == {"steady": True, "memory_s": None, "as_pump": False, "set_points_ul_s": None}
    assert run_command_line(["flow", str(path)]) == 0
    words = capsys.readouterr().out
    assert "flow rate" in words
    assert "set-point 0.0015" in words
    assert "nothing says that the flow is another one" in words


def test_another_section_than_the_channels_is_told(tmp_path):
    path = channel_file(tmp_path / "tracks.h5")
    found = channel_flow(path, section_from("ellipse:300x100"))
    assert "smooth" in found["misfit"]["told"]
    assert any("told: " in text for _, text in in_words(found))
    assert {one["parameter"] for one in found["better_with"]} == {"slip_um", "flow_index"}
    assert found["explained_by"] == "other"
    assert any("neither slip nor flow index" in text for _, text in in_words(found))


def test_the_depth_can_be_unknown(tmp_path):
    path = channel_file(tmp_path / "tracks.h5")
    depth = channel_flow(path, section_from("rectangle:300x95"), unknown=["depth_um"])["parameters"][
        "depth_um"
    ]
    assert depth["value"] == pytest.approx(DEPTH_UM, abs=4 * depth["standard_error"])


def test_a_file_without_a_channel_needs_one_and_a_strange_one_is_refused(tmp_path):
    path = channel_file(tmp_path / "tracks.h5", channel=False)
    with pytest.raises(ConfigurationError, match="--channel rectangle:400x100"):
        channel_flow(path)
    assert section_from("circle:80") == Ellipse(80.0, 80.0)
    assert section_from("polygon:0,0;100,0;50,40").area_um2 == pytest.approx(2000.0)
    for text in ("tube:80", "rectangle:80", "polygon:0,0;1", "circle:wide", "rectangle:80x"):
        with pytest.raises(ConfigurationError, match="is none that is known"):
            section_from(text)


def test_the_flow_in_a_region_has_flow_rates_shear_and_pressure(tmp_path, capsys):
    path = channel_file(tmp_path / "tracks.h5", channel=False)
    walls = tmp_path / "walls.toml"
    walls.write_text(
        f"corners_um = [[0, 0], [120, 0], [120, {WIDTH_UM}], [0, {WIDTH_UM}]]\n"
        f"depth_um = {DEPTH_UM}\nfloor_um = {FLOOR_UM}\n"
        f"[openings]\nleft = [[0, 0], [0, {WIDTH_UM}]]\nright = [[120, 0], [120, {WIDTH_UM}]]\n"
    )
    found = region_flow(path, read_region(walls), viscosity_pa_s=1e-3)
    left, right = found["inflow_ul_s"]["left"], found["inflow_ul_s"]["right"]
    assert left["value"] == pytest.approx(0.0015, abs=4 * left["standard_error"])
    assert left["standard_error"] < 1e-5
    assert right["value"] == pytest.approx(-left["value"])
    fall = found["pressure_pa"]["left"]
    true = MEAN_UM_S * profile_of(Rectangle(WIDTH_UM, DEPTH_UM)).resistance * 120 * 1e-3
    assert fall["value"] == pytest.approx(true, abs=4 * fall["standard_error"])
    assert not any(cell["told"] for cell in found["cells"])
    words = dict(region_words(found))
    assert {"in at left", "wall shear", "pressure at left", "model"} <= set(words)
    capsys.readouterr()
    assert run_command_line(["flow", str(path), "--region", str(walls), "--unknown", "depth_um"]) != 0
    assert "walls that are known" in capsys.readouterr().err
    walls.write_text("corners_um = 3")
    with pytest.raises(ConfigurationError, match="the region lacks"):
        read_region(walls)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_region(tmp_path / "none.toml")
