import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from page_runs import card_of, info_of, messages_of, view_of

from liveptv.monitor.images import block_means, small_image
from liveptv.monitor.packets import image_packet, packet, unpack
from liveptv.monitor.run_view import RunView
from liveptv.monitor.running_profile import RunningProfile
from stream.messages import Frame, StageState, Status, TrackFlag, Tracks
from tracking.physics.channel.parameters import PARAMETERS


def test_an_image_is_shown_once_its_detections_and_its_tracks_are_there():
    view = RunView()
    view.introduce(card_of())
    frame, found, tracks = messages_of(3)
    view.take(frame)
    view.take(found)
    assert view.shown is None
    view.take(tracks)
    assert view.shown.frame is frame
    assert view.shown.detections is found
    assert view.shown.tracks is tracks


def test_of_a_detector_alone_images_are_shown_without_tracks():
    view = RunView()
    frame, found, _ = messages_of(3)
    view.take(frame)
    view.take(found)
    assert view.shown.tracks is None
    header, blobs = unpack(image_packet(view, view.shown))
    assert header["particles"] == 8
    assert len(blobs[2]) == 0


def test_a_packet_holds_the_positions_of_what_was_found():
    view = view_of(4)
    header, (jpeg, found, tracked) = unpack(image_packet(view, view.shown))
    rows = np.frombuffer(found, "<f4").reshape(3, -1)
    assert jpeg[:2] == b"\xff\xd8"
    assert header["frame"] == 3
    np.testing.assert_allclose(rows, view.shown.detections.table[:3], rtol=1e-6)
    assert np.frombuffer(tracked, "<f4").reshape(4, -1)[0].tolist() == list(range(8))
    assert 0 <= header["age_ms"] < 10_000


@given(st.dictionaries(st.text(max_size=5).filter(lambda key: key != "blobs"), st.integers(0, 9)),
       st.lists(st.binary(max_size=40), max_size=4))  # fmt: skip
def test_a_packet_is_what_was_put_in(header, blobs):
    found, parts = unpack(packet(header, *blobs))
    assert parts == blobs
    assert {key: value for key, value in found.items() if key != "blobs"} == header


