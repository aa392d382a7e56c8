"""What the session sees itself asks the recorder for an event; and what the page shows of events."""

import pytest
from page_runs import card_of
from pydantic import ValidationError

from acquisition.recorder.conditions import ConditionSettings
from acquisition.recorder.settings import RecordSettings
from liveptv.monitor.recorded_events import SHOWN, RecordedEvents
from liveptv.monitor.run_view import RunView
from liveptv.monitor.steering import command_from
from liveptv.session.builders.control import record_conditions
from liveptv.session.plan import HARDWARE, Recorded
from liveptv.session.record_triggers import RecordTriggers
from stream.messages import CommandKind


def lost(count):
    return {"acquire": {"lost_in_camera": count}}


def triggers(**on):
    asked = []
    return RecordTriggers(ConditionSettings(**on), asked.append), asked


def test_enough_losses_within_a_second_ask_once_for_the_same_losses():
    found, asked = triggers(losses=10)
    for step in range(40):
        found.look(0.2 * step, lost(0 if step < 20 else 12), [])
    (command,) = asked
    assert command.kind is CommandKind.RECORD
    assert command.sender == "record.on.losses"
    found.look(9.0, lost(30), [])
    assert len(asked) == 2


def test_losses_that_are_spread_out_are_no_event():
    found, asked = triggers(losses=10)
    for step in range(200):
        found.look(0.2 * step, lost(step), [])
    assert asked == []


def test_losses_before_the_detector_and_the_tracker_count_together():
    found, asked = triggers(losses=10)
    found.look(0.0, {}, [])
    found.look(0.1, {"acquire": {"to_detect.dropped": 6}, "detect": {"to_track.dropped": 5}}, [])
    assert len(asked) == 1


def test_each_alarm_of_the_self_check_asks():
    found, asked = triggers(self_check=True)
    for alarms in (0, 0, 1, 1, 3, 3):
        found.look(0.0, {}, [{"check_alarms": float(alarms)}, {"frames_per_s": 60.0}])
    found.look(0.0, {}, [{"check_alarms": 3.0}, {"check_alarms_of_tracks": 1.0}])
    assert [command.sender for command in asked] == ["record.on.self_check"] * 3


def test_a_detector_that_was_started_again_has_no_new_alarm():
    found, asked = triggers(self_check=True)
    for alarms in (2, 0, 1, 2):
        found.look(0.0, {}, [{"check_alarms": float(alarms)}])
    assert len(asked) == 1


def test_a_property_that_changed_asks_for_its_frame():
    found, asked = triggers(hardware="DIn.Pin1")
    found.recorded(Recorded("link", "something else", {}))
    found.recorded(Recorded(HARDWARE, "DIn.Pin1 became 1 at frame 77", {"frame": 77, "value": 1.0}))
    (command,) = asked
    assert (command.decided_on_frame, command.value) == (77, "DIn.Pin1 became other than 0")


def test_without_conditions_nothing_is_asked_for():
    found, asked = triggers()
    for step in range(20):
        found.look(0.1 * step, lost(1000 * step), [{"check_alarms": float(step)}])
    assert asked == []


@pytest.mark.parametrize(("text", "value"), [("a  bubble\n", "a bubble"), ("", None), (None, None)])
def test_the_page_asks_for_an_event_with_a_reason_in_one_line(text, value):
    command = command_from({"kind": "record", "value": text})
    assert (command.kind, command.value, command.sender) == (CommandKind.RECORD, value, "page")


def event(number, **more):
    return {
        "kind": "event", "event": number, "why": "why", "sender": "page", "frame": 10 * number, "wall_s": 1.0,
        "time_s": 1.0 * number, "frames": 0, "lost": 0, "ended": False, "text": "in words", **more,
    }  # fmt: skip


def test_the_page_lists_events_with_what_is_kept_once_they_have_ended():
    view = RunView()
    record = {"mode": "events", "before_s": 5.0, "after_s": 3.0}
    view.introduce(card_of(configuration={**card_of().configuration, "record": record}))
    view.happened(event(1))
    view.happened(event(2))
    view.happened(event(1, frames=200, ended=True))
    shown = view.summary()["recorded"]
    assert (shown["mode"], shown["before_s"], shown["after_s"]) == ("events", 5.0, 3.0)
    assert [(one["event"], one["frames"], one["ended"]) for one in shown["events"]] == [
        (2, 0, False),
        (1, 200, True),
    ]


def test_the_page_of_a_run_that_records_nothing_has_no_list():
    view = RunView()
    view.introduce(card_of())
    view.happened(event(1))
    assert view.summary()["recorded"] is None


def test_of_many_events_the_newest_are_shown():
    recorded = RecordedEvents({"record": {"mode": "all"}})
    for number in range(1, 3 * SHOWN):
        recorded.happened(event(number))
    shown = [one["event"] for one in recorded.facts()["events"]]
    assert shown == list(range(3 * SHOWN - 1, 2 * SHOWN - 1, -1))


def test_conditions_on_tracks_are_made_from_the_experiment_file():
    settings = RecordSettings(
        mode="events",
        on={
            "particle_enters": {"max_height_um": 20.0, "min_track_frames": 3, "kind": 1},
            "velocity_leaves": {"axis": "y", "max_um_s": 9.0, "for_s": 2.0, "min_tracks": 1},
        },
    )
    enters, leaves = record_conditions(settings)
    assert enters.sender == "record.on.particle_enters"
    assert leaves.why == "the velocity along y is outside 9 um/s and less"
    assert record_conditions(RecordSettings(mode="events")) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"particle_enters": {"kind": 1}}, "the region has no edges"),
        ({"particle_enters": {"min_x_um": 5, "max_x_um": 5}}, "the region is empty"),
        ({"velocity_leaves": {"axis": "x"}}, "the band has no edges"),
        ({"velocity_leaves": {"min_um_s": 5, "max_um_s": 1}}, "min_um_s must be less"),
        ({"hardware": "DIn"}, 'give it as "Device.Property"'),
        ({"losses": 0}, "greater than or equal to 1"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        ConditionSettings(**wrong)


def test_an_event_that_is_longer_than_the_longest_one_is_refused():
    with pytest.raises(ValidationError, match="after_s must not be above"):
        RecordSettings(after_s=20.0, most_s=10.0)
