"""When a sender calls its receiver stalled, lost or alone: by the times it is given, to the millisecond."""

from __future__ import annotations

import pytest

from stream.link import PeerState
from stream.peer import GRACE_S, PeerWatch

PATIENCE_S = 3.0


@pytest.fixture
def peer() -> PeerWatch:
    """A receiver that was accepted at time 100."""
    watch = PeerWatch(PATIENCE_S, 0.0)
    watch.accept(b"first", 1, 100.0)
    return watch


def test_a_receiver_that_acknowledges_nothing_is_stalled_once_patience_is_over(peer: PeerWatch) -> None:
    peer.progresses(101.0)
    peer.judge(True, 101.0 + PATIENCE_S)
    assert peer.state is PeerState.CONNECTED
    peer.judge(True, 101.001 + PATIENCE_S)
    assert peer.state is PeerState.STALLED
    peer.progresses(105.0)
    peer.judge(True, 105.0)
    assert peer.state is PeerState.CONNECTED


def test_a_receiver_that_nothing_waits_for_is_never_stalled(peer: PeerWatch) -> None:
    peer.judge(False, 1e6)
    assert peer.state is PeerState.CONNECTED


def test_a_receiver_that_cannot_be_reached_is_lost_after_half_a_second(peer: PeerWatch) -> None:
    peer.cannot_be_reached(110.0)
    peer.cannot_be_reached(110.4)
    peer.judge(True, 110.0 + GRACE_S)
    assert (peer.state, peer.alone_since_s, peer.can_be_sent_to) == (PeerState.CONNECTED, None, False)
    assert peer.is_stranger(b"second")
    peer.judge(True, 110.001 + GRACE_S)
    assert (peer.state, peer.alone_since_s) == (PeerState.LOST, 110.001 + GRACE_S)
    assert not peer.is_stranger(b"second")  # whoever comes now takes its place


def test_with_little_patience_a_receiver_is_lost_sooner() -> None:
    peer = PeerWatch(0.4, 0.0)
    peer.accept(b"first", 1, 0.0)
    peer.cannot_be_reached(0.0)
    peer.judge(False, 0.201)
    assert peer.state is PeerState.LOST


def test_a_connection_that_comes_back_in_time_costs_nothing(peer: PeerWatch) -> None:
    peer.cannot_be_reached(110.0)
    peer.lives(110.3)
    peer.judge(True, 110.3 + PATIENCE_S)
    assert (peer.state, peer.reconnects) == (PeerState.CONNECTED, 0)
    peer.accept(b"first", 2, 120.0)
    assert peer.reconnects == 1


def test_from_a_goodbye_on_the_sender_is_alone_until_the_next_one(peer: PeerWatch) -> None:
    peer.leaves(130.0)
    peer.judge(True, 200.0)
    assert (peer.state, peer.alone_since_s) == (PeerState.WAITING, 130.0)
    peer.accept(b"second", 1, 210.0)
    assert (peer.state, peer.alone_since_s, peer.reconnects) == (PeerState.CONNECTED, None, 1)
