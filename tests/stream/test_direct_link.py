"""Messages between stages that take turns in one thread."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.direct_link import DirectLink
from stream.errors import LinkError, NoRoomError
from stream.messages import Detections, FrameInfo, StreamEnd
from stream.waker import Waker


def message(number):
    return Detections.empty(FrameInfo("run", number, number, float(number), 0, 0.0))


def numbers(link):
    found = []
    while (delivery := link.receiver.receive(0.0)) is not None:
        found.append(delivery.message.info.frame)
        delivery.done()
    return found


def test_messages_arrive_in_order_and_are_the_same_objects():
    link = DirectLink("run", "test")
    sent = [message(n) for n in range(3)]
    for one in sent:
        link.sender.send(one)
    taken = [link.receiver.receive(0.0) for _ in sent]
    assert all(delivery.message is one for delivery, one in zip(taken, sent, strict=True))
    assert link.receiver.receive(0.0) is None


def test_a_full_link_takes_no_message_until_one_is_acknowledged():
    link = DirectLink("run", "test", room=2)
    link.sender.send(message(0))
    link.sender.send(message(1))
    with pytest.raises(NoRoomError):
        link.sender.send(message(2))
    delivery = link.receiver.receive(0.0)
    assert not link.sender.wait_for_room(0.0), "taking a message is not acknowledging it"
    delivery.done()
    assert link.sender.send(message(2))


def test_the_end_comes_last_and_says_how_many_came_before():
    link = DirectLink("run", "liveptv/test")
    link.sender.send(message(0))
    link.sender.end("done")
    link.sender.end("done")
    link.receiver.receive(0.0).done()
    last = link.receiver.receive(0.0)
    assert last.message == StreamEnd("run", "liveptv/test", 1, 0, "done")
    assert not link.receiver.ended
    last.done()
    assert link.receiver.ended
    assert link.sender.flush(0.0)
    assert link.receiver.receive(0.0) is None
    with pytest.raises(LinkError):
        link.sender.send(message(1))


def test_nothing_can_be_dropped():
    link = DirectLink("run", "test")
    with pytest.raises(LinkError):
        link.sender.drop(1)


def test_who_waits_for_acknowledgements_gives_the_stages_behind_a_turn():
    link = DirectLink("run", "test")
    link.turn = lambda wait_s: numbers(link)
    link.sender.send(message(0))
    assert link.sender.flush(0.0)


def test_a_link_that_nobody_reads_acknowledges_by_itself_and_is_heard():
    heard = []
    link = DirectLink("run", "test", hear=heard.append)
    link.drains = True
    link.sender.send(message(0))
    link.sender.end()
    assert link.sender.flush(0.0)
    assert len(heard) == 2
    assert link.sender.account.balanced


def test_a_wait_ends_when_a_waker_is_woken():
    link, waker = DirectLink("run", "test"), Waker()
    link.receiver.woken_by([waker])
    waker.wake()
    assert link.receiver.receive(1000.0) is None  # the test's own limit is shorter than this wait
    link.receiver.close()
    waker.close()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["send", "take", "done"]), max_size=60), st.integers(1, 5))
def test_the_account_balances_at_every_moment(steps, room):
    link, taken, sent = DirectLink("run", "test", room), [], 0
    for step in steps:
        if step == "send" and link.sender.wait_for_room(0.0):
            link.sender.send(message(sent))
            sent += 1
        elif step == "take" and (delivery := link.receiver.receive(0.0)) is not None:
            taken.append(delivery)
        elif step == "done" and taken:
            taken.pop(0).done()
        account = link.sender.account
        assert account.balanced
        assert account.offered == sent
        assert account.unacknowledged == link.sender.queued <= room
        assert link.unread == sent - account.received
