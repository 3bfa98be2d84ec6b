"""
A tailnet in bad weather: nodes that talk for hours while everything fails.

Each pair of nodes has one TCP stream of bytes that both ends can foretell, so
that a lost, doubled or changed one is noticed.  Meanwhile links are cut, NATs
forget their mappings, addresses change, machines sleep, relays and the control
server restart; when, and which, follows from the seed::

    python -m tsrt.testing.soak --nodes 20 --hours 24
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from hashlib import shake_128
from random import Random

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tsrt.testing.clock import elapse
from tsrt.testing.tailnet import TestTailnet

PORT = 7

KINDS = ("none", "easy", "port-restricted", "symmetric", "cgnat", "udp-blocked")
"""Behind what the nodes are, in turn."""

LONGEST_FAULT = 120.0
"""Seconds that a fault lasts at most: shorter than what ends a TCP stream."""

_CHUNK = 256


def content(name: str, offset: int, size: int) -> bytes:
    """The bytes of a stream from some place on."""
    first, last = offset // _CHUNK, (offset + size - 1) // _CHUNK
    blocks = (
        shake_128(f"{name}/{number}".encode()).digest(_CHUNK)
        for number in range(first, last + 1)
    )
    start = offset - first * _CHUNK
    return b"".join(blocks)[start : start + size]


class Reader(Protocol):
    """Gets a name, then bytes, and compares them with what they have to be."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self._name: str | None = None
        self._head = b""
        self._count = 0

    def dataReceived(self, data: bytes) -> None:
        """Compare."""
        if self._name is None:
            self._head += data
            head, newline, data = self._head.partition(b"\n")
            if not newline:
                return
            self._name = head.decode("ascii")
        if data != content(self._name, self._count, len(data)):
            self._weather.wrong.append(self._name)
            assert self.transport is not None
            self.transport.loseConnection()
            return
        self._count += len(data)
        self._weather.received[self._name] = self._count

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note how it ended."""
        if self._name is not None:
            self._weather.ended.setdefault(self._name, reason.getErrorMessage())


class Writer(Protocol):
    """Sends a name, and then bytes whenever it is told to."""

    def __init__(self, weather: Weather, name: str) -> None:
        self._weather = weather
        self.name = name
        self.sent = 0

    def connectionMade(self) -> None:
        """Say who we are."""
        assert self.transport is not None
        self.transport.write(self.name.encode("ascii") + b"\n")

    def say(self, size: int) -> None:
        """Send some more."""
        assert self.transport is not None
        self.transport.write(content(self.name, self.sent, size))
        self.sent += size

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note how it ended."""
        self._weather.ended.setdefault(self.name, reason.getErrorMessage())


@define
class Outcome:
    """
    What a run came to.

    @ivar streams: how many there were.
    @ivar sent: bytes sent on all of them; C{received} likewise.
    @ivar wrong: streams that got other bytes than were sent.
    @ivar ended: streams that ended before the end, with the reason.
    @ivar behind: streams of which something did not arrive, with how much.
    @ivar faults: how often each kind of fault was there.
    @ivar timers: the delayed calls after a while, and at the end.
    """

    streams: int
    sent: int
    received: int
    wrong: list[str]
    ended: dict[str, str]
    behind: dict[str, int]
    faults: dict[str, int]
    timers: tuple[int, int]

    @property
    def isGood(self) -> bool:
        """Whether every stream carried all that was sent, and is open."""
        return not (self.wrong or self.ended or self.behind)


