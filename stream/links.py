"""Opens the two ends of a lossless message link; the address selects the transport."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from stream.errors import ConfigurationError
from stream.link import Policy, Receiver, Sender
from stream.receiving import LosslessReceiver, Wakes
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
    on_news: Callable[[], None] | None = None,
    sparse: bool = False,
    security: Security | None = None,
) -> Sender:
    """Open the sending end, which binds; port 0 finds a free port, see `Sender.address`.

    The ring has `slots` slots of `slot_bytes` bytes; at most `credits` messages (default: half of the slots) are
    in transit at a time. A receiver that does not acknowledge for `patience_s` counts as stalled; with the policy
    `block`, `send` gives up when the receiver has been gone for `give_up_s` (None: never). `while_waiting` is
    called about twice a second while `send` waits for room; an exception from it ends the wait. `on_news` is
    called, in a thread of the sender, when there may be room or something was acknowledged. A `sparse` ring takes
    memory as its messages need it, instead of all at once: for many slots that are mostly empty. Raises `LinkError`
    if the address is in use or the memory cannot be allocated, `ConfigurationError` for invalid arguments.
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
        ring = _ring(where.scheme, slots, slot_bytes, sparse=sparse)
    except BaseException:
        endpoint.close(0)
        raise
    options = SenderOptions(
        run_id, source, slot_bytes, slots, limit, policy, patience_s, give_up_s, while_waiting, on_news
    )
    return LosslessSender(endpoint, ring, options)


PATIENCE = -1.0  # stands for "the same as patience_s"


def open_receiver(
    address: str,
    *,
    patience_s: float = 3.0,
    lost_after_s: float | None = PATIENCE,
    security: Security | None = None,
    wakers: Sequence[Wakes] = (),
) -> Receiver:
    """Open the receiving end, which connects; it waits for a sender without a time limit.

    Once connected, the sender counts as stalled after `patience_s` without a sign of life, and `Receiver.receive`
    raises `PeerLostError` after `lost_after_s` (default: the same time; None: never because of silence alone).
    It returns early, without a message, once one of the `wakers` can be read.
    """
    longest_s = math.inf if lost_after_s is None else lost_after_s
    longest_s = patience_s if longest_s == PATIENCE else longest_s
    return LosslessReceiver(LinkAddress.parse(address), patience_s, longest_s, security, wakers)


def _ring(scheme: str, slots: int, slot_bytes: int, *, sparse: bool) -> SlotWriter:
    match scheme:
        case "shm":
            return SharedRing(slots, slot_bytes, sparse=sparse)
        case "inproc":
            return ReferenceRing(slots)
        case _:
            return LocalRing(slots, slot_bytes, sparse=sparse)