@given(arrays(np.uint16, st.tuples(st.integers(5, 20), st.integers(5, 20))), st.integers(1, 5))
def test_block_means_are_the_means_of_the_blocks(image, block):
    rows, columns = image.shape[0] // block, image.shape[1] // block
    blocks = image[: rows * block, : columns * block].reshape(rows, block, columns, block)
    np.testing.assert_allclose(block_means(image, block), blocks.mean(axis=(1, 3)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (1440, 2560), (2, 64, 48)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_image_becomes_a_small_one_that_covers_the_same_field(shape, dtype):
    image = np.zeros(shape, dtype)
    small = small_image(Frame(info_of(0), image))
    assert max(small.width_px, small.height_px) <= 960
    assert small.width_um == pytest.approx(0.8 * shape[-1], rel=0.02, abs=3)
    assert small.white > small.black


def test_the_profile_shows_each_height_with_its_velocity_and_the_laminar_flow_beside_it():
    facts = view_of(30, speed_um_s=70.0, particles=20).summary()["profile"]
    assert facts["tracks"] == 20
    np.testing.assert_allclose(facts["velocity_um_s"], 70.0, rtol=1e-6)
    assert min(facts["height_um"]) == pytest.approx(105, abs=1)
    assert max(facts["theory"]["velocity_um_s"]) > 0


def test_the_profile_begins_anew_when_the_flow_is_changed():
    view = view_of(30, speed_um_s=70.0)
    for number in range(30, 60):
        view.take(messages_of(number, speed_um_s=140.0, flow_ul_s=0.04)[2])
    facts = view.summary()["profile"]
    np.testing.assert_allclose(facts["velocity_um_s"], 140.0, rtol=1e-6)
    assert facts["since_s"] == pytest.approx(0.6)


def test_predicted_and_doubly_detected_rows_are_in_no_profile():
    profile = RunningProfile()
    for number in range(20):
        tracks = messages_of(number)[2]
        flags = np.where(np.arange(8) < 4, int(TrackFlag.PREDICTED), int(TrackFlag.SECOND_DETECTION))
        columns = {name: getattr(tracks, name) for name in Tracks.COLUMNS} | {"flags": flags}
        profile.update(Tracks.from_columns(tracks.info, **columns))
    assert profile.velocities()[0].size == 0


def test_the_state_is_that_of_the_run():
    view = RunView()
    assert view.state() == "waiting"
    view.take(Status("r", "acquire", StageState.STARTING))
    assert view.state() == "starting"
    view.take(Status("r", "acquire", StageState.RUNNING))
    assert view.state() == "running"
    view.happened({"kind": "wish", "command": "pause", "accepted": True, "text": "", "wall_s": 0.0})
    assert view.state() == "paused"
    view.happened({"kind": "lost", "text": "track was lost", "wall_s": 0.0})
    view.happened({"kind": "end", "text": "done", "failures": ["track was lost"], "wall_s": 0.0})
    assert (view.state(), view.over) == ("failed", "track was lost")


def test_values_of_a_stage_that_no_longer_reports_are_not_shown_as_present(monkeypatch):
    view = view_of(2)
    view.take(Status("r", "track", StageState.RUNNING, gauges={"tracks": 7.0}))
    assert view.summary()["tracks"] == 7.0
    monkeypatch.setattr("liveptv.monitor.stage_statuses.FRESH_S", -1.0)
    assert view.summary()["tracks"] is None


def test_losses_are_named_by_where_they_happened():
    view = view_of(2)
    view.take(Status("r", "acquire", StageState.RUNNING, {"lost_in_camera": 3, "to_detect.dropped": 2}))
    assert view.summary()["losses"]["in the camera"] == 3
    assert view.summary()["losses"]["before the detector"] == 2


def test_a_late_viewer_gets_the_events_that_are_kept_and_then_only_new_ones():
    view = RunView()
    for number in range(500):
        view.happened({"kind": "note", "text": str(number), "wall_s": 0.0})
    seen, events = view.events_after(0)
    assert (seen, events[-1]["text"]) == (500, "499")
    view.happened({"kind": "note", "text": "new", "wall_s": 0.0})
    assert [event["text"] for event in view.events_after(seen)[1]] == ["new"]


def test_a_session_whose_process_ends_without_an_end_event_has_failed():
    view = view_of(2)
    view.gone()
    assert view.state() == "failed"
    assert "recover" in view.over
    ended = view_of(2)
    ended.happened({"kind": "end", "text": "done", "failures": [], "wall_s": 0.0})
    ended.gone()
    assert ended.state() == "ended"


def test_a_recalibration_that_is_proposed_stays_on_the_page():
    view = RunView()
    assert view.summary()["proposed"] == ""
    proposal = {
        "kind": "recalibration",
        "text": "recalibration proposed: x",
        "proposed": "m.onnx",
        "wall_s": 0.0,
    }
    view.happened(proposal)
    view.happened({"kind": "recalibration", "text": "recalibration has ended", "wall_s": 1.0})
    assert view.summary()["proposed"] == "recalibration proposed: x"
    assert [event["text"] for event in view.events] == [
        "recalibration proposed: x",
        "recalibration has ended",
    ]


def fit_of(flow_ul_s=0.004, **changed):
    number = {"value": 1.0, "error": 0.01}
    cells = [[0.5, None], [-0.2, 0.1]]
    return {
        "kind": "flow", "wall_s": 1.0, "text": "", "frame": 3, "time_s": 0.1, "from_s": 0.0, "tracks": 90,
        "set_point_ul_s": flow_ul_s, "reference_x_um": 10.0,
        "parameters": {name: {**number, "told": name != "roll_deg"} for name in PARAMETERS},
        "maximum_um_s": {"value": -80.0, "error": 0.1}, "flow_rate_ul_s": {"value": 0.0041234, "error": 1.2e-5},
        "mean_shear_pa": number, "max_shear_pa": number, "pressure_gradient_pa_m": number, "profile_error": 0.01,
        "profile": {"height_um": [0.0, 50.0], "velocity_um_s": [0.0, 80.0], "error_um_s": [0.0, 1.0]},
        "residuals": {
            "y_um": [-1.0, 0.0, 1.0], "z_um": [0.0, 1.0, 2.0], "residual_um_s": cells,
            "significant": [[True, False], [False, False]],
        },
        "told": [], "tests": {"slip_um": {"p": 1e-7, "size": 0.031}}, "stuck": 0.01, "wrong": 0.02,
    } | changed  # fmt: skip


def test_the_newest_fit_of_the_flow_is_shown_with_its_errors():
    view = view_of(4)
    assert view.summary()["flow"] is None
    view.happened(fit_of(flow_ul_s=None))
    shown = view.summary()["flow"]
    rows = {row["name"]: row["text"] for row in shown["rows"]}
    assert rows["flow rate"] == "0.004123 ± 1.2e-05 µL/s"
    assert rows["model"] == "nothing says that the flow is another one"
    assert shown["maximum_um_s"] == 80.0
    assert not shown["differs"]
    assert shown["residuals"]["residual_um_s"][0][1] is None
    view.happened(fit_of(flow_ul_s=None, told=["slip_um"]))
    told = view.summary()["flow"]
    assert told["differs"]
    assert "a slip at the walls; up to 3.1 %" in {row["name"]: row["text"] for row in told["rows"]}["model"]


def test_a_fit_of_the_flow_before_the_pump_was_changed_says_so():
    view = view_of(4)
    flow_ul_s = view.summary()["flow_ul_s"]
    view.happened(fit_of(flow_ul_s=1.0 if flow_ul_s is None else 2.0 * flow_ul_s + 1.0))
    assert view.summary()["flow"]["was_before"]


def test_an_entry_that_is_no_fit_is_told_and_changes_nothing():
    view = view_of(4)
    view.happened(fit_of(flow_ul_s=None))
    before = view.summary()["flow"]
    view.happened(fit_of(tracks="many"))
    assert view.summary()["flow"] == before
    assert "not a fit of the flow" in list(view.events)[-1]["text"]
