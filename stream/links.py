"""Opens the two ends of a lossless link; the address chooses how the messages travel."""

from __future__ import annotations

import math
from collections.abc import Callable

from stream.errors import ConfigurationError
from stream.link import Policy, Receiver, Sender
from stream.receiving import LosslessReceiver
from stream.ring import LocalRing, ReferenceRing, SlotWriter
from stream.sending import LosslessSender, SenderOptions
from stream.shared_ring import SharedRing
from stream.sockets import MAX_PAYLOAD_BYTES, LinkAddress, Security, bind_router


def open_sender(
    address: str,
    *,
    run_id: str,
    source: str,
    slot_bytes: int,
    slots: int = 64,
    policy: Policy = Policy.BLOCK,
    credits: int | None = None,  # noqa: A002 - what flow control calls it
    patience_s: float = 3.0,
    give_up_s: float | None = 30.0,
    while_waiting: Callable[[], None] | None = None,
    security: Security | None = None,
) -> Sender:
    """Open the offering end, which binds; port 0 finds a free port, `Sender.address` tells which.

    The ring has `slots` slots of `slot_bytes` bytes; up to `credits` messages (half of the slots) are on
    their way at a time. A receiver that does not acknowledge for `patience_s` is called stalled; with the
    policy `block`, `send` gives up when a receiver has been gone for `give_up_s` (None: never). `while_waiting`
    is called about twice a second while `send` waits for room; what it raises ends the wait. Raises
    `LinkError` if the address is taken or the memory cannot be had, `ConfigurationError` if the arguments
    make no sense.
    """
    where = LinkAddress.parse(address)
    limit = max(1, slots // 2) if credits is None else credits
    if not 1 <= limit < slots:
        raise ConfigurationError(
            f"{limit} credits with {slots} slots; credits must be at least 1 and fewer than slots"
        )
    if not 1 <= slot_bytes <= MAX_PAYLOAD_BYTES:
        raise ConfigurationError(
            f"slots of {slot_bytes} bytes; they must have 1 to {MAX_PAYLOAD_BYTES} bytes"
        )
    endpoint = bind_router(where, security, send_hwm=4 * limit + 256)
    try:
        ring = _ring(where.scheme, slots, slot_bytes)
    except BaseException:
        endpoint.close(0)
        raise
    options = SenderOptions(
        run_id, source, slot_bytes, slots, limit, policy, patience_s, give_up_s, while_waiting
    )
    return LosslessSender(endpoint, ring, options)


PATIENCE = -1.0


def open_receiver(
    address: str,
    *,
    patience_s: float = 3.0,
    lost_after_s: float | None = PATIENCE,
    security: Security | None = None,
) -> Receiver:
    """Open the consuming end, which connects; it waits for a sender as long as it takes.

    Once it has found one, it calls it stalled after `patience_s` without a sign of life, and `Receiver.receive`
    raises `PeerLostError` after `lost_after_s` (left out: at the same time; None: never for silence alone).
    """
    longest_s = math.inf if lost_after_s is None else lost_after_s
    longest_s = patience_s if longest_s == PATIENCE else longest_s
    return LosslessReceiver(LinkAddress.parse(address), patience_s, longest_s, security)


def _ring(scheme: str, slots: int, slot_bytes: int) -> SlotWriter:
    match scheme:
        case "shm":
            return SharedRing(slots, slot_bytes)
        case "inproc":
            return ReferenceRing(slots)
        case _:
            return LocalRing(slots, slot_bytes)
