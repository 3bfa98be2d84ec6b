"""
Two stacks with a link between them, and many flows at once, in simulated time.

What a stack sends stays in runs, as it does in a node, so that a gigabyte takes no more
than some seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

from tsrt.dataplane.runs import Outgoing, arrivedOf, packetsOf
from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.listen import Listener
from tsrt.netstack.share import Share
from tsrt.netstack.stack import Stack
from tsrt.test.netlink import Link

HERE, THERE, ELSEWHERE = (bytes((100, 64, 0, n)) for n in (1, 2, 3))
PORT = 80
PLENTY = bytes(1 << 20)

NEAR = 0.0002
"""Seconds that a packet takes on a short path."""

FAR = 0.02
"""The same on a long one."""

TURNS = 10_000
"""Turns without any progress of time after which something never ends."""


class StackPair:
    """
    A stack that sends, one that receives, and what lies in between.

    @ivar source: the stack that opens the flows, at C{HERE}.
    @ivar sink: the one that takes them; it has two addresses.
    @ivar there: the link to it; C{back} the one from it.
    @ivar now: the time.
    @ivar lose: asked for each packet or run whether it is lost on its way there.
    @ivar read: bytes that each flow brought, by the port that it came from.
    @ivar sent: each packet and run that left the source, with its time.
    @ivar deaf: ports from which nothing is read until L{wake}.
    @ivar watch: called after each turn.
    """

    def __init__(
        self, delay: float = NEAR, rate: float | None = None, queue: int = 6000
    ) -> None:
        """
        @param delay: seconds that a packet takes.
        @param rate: bytes a second; L{None} for as many as there are.
        @param queue: packets that fit in front of that.
        """
        self.source = Stack(randbytes=Random(1).randbytes)
        self.sink = Stack(randbytes=Random(2).randbytes)
        self.source.setAddresses([HERE])
        self.sink.setAddresses([THERE, ELSEWHERE])
        self.there = Link(1, delay=delay, rate=rate, queue=queue)
        self.back = Link(2, delay=delay)
        self.now = 1000.0
        self.lose: Callable[[Outgoing], bool] = lambda item: False
        self.read: dict[int, int] = {}
        self.sent: list[tuple[float, Outgoing]] = []
        self.deaf: set[int] = set()
        self.watch: Callable[[], object] = lambda: None
        self._bulk: dict[TCPFlow, int] = {}
        self._listener: Listener = self.sink.listenTCP(PORT, self.now, backlog=4096)
        self._events: list[tuple[float, int, Stack, Outgoing]] = []
        self._serial = 0

    # -- flows ---------------------------------------------------------------------

    def connect(self, count: int = 1, remote: bytes = THERE) -> list[TCPFlow]:
        """Open flows, one after the other, and wait until they are established."""
        flows = []
        for _ in range(count):
            flow = self.source.connectTCP(remote, PORT, self.now)
            flow.setNoDelay(True)
            flows.append(flow)
            self.until(lambda flow=flow: flow.established)
        return flows

    def fill(self, flow: TCPFlow, most: int = 1 << 60) -> None:
        """Have a flow always more to send, up to so many bytes."""
        self._bulk[flow] = most
        flow.writeLowWater = len(PLENTY)
        self._feed(flow)

    def _feed(self, flow: TCPFlow) -> None:
        left = self._bulk.get(flow, 0)
        while left and flow.closeReason is None and flow.queued <= len(PLENTY):
            piece = PLENTY[:left]
            left -= len(piece)
            flow.write(piece)
        self._bulk[flow] = left

    def _read(self, flow: TCPFlow) -> None:
        flow.takeMarks()
        port = flow.remotePort
        if port not in self.deaf:
            self.read[port] = self.read.get(port, 0) + len(flow.read())

    def wake(self) -> None:
        """Read what was not read."""
        self.deaf.clear()
        for flow in self.sink.flows():
            self._read(flow)

    def share(self, remote: bytes = THERE) -> Share | None:
        """What the flows to an address share, while there are any."""
        return self.source._flows._shares.get(self.source.nodeAt(remote))

    # -- time ------------------------------------------------------------------------

    def settle(self) -> None:
        """Let applications and stacks do what they can do now."""
        for _ in range(TURNS):
            spoke = False
            for stack in (self.source, self.sink):
                ready = stack.takeReady()
                for item in ready:
                    if item in self._bulk:
                        item.takeMarks()
                        self._feed(item)
                    elif isinstance(item, Listener):
                        while item.accept() is not None:
                            pass
                    elif isinstance(item, TCPFlow):
                        self._read(item)
                items = stack.drainRuns(self.now)
                self._carry(stack, items)
                spoke = spoke or bool(ready or items)
            self.watch()
            if not spoke:
                return
        raise AssertionError("the stacks never come to rest")

    def _carry(self, stack: Stack, items: list[Outgoing]) -> None:
        isThere = stack is self.source
        link = self.there if isThere else self.back
        for item in items:
            if isThere:
                self.sent.append((self.now, item))
                if self.lose(item):
                    continue
            for at in link.transit(item, self.now):
                self._serial += 1
                other = self.sink if isThere else self.source
                heapq.heappush(self._events, (at, self._serial, other, item))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """
        Let time pass.

        @return: whether something came true before it was over.
        """
        end = self.now + seconds
        self.settle()
        idle = 0
        while until is None or not until():
            due = [
                at
                for stack in (self.source, self.sink)
                if (at := stack.deadline()) is not None
            ]
            if self._events:
                due.append(self._events[0][0])
            following = min(due, default=end)
            if following > end or not due:
                self.now = end
                return False
            idle = 0 if following > self.now else idle + 1
            if idle > TURNS:
                raise AssertionError("deadlines come and come at the same time")
            self.now = max(self.now, following)
            arrived: dict[Stack, list[Outgoing]] = {}
            while self._events and self._events[0][0] <= self.now:
                _, _, stack, item = heapq.heappop(self._events)
                arrived.setdefault(stack, []).append(item)
            for stack, items in arrived.items():
                stack.receive(arrivedOf(items), self.now)
            for stack in (self.source, self.sink):
                at = stack.deadline()
                if at is not None and at <= self.now:
                    stack.tick(self.now)
            self.settle()
        return True

    def until(self, condition: Callable[[], bool], limit: float = 60.0) -> None:
        """Let time pass until something is so."""
        if not self.run(limit, condition):
            raise AssertionError("it did not come true")


class CutPair(StackPair):
    """Where the link takes packets one by one, and loses them one by one."""

    def _carry(self, stack: Stack, items: list[Outgoing]) -> None:
        super()._carry(stack, [*packetsOf(items)])
