"""
The properties of a simulated network path.

A L{Link} is a value: it says what a path does to what crosses it, and holds no
state.  Chance comes from the caller, so that a run can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen, validators

_PROBABILITY = [validators.ge(0.0), validators.le(1.0)]

RETRANSMIT = 0.2
"""Seconds by which a lost piece of a stream is late, doubled for each loss."""


@frozen(kw_only=True)
class Link:
    """
    What a path between two hosts does to datagrams and streams.

    Streams are never corrupted: loss only makes them late, as TCP would.
    """

    delay: float = field(default=0.01, validator=validators.ge(0.0))
    """One-way delay, in seconds."""

    jitter: float = field(default=0.0, validator=validators.ge(0.0))
    """The most seconds by which a datagram may come later than C{delay}."""

    loss: float = field(default=0.0, validator=_PROBABILITY)
    """The share of datagrams that never arrive."""

    duplicate: float = field(default=0.0, validator=_PROBABILITY)
    """The share of datagrams that arrive twice."""

    reorder: float = field(default=0.0, validator=_PROBABILITY)
    """The share of datagrams that arrive after later ones."""

    mtu: int = field(default=1500, validator=validators.ge(576))
    """The largest IP packet, in bytes; larger datagrams vanish."""

    chunk: int = field(default=65536, validator=validators.ge(1))
    """The most bytes of a stream that arrive in one C{dataReceived}."""

    def arrivals(self, size: int, random: Callable[[], float]) -> list[float]:
        """
        Decide the fate of one datagram.

        @param size: the length of the whole IP packet, in bytes.
        @param random: returns numbers in C{[0, 1)}.
        @return: the delay of each copy that arrives, in seconds; none when the
            datagram is lost.
        """
        if size > self.mtu:
            return []
        if self.loss and random() < self.loss:
            return []
        copies = 1
        if self.duplicate and random() < self.duplicate:
            copies = 2
        return [self._datagramDelay(random) for _ in range(copies)]

    def _datagramDelay(self, random: Callable[[], float]) -> float:
        delay = self.delay
        if self.jitter:
            delay += self.jitter * random()
        if self.reorder and random() < self.reorder:
            # Late enough that datagrams sent within the next delay overtake.
            delay += max(self.delay, 0.001) * (0.5 + random())
        return delay

    def streamDelay(self, random: Callable[[], float]) -> float:
        """
        How long one piece of a stream is under way, in seconds.

        @param random: returns numbers in C{[0, 1)}.
        """
        delay = self.delay
        if self.jitter:
            delay += self.jitter * random()
        if self.loss:
            wait = RETRANSMIT
            # Bounded, so that even a path that loses everything comes to an end.
            for _ in range(6):
                if random() >= self.loss:
                    break
                delay += wait
                wait *= 2
        return delay


LAN = Link(delay=0.0005)
"""A network of one house."""

LOOPBACK = Link(delay=0.0, mtu=65535)
"""The path from a host to itself."""
