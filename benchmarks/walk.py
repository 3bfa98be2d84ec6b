"""
What the whole walk of a packet costs: two real nodes in one process.

A tailnet is simulated, but that the two nodes' datagrams to each other go by real
sockets on loopback.  No reactor waits for anything in between: whoever has something
to read is told to.  So what is timed is all that a node does itself, from what an
application writes to what another one is told, and the acknowledgements for it:
transport, flow, filter, routes, tunnel, path, socket, and the same up again.  The least
of many rounds counts, since other work on the machine only ever adds.

The tier of the data plane is that of the process: C{TSRT_DATAPLANE} names it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol

from tsrt.dataplane.choice import VARIABLE
from tsrt.dataplane.runs import Received, Sealed, countOf
from tsrt.testing.tailnet import TestTailnet
from tsrt.underlay.batchport import Address, BatchPort, SendOutcome, bindPort

ROOT = Path(__file__).resolve().parent.parent

RUNS = (1, 48, 392)
"""Full segments that are written at once: a lone one, as many as in the other figures,
and as many as the largest run has."""

TURNS = 1000
"""Turns after which a write has to be there."""

STEP = 0.001
"""Simulated seconds between two writes."""


class NullReactor:
    """Watches nothing."""

    def addReader(self, reader: object) -> None:
        """Nothing."""

    removeReader = addReader


class Taker(Protocol):
    """Counts the bytes that come, and may send them back."""

    def __init__(self, isEcho: bool = False) -> None:
        self.count = 0
        self._isEcho = isEcho

    def dataReceived(self, data: bytes) -> None:
        """Count, and answer."""
        self.count += len(data)
        if self._isEcho:
            assert self.transport is not None
            self.transport.write(data)


class End:
    """
    A node, whose datagrams to the other one go by a real socket.

    @ivar sent: how many datagrams went there.
    """

    def __init__(self, tailnet: TestTailnet, name: str) -> None:
        node = tailnet[name]
        engine: Any = node._engine
        self.engine = engine
        self.sent = 0
        self._underlay = underlay = engine.getServiceNamed("underlay")
        self._simulated = (tailnet.hosts[name].addresses[0], underlay.localPort(4))
        self._usual = underlay._senders[4]
        reactor: Any = NullReactor()
        self._port = BatchPort(
            reactor,
            bindPort(4, 0, "127.0.0.1"),
            self._arrived,
            lambda: None,
            lambda port: None,
        )
        self._port.startListening()
        self.read = self._port.doRead

    def join(self, other: End) -> None:
        """Let what goes to another node go by its socket from now on."""
        self._other = other
        host = other._port.getHost()
        self._real = (host.host, host.port)
        self._underlay._senders[4] = self._send

    def close(self) -> None:
        """Send by the simulated network again."""
        self._underlay._senders[4] = self._usual
        self._port.stopListening()

    def _send(self, items: Sequence[Sealed], address: Address) -> SendOutcome:
        if address != self._other._simulated:
            outcome: SendOutcome = self._usual(items, address)
            return outcome
        self.sent += countOf(items)
        return self._port.send(items, self._real)

    def _arrived(self, address: Address, items: list[Received]) -> None:
        self._underlay._arrived(self._other._simulated, items)


class Pair:
    """
    Two nodes with a connection that has its full speed.

    @ivar ends: the one that writes, and the one that reads.
    """

    def __init__(self, isEcho: bool = False) -> None:
        """
        @param isEcho: whether what is written is sent back.
        """
        self.tailnet = tailnet = TestTailnet(nodes=["a", "b"])
        self.client, self._server = Taker(), Taker(isEcho)
        made = iter([self._server])
        factory = Factory.forProtocol(lambda: next(made))
        tailnet.wait(tailnet["b"].serverEndpoint(7).listen(factory))
        endpoint = tailnet["a"].clientEndpoint("b", 7)
        tailnet.wait(connectProtocol(endpoint, self.client))
        transport: Any = self.client.transport
        transport.write(b"!")
        # Until there is a direct path.
        tailnet.elapse(5)
        self.ends = End(tailnet, "a"), End(tailnet, "b")
        for one, other in (self.ends, self.ends[::-1]):
            one.join(other)
        self._write = transport.write
        self.mss = int(transport._flow._tcb.sender.mss)
        for _ in range(0 if isEcho else 30):
            self.walk(max(RUNS))

    def walk(self, segments: int) -> tuple[int, float, float, float]:
        """
        Write full segments, and have them arrive.

        @return: how many packets those were, and the seconds that it took to send
            them, to receive them, and to take the acknowledgements.
        """
        data = os.urandom(self.mss * segments)
        here, there = self.ends
        wanted = self._server.count + len(data)
        before = here.sent
        clock, advance = time.perf_counter, self.tailnet.clock.advance
        advance(STEP)
        began = clock()
        self._write(data)
        # What is due at the end of the turn.
        advance(0)
        out, into, back = clock() - began, 0.0, 0.0
        for _ in range(TURNS):
            began = clock()
            there.read()
            read = clock()
            here.read()
            back += clock() - read
            into += read - began
            if self._server.count == wanted:
                return here.sent - before, out, into, back
        raise SystemExit("what was written does not arrive: the figures mean nothing")

    def echo(self, times: int) -> float:
        """Microseconds for a byte to go there and come back."""
        here, there = self.ends
        advance = self.tailnet.clock.advance
        wanted = self.client.count + times
        began = time.perf_counter()
        for _ in range(times):
            self._write(b"!")
            advance(0)
            there.read()
            here.read()
        seconds = time.perf_counter() - began
        if self.client.count != wanted:
            raise SystemExit("not every byte came back: the figures mean nothing")
        advance(STEP)
        return seconds / times * 1e6

    def close(self) -> None:
        """Take the tailnet down."""
        for end in self.ends:
            end.close()
        assert self.client.transport is not None
        self.client.transport.loseConnection()
        self.tailnet.settle()
        self.tailnet.close()


def walks(rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds a packet of each part of the walk, for each length of runs."""
    pair = Pair()
    found = {}
    for segments in RUNS:
        best = (float("inf"), 0.0, 0.0, 0.0)
        for _ in range(rounds * 10):
            packets, *parts = pair.walk(segments)
            each = [seconds / packets * 1e6 for seconds in parts]
            best = min(best, (sum(each), each[0], each[1], each[2]))
        names = ("whole", "out", "in", "acknowledgements")
        found[str(segments)] = dict(zip(names, best, strict=True))
    pair.close()
    return found


def walksOf(tier: str, rounds: int) -> dict[str, dict[str, float]]:
    """The same in a process that has some tier."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.walk", "--rounds", str(rounds)],
        env={**os.environ, VARIABLE: tier},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure with the tier of this process, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    print(json.dumps(walks(options.rounds)))


if __name__ == "__main__":
    main()
