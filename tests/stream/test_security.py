"""Who gets in: everybody on this machine, and with keys those whose keys are known."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wire_strategies import a_frame

from stream.commands import CommandClient, CommandServer
from stream.errors import ConfigurationError, LinkError, OutputError
from stream.links import open_receiver, open_sender
from stream.messages import Command, CommandKind, CommandReply, Frame, StageState, Status
from stream.monitor import MonitorPublisher, MonitorSubscriber
from stream.security import CurveKeys, check_bind, generate_keys, load_keys
from stream.status import StatusSink, StatusSource

ANYWHERE = "tcp://127.0.0.1:0"
UNHEARD_S = 0.7


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> CurveKeys:
    return generate_keys(tmp_path_factory.mktemp("keys") / "host")


@pytest.fixture(scope="module")
def others(keys: CurveKeys, tmp_path_factory: pytest.TempPathFactory) -> CurveKeys:
    """Keys of a client that knows the server but is not known to it."""
    stranger = generate_keys(tmp_path_factory.mktemp("others") / "host")
    return replace(stranger, server_public=keys.server_public)


def listens(publisher: MonitorPublisher, subscriber: MonitorSubscriber, for_s: float) -> bool:
    deadline_s = time.monotonic() + for_s
    while time.monotonic() < deadline_s:
        publisher.publish(a_frame())
        if subscriber.receive(0.02) is not None:
            return True
    return False


def test_a_viewer_gets_in_with_its_key_and_without_it_receives_nothing(
    keys: CurveKeys, others: CurveKeys
) -> None:
    publisher = MonitorPublisher(ANYWHERE, run_id="run", source="test", security=keys)
    for security, gets_in in ((None, False), (others, False), (keys, True)):
        viewer = MonitorSubscriber(publisher.address, security=security)
        assert listens(publisher, viewer, 120 if gets_in else UNHEARD_S) == gets_in
        viewer.close()
    publisher.close()


def test_a_command_is_taken_only_from_a_known_key(keys: CurveKeys, others: CurveKeys) -> None:
    server = CommandServer(ANYWHERE, keys)
    for security in (None, others):
        client = CommandClient(server.address, security)
        with suppress(LinkError):  # the connection may be refused before the command is sent
            client.send(Command(CommandKind.STOP))
        time.sleep(UNHEARD_S)
        assert server.poll() == []
        client.close()
    friend = CommandClient(server.address, keys)
    friend.send(Command(CommandKind.STOP))
    deadline_s = time.monotonic() + 120
    while not (requests := server.poll()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    requests[0].reply(CommandReply(requests[0].command.command_id, True))
    while not (replies := friend.replies()):
        assert time.monotonic() < deadline_s
    assert replies[0].accepted
    friend.close()
    server.close()


def test_a_status_is_taken_only_from_a_known_key(keys: CurveKeys) -> None:
    sink = StatusSink(ANYWHERE, keys)
    stranger = StatusSource(sink.address)
    stranger.send(Status("run", "stranger", StageState.DONE))
    assert sink.receive(UNHEARD_S) is None
    friend = StatusSource(sink.address, keys)
    friend.send(Status("run", "friend", StageState.DONE))
    received = sink.receive(120.0)
    assert received is not None
    assert received.stage == "friend"
    for end in (stranger, friend, sink):
        end.close()


def test_the_lossless_link_serves_only_a_known_key(keys: CurveKeys) -> None:
    sender = open_sender(
        ANYWHERE, run_id="run", source="test", slot_bytes=1000, slots=4, security=keys, give_up_s=None
    )
    sender.send(a_frame(5))
    stranger = open_receiver(sender.address)
    assert stranger.receive(UNHEARD_S) is None
    stranger.close()
    friend = open_receiver(sender.address, security=keys)
    delivery = friend.receive(240.0)
    assert delivery is not None
    assert isinstance(delivery.message, Frame)
    np.testing.assert_array_equal(delivery.message.image, a_frame(5).image)
    delivery.done()
    assert sender.flush(240.0)
    friend.close()
    sender.close()


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:5", "tcp://*:0", "tcp://10.0.0.1:5", "tcp://127.0.0.1.org:5"]
)
def test_an_address_that_others_can_reach_needs_keys(address: str, keys: CurveKeys) -> None:
    with pytest.raises(ConfigurationError, match="liveptv keys make"):
        check_bind(address, None)
    assert check_bind(address, keys).scheme == "tcp"


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:0", "tcp://localhost:5", "inproc://a", "shm://127.0.0.1:0"]
)
def test_an_address_on_this_machine_needs_none(address: str) -> None:
    assert check_bind(address, None).is_local


def test_keys_are_read_as_they_were_made_and_only_the_owner_reads_the_secrets(tmp_path: Path) -> None:
    made = generate_keys(tmp_path / "keys")
    assert load_keys(tmp_path / "keys") == made
    assert made.authorised == {made.client_public}
    assert made.server_secret.decode() not in repr(made)
    if os.name == "posix":
        assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.rglob("*.key_secret"))


def test_keys_are_not_overwritten(tmp_path: Path) -> None:
    generate_keys(tmp_path)
    with pytest.raises(OutputError, match="already"):
        generate_keys(tmp_path)


def test_a_machine_that_only_connects_needs_no_secret_of_the_server(tmp_path: Path) -> None:
    generate_keys(tmp_path)
    (tmp_path / "server.key_secret").unlink()
    guest = load_keys(tmp_path)
    source = StatusSource("tcp://127.0.0.1:9", guest)
    source.close()
    with pytest.raises(ConfigurationError, match="server"):
        StatusSink(ANYWHERE, guest)
    with pytest.raises(ConfigurationError, match="client"):
        StatusSource("tcp://127.0.0.1:9", replace(guest, client_secret=b""))


def test_a_folder_without_keys_or_with_a_broken_one_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="liveptv keys make"):
        load_keys(tmp_path / "nowhere")
    for text in ("", 'curve\n    public-key = "short"\n'):
        (tmp_path / "server.key").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError, match="not a key file"):
            load_keys(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written"):
        generate_keys(tmp_path / "file" / "keys")


def test_a_taken_port_leaves_no_gatekeeper_behind(keys: CurveKeys) -> None:
    sink = StatusSink(ANYWHERE, keys)
    with pytest.raises(LinkError):
        StatusSink(sink.address, keys)
    sink.close()