@define
class Weather:
    """The tailnet, its streams and its faults."""

    tailnet: TestTailnet
    random: Random
    received: dict[str, int] = field(factory=dict)
    ended: dict[str, str] = field(factory=dict)
    wrong: list[str] = field(factory=list)
    faults: dict[str, int] = field(factory=dict)
    writers: list[Writer] = field(factory=list)
    _awake: dict[str, float] = field(factory=dict)

    @classmethod
    def make(cls, nodes: int, seed: int) -> Weather:
        """Nodes of all kinds, and a stream for each pair of them."""
        names = {f"n{i}": KINDS[i % len(KINDS)] for i in range(nodes)}
        self = cls(TestTailnet(nodes=names, regions=2, seed=seed), Random(seed))
        factory = Factory.forProtocol(lambda: Reader(self))
        factory.noisy = False
        for name in names:
            self.tailnet[name].serverEndpoint(PORT).listen(factory)
        for one, other in itertools.combinations(names, 2):
            self._connect(one, other)
        return self

    def _connect(self, one: str, other: str) -> None:
        writer = Writer(self, f"{one}-{other}")
        factory = Factory.forProtocol(lambda: writer)
        factory.noisy = False
        endpoint = self.tailnet[one].clientEndpoint(other, PORT, timeout=60)
        self.tailnet.wait(endpoint.connect(factory))
        self.writers.append(writer)

    # -- faults ----------------------------------------------------------------------

    def _later(self, act: Callable[[], object]) -> IDelayedCall:
        """Undo a fault after a while."""
        return self.tailnet.clock.callLater(self.random.uniform(5, LONGEST_FAULT), act)

    def _host(self) -> str:
        return self.random.choice(list(self.tailnet.hosts))

    def cut(self) -> None:
        """A node is cut off from everybody for a while."""
        internet, host = self.tailnet.internet, self.tailnet.hosts[self._host()]
        others = [other for other in internet.hosts() if other is not host]
        for other in others:
            internet.cut(host, other)

        def heal() -> None:
            for other in others:
                internet.heal(host, other)

        self._later(heal)

    def rebindNAT(self) -> None:
        """A router forgets its mappings."""
        networks = self.tailnet.internet.networks()
        if networks:
            self.random.choice(networks).reboot()

    def sleep(self) -> None:
        """A machine sleeps for a while."""
        name, now = self._host(), self.tailnet.clock.seconds()
        if now < self._awake.get(name, 0.0):
            return
        seconds = self.random.uniform(5, LONGEST_FAULT)
        self._awake[name] = now + seconds + 1
        self.tailnet.hosts[name].sleep(seconds)

    def restartRelay(self) -> None:
        """A relay asks its clients to come back in a moment."""
        self.random.choice(list(self.tailnet.relays.values())).restart()

    def crashRelay(self) -> None:
        """The connections of a relay are gone without a word."""
        number = self.random.choice(list(self.tailnet.relays))
        for host in self.tailnet.internet.hosts():
            if host.name == f"derp{number}.test":
                host.crash()

    def crashControl(self) -> None:
        """So are those of the control server."""
        for host in self.tailnet.internet.hosts():
            if host.name == "control":
                host.crash()

    def fail(self) -> None:
        """Let something fail."""
        kinds = (
            self.cut,
            self.rebindNAT,
            self.sleep,
            self.restartRelay,
            self.crashRelay,
            self.crashControl,
        )
        kind = self.random.choice(kinds)
        self.faults[kind.__name__] = self.faults.get(kind.__name__, 0) + 1
        kind()

    # -- time ------------------------------------------------------------------------

    def run(
        self,
        seconds: float,
        *,
        say: float = 10.0,
        fault: float = 60.0,
        progress: Callable[[float], object] = lambda at: None,
    ) -> Outcome:
        """
        Let it all happen, and then some quiet time to catch up.

        @param seconds: simulated time with faults.
        @param say: seconds between two pieces of each stream.
        @param fault: seconds between two faults, on the average.
        @param progress: told the time that has passed, now and then.
        """
        clock = self.tailnet.clock
        began = clock.seconds()
        nextFault = began + self.random.expovariate(1 / fault)
        early = 0
        while clock.seconds() - began < seconds:
            for writer in self.writers:
                if writer.name not in self.ended:
                    writer.say(self.random.randrange(1, 400))
            elapse(clock, say)
            while clock.seconds() >= nextFault:
                self.fail()
                nextFault += self.random.expovariate(1 / fault)
            progress(clock.seconds() - began)
            early = early or len(clock.getDelayedCalls())
        elapse(clock, LONGEST_FAULT + 300)
        return Outcome(
            streams=len(self.writers),
            sent=sum(writer.sent for writer in self.writers),
            received=sum(self.received.values()),
            wrong=list(self.wrong),
            ended=dict(self.ended),
            behind={
                writer.name: writer.sent - self.received.get(writer.name, 0)
                for writer in self.writers
                if writer.sent != self.received.get(writer.name, 0)
                and writer.name not in self.ended
            },
            faults=dict(self.faults),
            timers=(early, len(clock.getDelayedCalls())),
        )


def main(arguments: list[str] | None = None) -> int:
    """Run it from the command line; the result is 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    started = shown = time.monotonic()

    def show(at: float) -> None:
        nonlocal shown
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            sys.stdout.write(f"{at / 3600:.1f} hours simulated\n")
            sys.stdout.flush()

    weather = Weather.make(options.nodes, options.seed)
    outcome = weather.run(options.hours * 3600, progress=show)
    sys.stdout.write(f"{outcome}\n")
    weather.ended.clear()
    weather.tailnet.close()
    sys.stdout.write(
        f"{'good' if outcome.isGood else 'BAD'}, in {time.monotonic() - started:.0f} s\n"
    )
    return 0 if outcome.isGood else 1


if __name__ == "__main__":
    sys.exit(main())
