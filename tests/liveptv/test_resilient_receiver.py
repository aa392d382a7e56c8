"""Silence is not loss: a neighbour is lost when the session says so, and taken back when it comes back."""

import pytest

from liveptv.session import resilient_receiver as upstream
from liveptv.session.resilient_receiver import ResilientReceiver
from stream.errors import PeerLostError
from stream.link import LinkAccount, PeerState
from stream.messages import StreamEnd


class FakeLink:
    """Hands out `messages`; an exception among them is raised."""

    address = "tcp://127.0.0.1:1"

    def __init__(self, *messages):
        self.messages, self.peer, self.ended = list(messages), PeerState.CONNECTED, False
        self.account, self.given_up = LinkAccount(), ""

    def receive(self, timeout_s):
        if self.messages:
            message = self.messages.pop(0)
            if isinstance(message, Exception):
                raise message
            return message
        if self.given_up:
            raise PeerLostError(self.given_up)
        return None

    def give_up(self, why):
        self.given_up = why

    def close(self):
        return self.account


@pytest.fixture
def receiver():
    links, said = [FakeLink()], []
    one = ResilientReceiver(lambda: links[-1], run_id="run", neighbour="track", report=said.append)
    return one, links, said


def test_a_silent_neighbour_is_waited_for_and_taken_back(receiver):
    one, links, said = receiver
    links[0].peer = PeerState.STALLED
    for _ in range(5):
        assert one.receive(0.0) is None
    assert said == ["track gives no sign of life; waiting for it to come back"]
    assert not one.ended
    links[0].peer = PeerState.CONNECTED
    links[0].messages.append("tracks")
    assert one.receive(0.0) == "tracks"
    assert "is back after" in said[-1]


def test_a_neighbour_that_was_started_again_is_listened_to(receiver):
    one, links, said = receiver
    links[0].messages.append(PeerLostError("was restarted without its memory"))
    links.append(FakeLink("first of the new one"))
    assert one.receive(0.0) is None
    assert one.receive(0.0) == "first of the new one"
    assert "is back" in said[-1]


def test_what_has_arrived_is_delivered_before_a_lost_neighbour_ends_the_stream(receiver):
    one, links, _ = receiver
    links[0].messages += ["one", "two"]
    one.give_up("killed by SIGKILL")
    assert [one.receive(0.0), one.receive(0.0)] == ["one", "two"]
    ends = [delivery for _ in range(3) if (delivery := one.receive(0.0)) is not None]
    assert len(ends) == 1
    assert isinstance(ends[0].message, StreamEnd)
    assert "killed by SIGKILL" in ends[0].message.reason
    assert one.ended
    assert one.receive(0.0) is None


def test_without_a_session_a_long_silence_ends_the_stream(receiver, monkeypatch):
    one, links, _ = receiver
    now = [0.0]
    monkeypatch.setattr(upstream.time, "monotonic", lambda: now[0])
    links[0].peer = PeerState.STALLED
    one.orphaned(30.0)
    assert one.receive(0.0) is None
    now[0] = 29.0
    assert one.receive(0.0) is None
    now[0] = 31.0
    assert "the session is gone" in one.receive(0.0).message.reason
