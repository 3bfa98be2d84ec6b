"""
Disco, STUN and WireGuard of others, against a node whose direct path is in use.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from tsrt.addresses import AddrPort, parseAddress
from tsrt.crypto.box import Box, sealTo
from tsrt.keys import DiscoKey
from tsrt.test.faultworld import FaultTestCase
from tsrt.wire import disco, stun


def absurd() -> list[AddrPort]:
    """A thousand addresses at which no peer can be."""
    hosts = (
        *("0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.255.255.250"),
        *("255.255.255.255", "10.0.0.1", "192.168.1.1", "100.64.0.1"),
        *("::", "::1", "fe80::1", "ff02::1", "fd7a:115c:a1e0::1", "fd00::1"),
    )
    return [
        AddrPort(parseAddress(hosts[number % len(hosts)]), number % 65536)
        for number in range(1000)
    ]


class DiscoFloodTests(FaultTestCase):
    """C{a} and C{b} talk directly; C{c} is a peer that means no good."""

    def setUp(self) -> None:
        self.makeTailnet("c", regions=2)
        self.random = Random(7)
        self.net.elapse(5)
        self.assertDirect()
        self.host = self.net.internet.host("attacker")
        self.port: Any = self.host.listenUDP(4000, DatagramProtocol())
        self.addCleanup(self.port.stopListening)
        self.book = self.net["b"]._engine.paths.book
        self.target = self.placeOf("b")

    def placeOf(self, name: str) -> tuple[str, int]:
        """The UDP address of a node."""
        host = self.net.hosts[name]
        [port] = [
            port.getHost().port
            for port in host.ports
            if port.getHost().type == "UDP" and ":" not in port.getHost().host
        ]
        return host.addresses[0], port

    def assertDirect(self) -> None:
        """Packets go directly in both directions, and have all the time."""
        for one, other in (("a", "b"), ("b", "a")):
            path = self.net[one].status.paths[other]
            self.assertTrue(path.isDirect, path)

    def assertUnharmed(self, before: Any) -> None:
        """The path is the one that it was, without a change in between."""
        for one, other in (("a", "b"), ("b", "a")):
            path = self.net[one].status.paths[other]
            self.assertEqual((path.path, path.since), before[one], one)
        self.assertInnocent()

    def paths(self) -> dict[str, Any]:
        """The paths of both."""
        found = {}
        for one, other in (("a", "b"), ("b", "a")):
            path = self.net[one].status.paths[other]
            found[one] = (path.path, path.since)
        return found

    def flood(self, datagrams: list[bytes], port: Any = None) -> None:
        """Send, 50 in a burst."""
        for start in range(0, len(datagrams), 50):
            for datagram in datagrams[start : start + 50]:
                (port or self.port).write(datagram, self.target)
            self.net.elapse(0.02)

    def sealed(self, key: DiscoKey, message: disco.Message) -> bytes:
        """A message to C{b}."""
        box = Box(key.raw, self.book._contacts._public)
        sealed = sealTo(box, message.encode(), self.random.randbytes)
        return disco.encodeEnvelope(key.public().raw, sealed)

    def key(self, name: str) -> bytes:
        """The node key of a node."""
        raw: bytes = self.net[name]._engine.paths.book._own
        return raw

    def test_strangers(self) -> None:
        """Pings of who is not in the netmap, though well sealed, go nowhere."""
        before = self.paths()
        key = DiscoKey.generate(self.random.randbytes)
        pings = [
            self.sealed(key, disco.Ping(self.random.randbytes(12), self.key("a")))
            for _ in range(1000)
        ]
        sent = self.book.counters.pongsSent
        self.flood(pings)
        self.assertDropped("b", "path", "Stranger", 1000)
        # Only a keeps its path confirmed meanwhile.
        self.assertLess(self.book.counters.pongsSent - sent, 5)
        self.assertUnharmed(before)

    def test_forged(self) -> None:
        """So do messages in the name of a peer without its key."""
        before = self.paths()
        key = DiscoKey.generate(self.random.randbytes)
        datagrams = []
        for number in range(1000):
            message: disco.Message = disco.Ping(
                self.random.randbytes(12), self.key("a")
            )
            if number % 3 == 1:
                seen = AddrPort(parseAddress("203.0.113.9"), 9)
                message = disco.Pong(self.random.randbytes(12), seen)
            elif number % 3 == 2:
                message = disco.CallMeMaybe(())
            datagram = bytearray(self.sealed(key, message))
            datagram[6:38] = self.net["a"]._engine.paths.book._contacts._public
            datagrams.append(bytes(datagram))
        self.flood(datagrams)
        self.assertDropped("b", "path", "Unopened", 1000)
        self.assertUnharmed(before)

    def test_replays(self) -> None:
        """
        What C{a} really sent does nothing when it comes again from elsewhere:
        neither pings nor pongs nor R-MS-7's data.
        """
        captured: list[bytes] = []
        internet = self.net.internet
        carry = internet.sendDatagram

        def tap(host: Any, source: Any, destination: Any, data: bytes) -> None:
            if host is self.net.hosts["a"] and destination == self.target:
                captured.append(data)
            carry(host, source, destination, data)

        internet.sendDatagram = tap  # type: ignore[method-assign]
        self.net.elapse(10)
        del internet.sendDatagram
        self.assertGreater(sum(d.startswith(disco.MAGIC) for d in captured), 3)
        self.assertGreater(sum(d.startswith(b"\x04\0\0\0") for d in captured), 20)
        before = self.paths()
        for _ in range(10):
            self.flood(captured)
        self.assertDropped("b", "path", "Replay", 10)
        self.assertDropped("b", "tunnel", "Replay", 200)
        self.assertUnharmed(before)

    def test_R_MS_7_dataOfStrangers(self) -> None:
        """Data from an unknown source that nobody sealed is dropped, counted."""
        before = self.paths()
        index = b""
        for datagram in self.dataOf("a"):
            index = datagram[4:8]
        self.assertTrue(index)
        forged = [
            b"\x04\0\0\0" + receiver + number.to_bytes(8, "little") + bytes(48)
            for number in range(500)
            for receiver in (index, self.random.randbytes(4))
        ]
        self.flood(forged)
        self.assertDropped("b", "tunnel", "Unauthentic", 400)
        self.assertDropped("b", "tunnel", "UnknownIndex", 400)
        self.assertUnharmed(before)

    def dataOf(self, name: str) -> list[bytes]:
        """The transport messages that a node sends to C{b} in a second."""
        captured: list[bytes] = []
        internet = self.net.internet
        carry = internet.sendDatagram

        def tap(host: Any, source: Any, destination: Any, data: bytes) -> None:
            if host is self.net.hosts[name] and data.startswith(b"\x04\0\0\0"):
                captured.append(data)
            carry(host, source, destination, data)

        internet.sendDatagram = tap  # type: ignore[method-assign]
        self.net.elapse(1)
        del internet.sendDatagram
        return captured

    def test_absurdCalls(self) -> None:
        """
        A peer that calls with a thousand addresses of loopback, multicast and
        the like makes the node send nothing there.
        """
        before = self.paths()
        key = self.net["c"]._engine.paths.book._contacts._key
        told: set[str] = set()
        internet = self.net.internet
        carry = internet.sendDatagram
        everybody = {a for host in internet.hosts() for a in host.addresses}

        def tap(host: Any, source: Any, destination: Any, data: bytes) -> None:
            if host is self.net.hosts["b"]:
                told.add(destination[0])
            carry(host, source, destination, data)

        internet.sendDatagram = tap  # type: ignore[method-assign]
        call = self.sealed(key, disco.CallMeMaybe(tuple(absurd())))
        pool = self.net["c"]._engine.relays
        region = self.net["c"]._engine.relays.home
        for _ in range(100):
            pool.send(region, self.key("b"), [call])
            self.net.elapse(0.05)
        del internet.sendDatagram
        self.assertDropped("b", "path", "Candidate", 500)
        self.assertDropped("b", "path", "Flood", 50)
        self.assertLessEqual(told, everybody)
        status = self.book.status(self.key("c"), self.net.clock.seconds())
        assert status is not None
        self.assertLess(len(status.candidates), 5)
        self.assertUnharmed(before)

    def test_callsNotByRelay(self) -> None:
        """Calls that do not come by a relay, and pings in another's name."""
        before = self.paths()
        key = self.net["c"]._engine.paths.book._contacts._key
        call = disco.CallMeMaybe((AddrPort(parseAddress("203.0.113.5"), 5),))
        datagrams = [self.sealed(key, call) for _ in range(200)]
        datagrams += [
            self.sealed(key, disco.Ping(self.random.randbytes(12), self.key("a")))
            for _ in range(200)
        ]
        self.flood(datagrams)
        self.assertDropped("b", "path", "Call", 200)
        self.assertDropped("b", "path", "Unbound", 200)
        self.assertUnharmed(before)

    def test_answersOfWrongServers(self) -> None:
        """
        STUN answers with the right transaction from the wrong server, and with
        wrong ones that pretend to be from the right server, teach nothing.
        """
        before = self.paths()
        lie = AddrPort(parseAddress("203.0.113.66"), 66)
        internet = self.net.internet
        carry = internet.sendDatagram
        asked: list[tuple[str, int]] = []

        def tap(host: Any, source: Any, destination: Any, data: bytes) -> None:
            if host is self.net.hosts["b"] and data[:2] == b"\0\1":
                asked.append(destination)
                answers = [
                    (("203.0.113.250", 3478), data[8:20]),
                    (destination, self.random.randbytes(12)),
                ]
                for seen, txid in answers:
                    for _ in range(20):
                        internet.clock.callLater(
                            0, self.deliver, seen, stun.buildResponse(txid, lie)
                        )
            carry(host, source, destination, data)

        internet.sendDatagram = tap  # type: ignore[method-assign]
        self.net["b"]._engine.measureAgain()
        self.net.elapse(60)
        del internet.sendDatagram
        self.assertGreater(len(asked), 2)
        for peer in self.net["a"].peers():
            for endpoint in peer.endpoints:
                self.assertNotIn("203.0.113.66", endpoint)
        self.assertUnharmed(before)

    def deliver(self, source: tuple[str, int], data: bytes) -> None:
        """Let a datagram arrive at C{b} that seems to be from somewhere."""
        address, number = self.target
        port: Any = self.net.hosts["b"].boundPort("udp", address, number)
        port.arrived(data, source)
