"""The flow is followed through a run: through changes of the pump, and those that nobody has told."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from channel_tracks import Channel, run_of
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import LinkError
from stream.messages import Tracks
from tracking.physics.channel.parameters import prior_of
from tracking.physics.live.channel import LiveChannel
from tracking.physics.live.findings import findings_from
from tracking.physics.live.follower import FlowFollower
from tracking.physics.live.pump_history import PumpHistory
from tracking.physics.sections.choice import profile_of

CHANNEL = Channel(center_y_um=3.0, floor_um=5.0, yaw_deg=0.5, pitch_deg=0.2)
AREA_UM2, VISCOSITY_PA_S = 400.0 * 100.0, 1e-3


def runs(*parts, alive=150):
    """Messages of one run after the other, as one: (channel, seconds, set-point) each."""
    begun_s = 0.0
    for number, (channel, seconds, flow_ul_s) in enumerate(parts):
        for message in run_of(channel, alive, seconds, number):
            info = replace(message.info, time_s=begun_s + message.info.time_s, flow_ul_s=flow_ul_s)
            table = message.table.copy()
            table[Tracks.COLUMNS.index("track")] += 1e6 * number
            yield Tracks(info, table)
        begun_s += seconds


def followed(messages, **more):
    follower = FlowFollower(
        CHANNEL.section, prior_of(CHANNEL.section), viscosity_pa_s=VISCOSITY_PA_S, in_thread=False, **more
    )
    found = []
    for message in messages:
        follower.take_in(message)
        if (flow := follower.poll()) is not None:
            found.append(flow)
    return found, follower


def velocity(flow):
    return flow.findings.parameters["velocity_um_s"]


def test_a_run_finds_the_flow_once_a_second_with_all_that_follows_from_it():
    found, _ = followed(runs((CHANNEL, 12.0, 0.004)))
    assert 7 <= len(found) <= 11
    now = found[-1].findings
    assert now.frame == now.time_s * 20
    assert now.set_point_ul_s == 0.004
    truth = {
        "flow_rate_ul_s": 100.0 * AREA_UM2 / 1e9,
        "pressure_gradient_pa_m": 100.0 * profile_of(CHANNEL.section).resistance * VISCOSITY_PA_S * 1e6,
        "maximum_um_s": 100.0 * float(profile_of(CHANNEL.section).at(np.zeros(1), np.full(1, 50.0))[0]),
    }
    for name, value in truth.items():
        one = getattr(now, name)
        assert 0 < one.error < 0.01 * value
        assert one.value == pytest.approx(value, abs=4 * one.error)
    # What the liquid is pushed with is held by the wall.
    balance = now.pressure_gradient_pa_m.value * AREA_UM2 / 1000.0 * 1e-6
    assert now.mean_shear_pa.value == pytest.approx(balance, rel=2e-3)
    assert now.max_shear_pa.value > now.mean_shear_pa.value
    assert now.told == []
    assert now.profile_error < found[0].findings.profile_error
    assert now.diffusion_um2_s.value == pytest.approx(0.2, rel=0.25)
    assert not np.array(now.residuals.significant).any()
    heights = np.array(now.profile.height_um)
    assert heights[0] == pytest.approx(5.0, abs=1.0)
    assert heights[-1] == pytest.approx(105.0, abs=1.0)


def test_findings_come_back_from_json_and_anything_else_is_refused():
    found, _ = followed(runs((CHANNEL, 6.0, math.nan)))
    now = found[-1].findings
    facts = json.loads(json.dumps(now.facts()))
    assert findings_from({**facts, "kind": "flow", "wall_s": 0.0}) == now
    assert now.set_point_ul_s is None
    with pytest.raises(LinkError, match="flow_rate_ul_s"):
        findings_from({**facts, "flow_rate_ul_s": "fast"})


def test_after_a_step_of_the_pump_the_past_does_not_count_and_the_walls_are_still_known():
    slow = replace(CHANNEL, velocity_um_s=40.0)
    found, _ = followed(runs((CHANNEL, 12.0, 0.004), (slow, 7.0, 0.0016)), settle_s=1.0)
    before = [flow for flow in found if flow.findings.time_s < 12.0][-1]
    after = [flow for flow in found if flow.findings.time_s >= 12.0]
    assert after[0].findings.from_s == pytest.approx(13.0)
    for flow in after:
        assert velocity(flow).value == pytest.approx(40.0, abs=5 * velocity(flow).error)
        assert velocity(flow).error > velocity(before).error / 3
    floor = after[0].findings.parameters["floor_um"]
    assert floor.error < 2.0 * before.findings.parameters["floor_um"].error
    there = 5.0 + math.tan(math.radians(CHANNEL.pitch_deg)) * after[0].findings.reference_x_um
    assert floor.value == pytest.approx(there, abs=5 * floor.error)
    assert floor.told


def test_small_corrections_of_the_pump_scale_the_flow_and_nothing_begins_anew():
    parts = [
        (replace(CHANNEL, velocity_um_s=100.0 * factor), 3.0, 0.004 * factor)
        for factor in (1.0, 1.01, 0.98, 1.03)
    ]
    found, _ = followed(runs(*parts))
    assert {flow.findings.from_s for flow in found} == {found[0].findings.from_s}
    last = velocity(found[-1])
    assert last.value == pytest.approx(103.0, abs=4 * last.error)
    assert last.error < velocity(found[0]).error / 1.5


def test_a_change_behind_the_pumps_back_is_seen_and_followed():
    clogged = replace(CHANNEL, velocity_um_s=80.0)
    found, _ = followed(runs((CHANNEL, 10.0, 0.004), (clogged, 12.0, 0.004)))
    assert len({flow.findings.from_s for flow in found if flow.findings.time_s < 10.0}) == 1
    last = found[-1]
    assert 10.0 < last.findings.from_s < 20.0
    assert velocity(last).value == pytest.approx(80.0, abs=5 * velocity(last).error)


def test_a_pump_that_stands_still_gives_no_flow():
    resting = replace(CHANNEL, velocity_um_s=0.0)
    found, _ = followed(runs((resting, 5.0, 0.0)))
    assert found == []


def test_a_thread_finds_the_same_and_the_last_fit_has_everything():
    messages = list(runs((CHANNEL, 6.0, 0.004)))
    at_once, _ = followed(messages)
    follower = FlowFollower(CHANNEL.section, prior_of(CHANNEL.section), viscosity_pa_s=VISCOSITY_PA_S)
    for message in messages:
        follower.take_in(message)
        if message.info.frame % 20 == 19:
            last = follower.finish()  # in a run frames do not come faster than fits
    follower.close()
    assert last.findings.time_s == messages[-1].info.time_s
    assert velocity(last).value == pytest.approx(velocity(at_once[-1]).value, abs=3 * velocity(last).error)


@given(
    st.lists(st.tuples(st.floats(0.01, 3.0), st.floats(0.97, 1.03)), min_size=1, max_size=8),
    st.floats(0.0, 10.0),
    st.floats(0.01, 8.0),
)
def test_the_mean_flow_of_a_piece_is_that_of_the_set_points_over_its_time(steps, begin_s, long_s):
    history = PumpHistory()
    changes = np.cumsum([0.0, *(seconds for seconds, _ in steps[:-1])])
    flows = np.array([2.0 * part for _, part in steps])
    for time_s, flow in zip(changes, flows, strict=True):
        history.see(float(time_s), float(flow))
    fine = begin_s + (np.arange(4000) + 0.5) / 4000 * long_s
    expected = flows[np.searchsorted(changes, fine, side="right") - 1].mean() / history.reference_ul_s
    found = history.factors(np.array([begin_s]), np.array([begin_s + long_s]))
    assert found[0] == pytest.approx(expected, abs=1e-3)


def test_with_a_long_run_the_cost_of_a_fit_does_not_grow():
    live = LiveChannel(CHANNEL.section, prior_of(CHANNEL.section), 0.2)
    sizes = []
    for message in runs((CHANNEL, 20.0, 0.004)):
        live.take_in(message)
        if message.info.frame % 20 == 19 and live.update() is not None:
            sizes.append(len(live.fit.tracks))
    assert live.tracks > 800
    assert max(sizes[len(sizes) // 2 :]) <= 640
