"""
Sequence numbers: wire form, unbounded form, initial values.

On the wire a sequence number is 32 bits and wraps.  Inside a flow every
position of the stream is a plain integer that never wraps; a number from the
wire is turned into the position nearest to one that is already known.  That
leaves comparisons and differences to ordinary arithmetic.

Reference: RFC 9293 section 3.4, RFC 6528.
"""

from __future__ import annotations

import hashlib

MASK = 0xFFFFFFFF
_HALF = 0x80000000
_CLOCK_RATE = 250_000
"""Steps a second of the clock in initial sequence numbers (4 microseconds)."""


def unwrap(value: int, near: int) -> int:
    """
    The position that C{value} means.

    @param value: 32 bits from the wire.
    @param near: a known position; the answer lies within half the sequence
        space of it.
    """
    return near + ((value - near + _HALF) & MASK) - _HALF


def wrap(position: int) -> int:
    """What C{position} looks like on the wire."""
    return position & MASK


def precedes(first: int, second: int) -> bool:
    """Whether the 32-bit number C{first} lies before C{second}."""
    return ((first - second) & MASK) >= _HALF


def initialSequence(secret: bytes, flow: bytes, now: float) -> int:
    """
    An initial sequence number after RFC 6528.

    A clock that steps every 4 microseconds keeps a new connection of the same
    addresses and ports out of the range of the old one; a keyed hash keeps
    strangers from guessing it.

    @param secret: random bytes that live as long as the stack; 32 of them are used.
    @param flow: addresses and ports of the flow, in any fixed order.
    @param now: seconds, from any start.
    """
    digest = hashlib.blake2s(flow, digest_size=4, key=secret[:32]).digest()
    return (int.from_bytes(digest, "big") + int(now * _CLOCK_RATE)) & MASK
