"""
A session: the keys and counters that one handshake gave us.

This is the hot end of the tunnel.  Whole lists go in and come out; the AEAD
objects live as long as the session; nothing else is made per packet.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tsrt.dataplane.choice import TIER
from tsrt.dataplane.coalesce import coalesce
from tsrt.dataplane.interface import Tier
from tsrt.dataplane.runs import (
    WORTH_JOINING,
    Arrived,
    DatagramRun,
    Outgoing,
    Received,
    Sealed,
    joinEqual,
)
from tsrt.tunnel.counters import TunnelCounters
from tsrt.tunnel.handshake import TransportKeys
from tsrt.tunnel.replay import ReplayWindow
from tsrt.wire.wireguard import MIN_TRANSPORT_LENGTH, TRANSPORT_PREFIX

REKEY_AFTER_MESSAGES = 1 << 60
"""From this counter on a session is due for renewal, whoever started it."""

REJECT_AFTER_MESSAGES = (1 << 64) - (1 << 13) - 1
"""The first counter that may not be used any more."""

_MOST_SHORT = 8
"""Parts of a run that may be short before all that follows is opened one by one."""

_counterOf = struct.Struct("<8xQ").unpack_from
_counterAt = struct.Struct("<Q").unpack_from


class Session:
    """
    Seals and opens the transport messages of one session.
    """

    __slots__ = (
        "_opener",
        "_prefix",
        "_sealer",
        "_window",
        "createdAt",
        "index",
        "isInitiator",
        "sendCounter",
    )

    def __init__(
        self,
        keys: TransportKeys,
        *,
        index: bytes,
        remoteIndex: bytes,
        isInitiator: bool,
        now: float,
        tier: Tier = TIER,
    ) -> None:
        """
        @param index: the receiver index that our peer puts on messages to us.
        @param remoteIndex: the one that we put on messages to the peer.
        @param isInitiator: whether we sent the initiation.
        @param tier: does the work.
        """
        self._sealer = tier.sealer(keys.send)
        self._opener = tier.opener(keys.receive)
        self._prefix = TRANSPORT_PREFIX + remoteIndex
        self._window = ReplayWindow()
        self.index = index
        self.isInitiator = isInitiator
        self.createdAt = now
        self.sendCounter = 0
        """The counter of the next message that we send."""

    @property
    def room(self) -> int:
        """How many messages may still be sent."""
        return max(REJECT_AFTER_MESSAGES - self.sendCounter, 0)

    def seal(self, items: Sequence[Outgoing], mtu: int) -> list[Sealed]:
        """
        Make transport messages of inner packets; an empty one is a keep-alive.

        Each is padded with zeros to a multiple of 16, but not beyond the MTU.

        @param items: not more packets than L{room}.
        """
        sealer, prefix = self._sealer, self._prefix
        sealed: list[Sealed] = []
        packets: list[bytes] = []
        for item in items:
            if isinstance(item, bytes):
                packets.append(item)
                continue
            if packets:
                sealed += sealer.seal(packets, prefix, self.sendCounter, mtu)
                self.sendCounter += len(packets)
                packets = []
            run = sealer.sealRun(item, prefix, self.sendCounter, mtu)
            self.sendCounter += run.count
            sealed.append(run)
        if packets:
            sealed += sealer.seal(packets, prefix, self.sendCounter, mtu)
            self.sendCounter += len(packets)
        return sealed

    def open(
        self, items: Sequence[Received], counters: TunnelCounters
    ) -> tuple[list[Arrived], int]:
        """
        Take the inner packets out of transport messages for this session.

        Each packet is cut to the length that its own IP header tells.  What
        cannot be accepted is left out and counted.

        @return: the packets, and the number of bytes that all authentic
            messages had together, keep-alives included (so that it is 0 only
            if none was authentic).
        """
        arrived: list[Arrived] = []
        authentic = 0
        datagrams: list[bytes] = []
        if len(items) >= WORTH_JOINING:
            # What comes by a relay comes one by one.
            items = joinEqual(items)
        for item in items:
            if isinstance(item, bytes):
                datagrams.append(item)
                continue
            if datagrams:
                authentic += self._openEach(datagrams, arrived, counters)
                datagrams = []
            authentic += self._openRun(item, arrived, counters)
        if datagrams:
            authentic += self._openEach(datagrams, arrived, counters)
        return arrived, authentic

    def _openRun(
        self, run: DatagramRun, arrived: list[Arrived], counters: TunnelCounters
    ) -> int:
        """
        Open messages of which it is likely that they are in order.

        What is late, replayed or forged is opened by itself, and the run goes on
        behind it.

        @return: the bytes of the authentic ones.
        """
        window, data, size = self._window, run.data, run.size
        count = run.count
        at = authentic = short = 0
        while at < count:
            start = at * size
            rest = len(data) - start
            if rest < MIN_TRANSPORT_LENGTH or short > _MOST_SHORT:
                return authentic + self._openEach(run.datagrams(at), arrived, counters)
            (counter,) = _counterAt(data, start + 8)
            # All that are newer than the newest are fresh; without an end to
            # what may be sent they would be.
            if window.newest < counter <= REJECT_AFTER_MESSAGES - count + at:
                opened = self._opener.openRun(run, at, counter)
                taken = opened.taken
                if taken < WORTH_JOINING:
                    short += 1
                if taken:
                    window.markRun(counter, counter + taken - 1)
                    counters.keepalivesReceived += opened.keepalives
                    counters.droppedInner += opened.dropped
                    arrived += opened.items
                    authentic += min(taken * size, rest)
                    at += taken
                    continue
            end = self._pastOld(run, at + 1)
            some = [bytes(data[n * size : n * size + size]) for n in range(at, end)]
            authentic += self._openEach(some, arrived, counters)
            at = end
        return authentic

    def _pastOld(self, run: DatagramRun, at: int) -> int:
        """The first message of a run, from C{at} on, that may begin a run."""
        data, size, newest = run.data, run.size, self._window.newest
        for start in range(at * size, len(data) - MIN_TRANSPORT_LENGTH + 1, size):
            if _counterAt(data, start + 8)[0] > newest:
                break
            at += 1
        return at

    def _openEach(
        self, datagrams: list[bytes], arrived: list[Arrived], counters: TunnelCounters
    ) -> int:
        """
        Open messages one by one.

        @return: the bytes of the authentic ones.
        """
        window = self._window
        open_ = self._opener.open
        plaintexts: list[bytes] = []
        authentic = 0
        # A run of messages in order is marked in the window as a whole: all
        # counters from `runStart` up to, but not including, `expected`.
        runStart = expected = window.newest + 1
        for datagram in datagrams:
            size = len(datagram)
            if size < MIN_TRANSPORT_LENGTH:
                counters.droppedMalformed += 1
                continue
            (counter,) = _counterOf(datagram)
            inOrder = counter == expected and counter < REJECT_AFTER_MESSAGES
            if not inOrder:
                if expected > runStart:
                    window.markRun(runStart, expected - 1)
                    runStart = expected
                if counter >= REJECT_AFTER_MESSAGES or not window.isFresh(counter):
                    counters.droppedReplay += 1
                    continue
            plaintext = open_(datagram, counter)
            if plaintext is None:
                counters.droppedUnauthentic += 1
                continue
            authentic += size
            if inOrder:
                expected += 1
            else:
                window.mark(counter)
                runStart = expected = window.newest + 1
            if plaintext:
                plaintexts.append(plaintext)
            else:
                counters.keepalivesReceived += 1
        if expected > runStart:
            window.markRun(runStart, expected - 1)
        items, dropped = coalesce(plaintexts)
        counters.droppedInner += dropped
        arrived += items
        return authentic
