"""Tests of echoes, pings and of errors that flows have to hear about."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import NoFreePort
from tsrt.netstack.flow import CloseReason
from tsrt.netstack.icmp import PingFailure
from tsrt.netstack.icmperrors import buildNoRoute
from tsrt.netstack.limits import StackLimits
from tsrt.netstack.ports import AddressNotAvailable
from tsrt.netstack.stack import Stack
from tsrt.test.test_netstack_stack import (
    A4,
    A6,
    B4,
    B6,
    C4,
    C6,
    FAMILIES,
    Network,
    makeStack,
    readSegment,
)
from tsrt.test.test_wire_checksum import naiveChecksum, naiveTransport
from tsrt.wire.icmp import ICMPMessage, buildICMP, parseICMP, verifyICMP
from tsrt.wire.ip import buildPackets, parseIP
from tsrt.wire.tcp import ACK, SYN, SegmentBuilder


def packets(
    source: bytes, destination: bytes, kind: int, code: int, rest: int, data: bytes
) -> list[bytes]:
    """The packets of an ICMP message."""
    message = buildICMP(source, destination, kind, code, rest, data)
    protocol = 1 if len(source) == 4 else 58
    return buildPackets(source, destination, protocol, message, 1280, 7)


def answers(stack: Stack, now: float = 0.0) -> list[ICMPMessage]:
    """The ICMP messages that a stack sends, checked."""
    got = []
    for packet in stack.drain(now):
        header = parseIP(packet)
        assert verifyICMP(header)
        got.append(parseICMP(packet, header.start, header.end))
    return got


class EchoTests(SynchronousTestCase):
    """Answering echo requests."""

    def setUp(self) -> None:
        self.stack = makeStack(A4, A6)

    def test_reply(self) -> None:
        """A request comes back as a reply with the same bytes."""
        for (local, remote), kinds in zip(FAMILIES, ((8, 0), (128, 129)), strict=True):
            self.stack.receive(
                packets(remote, local, kinds[0], 0, 0x12340005, b"payload"), 0.0
            )
            (reply,) = answers(self.stack)
            self.assertEqual(
                (reply.type, reply.ident, reply.sequence, reply.payload),
                (kinds[1], 0x1234, 5, b"payload"),
            )
            header = parseIP(reply.packet)
            self.assertEqual((header.source, header.destination), (local, remote))

    def test_handMadeRequest(self) -> None:
        """A request put together byte by byte is answered byte by byte."""
        body = bytes.fromhex("0800 0000 0001 0002 6162")
        body = body[:2] + naiveChecksum(body).to_bytes(2, "big") + body[4:]
        header = bytes.fromhex("4500001e 0000 0000 4001 0000") + B4 + A4
        total = naiveChecksum(header).to_bytes(2, "big")
        self.stack.receive([header[:10] + total + header[12:] + body], 0.0)
        (packet,) = self.stack.drain(0.0)
        expected = bytes.fromhex("0000 0000 0001 0002 6162")
        value = naiveChecksum(expected).to_bytes(2, "big")
        self.assertEqual(packet[20:], expected[:2] + value + expected[4:])

    def test_largeRequest(self) -> None:
        """A request in fragments is answered in fragments."""
        network = Network()
        for _, remote in FAMILIES:
            ping = network.a.ping(remote, bytes(range(256)) * 20, network.now)
            network.run(1.0)
            self.assertTrue(ping.answered)

    def test_otherAddress(self) -> None:
        """Requests to others are not answered."""
        self.stack.receive(packets(B4, C4, 8, 0, 1, b"x"), 0.0)
        self.assertEqual(self.stack.drain(0.0), [])
        self.assertEqual(self.stack.counters.droppedNotLocal, 1)

    def test_wrongChecksum(self) -> None:
        """A damaged request is dropped."""
        for local, remote in FAMILIES:
            (packet,) = packets(
                remote, local, 8 if len(local) == 4 else 128, 0, 1, b"x"
            )
            self.stack.receive([packet[:-1] + b"y"], 0.0)
        self.assertEqual(self.stack.counters.droppedChecksum, 2)
        self.assertEqual(self.stack.drain(0.0), [])

    def test_bounded(self) -> None:
        """A flood of requests gets a bounded number of replies, later more."""
        flood = packets(B4, A4, 8, 0, 1, b"x") * 300
        self.stack.receive(flood, 0.0)
        self.assertEqual(len(self.stack.drain(0.0)), 100)
        self.assertEqual(self.stack.counters.droppedRateEcho, 200)
        self.stack.receive(flood, 0.25)
        self.assertEqual(len(self.stack.drain(0.25)), 50)

    def test_fullOutbox(self) -> None:
        """Replies and errors that find no room are dropped and counted."""
        stack = makeStack(A4, limits=StackLimits(outbox=1))
        request = packets(B4, A4, 8, 0, 1, b"x")
        closed = buildPackets(B4, A4, 17, b"\0\7\0\7\0\x08\0\0", 1280, 0)
        stray = [SegmentBuilder(B4, 5, A4, 6).build(1, 2, ACK, 3)]
        for flood in (request, closed, stray):
            stack.receive(flood * 3, 0.0)
            self.assertEqual(len(stack.drain(0.0)), 1)
        counters = stack.counters
        self.assertEqual(counters.droppedOutbox, 6)
        self.assertEqual(
            (counters.echoReplies, counters.errorsSent, counters.resetsSent), (1, 1, 1)
        )

    def test_otherMessages(self) -> None:
        """Neighbour discovery and other messages are dropped silently."""
        for kind in (133, 135, 200):
            self.stack.receive(packets(B6, A6, kind, 0, 0, bytes(40)), 0.0)
        self.stack.receive(packets(B4, A4, 13, 0, 0, bytes(12)), 0.0)
        self.assertEqual(self.stack.drain(0.0), [])
        self.assertEqual(self.stack.counters.droppedICMPUnmatched, 4)

    def test_short(self) -> None:
        """A message shorter than its header is dropped."""
        self.stack.receive(buildPackets(B4, A4, 1, b"\x08\0\xf7\xff", 1280, 0), 0.0)
        self.assertEqual(self.stack.counters.droppedMalformed, 1)


class PingTests(SynchronousTestCase):
    """Sending echo requests."""

    def test_answered(self) -> None:
        """A ping is ready when its reply came, with the time it took."""
        network = Network(delay=0.05)
        for _, remote in FAMILIES:
            ping = network.a.ping(remote, b"hello", network.now)
            ready: list[object] = []
            network.apps[network.a] = ready.append
            network.run(1.0)
            self.assertEqual(ready, [ping])
            self.assertAlmostEqual(ping.roundTrip or 0.0, 0.1)
            self.assertTrue(ping.answered and ping.done)
            self.assertIsNone(ping.failure)
            self.assertIn("100.0 ms", repr(ping))
        self.assertIsNone(network.a.deadline())

    def test_ourselves(self) -> None:
        """We answer ourselves."""
        stack = makeStack(A4, A6)
        for address in (A4, A6):
            ping = stack.ping(address, b"me", 0.0)
            self.assertEqual(stack.drain(0.0), [])
            self.assertTrue(ping.answered)

    def test_timeout(self) -> None:
        """A ping without a reply is given up at its time."""
        stack = makeStack(A4)
        ping = stack.ping(B4, b"x", 5.0, timeout=2.0)
        self.assertIn("waiting", repr(ping))
        stack.drain(5.0)
        self.assertEqual(stack.deadline(), 7.0)
        stack.tick(6.9)
        self.assertFalse(ping.done)
        stack.tick(7.0)
        self.assertIs(ping.failure, PingFailure.TIMEOUT)
        self.assertEqual(stack.takeReady(), [ping])
        self.assertIsNone(stack.deadline())
        self.assertIn("timeout", repr(ping))

    def test_matching(self) -> None:
        """Only the very reply counts: addresses, numbers and bytes."""
        stack = makeStack(A4, C4)
        ping = stack.ping(B4, b"mine", 0.0)
        rest = ping.ident << 16 | 1
        for wrong in (
            packets(B4, A4, 0, 0, rest ^ 0x10000, b"mine"),
            packets(B4, A4, 0, 0, rest + 1, b"mine"),
            packets(C4[:3] + b"\x09", A4, 0, 0, rest, b"mine"),
            packets(B4, C4, 0, 0, rest, b"mine"),
            packets(B4, A4, 0, 0, rest, b"yours"),
        ):
            stack.receive(wrong, 0.1)
            self.assertFalse(ping.done)
        self.assertEqual(stack.counters.droppedICMPUnmatched, 5)
        stack.receive(packets(B4, A4, 0, 0, rest, b"mine"), 0.2)
        self.assertEqual(ping.roundTrip, 0.2)
        # The reply once more, and the time that is over: nothing happens.
        stack.receive(packets(B4, A4, 0, 0, rest, b"mine"), 0.3)
        stack.tick(100.0)
        self.assertEqual((ping.roundTrip, ping.failure), (0.2, None))

    def test_uniqueIdents(self) -> None:
        """Pings under way have different identifiers, whatever chance says."""
        stack = Stack(randbytes=bytes)
        stack.setAddresses([A4])
        idents = {stack.ping(B4, b"", 0.0).ident for _ in range(20)}
        self.assertEqual(len(idents), 20)

    def test_bounded(self) -> None:
        """The number of pings under way is bounded; closing one makes room."""
        stack = makeStack(A4, limits=StackLimits(pings=2))
        first = stack.ping(B4, b"", 0.0)
        stack.ping(B4, b"", 0.0)
        self.assertRaises(NoFreePort, stack.ping, B4, b"", 0.0)
        first.close()
        self.assertIs(first.failure, PingFailure.CANCELLED)
        first.close()
        stack.ping(B4, b"", 0.0)

    def test_noAddress(self) -> None:
        """Without an address of the family there is no ping."""
        stack = makeStack(A4)
        self.assertRaises(AddressNotAvailable, stack.ping, B6, b"", 0.0)
        stack.setAddresses([A4, A6])
        for remote in (B4, B6):
            self.assertRaises(ValueError, stack.ping, remote, bytes(65508), 0.0)
            stack.ping(remote, bytes(65507), 0.0)

    def test_addressRemoved(self) -> None:
        """A ping from an address that is gone is given up."""
        stack = makeStack(A4, A6)
        four, six = stack.ping(B4, b"", 0.0), stack.ping(B6, b"", 0.0)
        stack.setAddresses([A6])
        self.assertIs(four.failure, PingFailure.CANCELLED)
        self.assertFalse(six.done)

    def test_unreachable(self) -> None:
        """An error about our request ends the ping, one about another does not."""
        stack = makeStack(A4, A6)
        for remote, router, kind in ((B4, C4, 3), (B6, C6, 1)):
            ping = stack.ping(remote, b"payload", 0.0)
            (request,) = stack.drain(0.0)
            start = parseIP(request).start
            forged = bytearray(request)
            forged[start + 6] ^= 1
            local = parseIP(request).source
            stack.receive(packets(router, local, kind, 1, 0, bytes(forged)), 0.1)
            self.assertFalse(ping.done)
            unmatched = stack.counters.droppedICMPUnmatched
            stack.receive(packets(router, local, kind, 1, 0, request), 0.1)
            self.assertIs(ping.failure, PingFailure.UNREACHABLE)
            self.assertEqual(stack.counters.droppedICMPUnmatched, unmatched)
        self.assertEqual(stack.counters.droppedICMPUnmatched, 2)

    def test_tooBigDoesNotEnd(self) -> None:
        """A router that finds the request too large does not end the ping."""
        stack = makeStack(A4)
        ping = stack.ping(B4, b"payload", 0.0)
        (request,) = stack.drain(0.0)
        stack.receive(packets(C4, A4, 3, 4, 1000, request), 0.1)
        self.assertFalse(ping.done)


class PortUnreachableTests(SynchronousTestCase):
    """Reporting closed UDP ports."""

    def setUp(self) -> None:
        self.stack = makeStack(A4, A6)

    def datagrams(self, size: int, count: int = 1) -> list[bytes]:
        """IPv4 datagrams without a checksum to a closed port."""
        head = b"\0\x07\0\x09" + (8 + size).to_bytes(2, "big") + b"\0\0"
        return buildPackets(B4, A4, 17, head + bytes(size), 1280, 1) * count

    def test_quotation(self) -> None:
        """The error quotes the datagram, cut to 576 bytes for IPv4."""
        (packet,) = self.datagrams(1000)
        self.stack.receive([packet], 0.0)
        (error,) = answers(self.stack)
        self.assertEqual((error.type, error.code), (3, 3))
        self.assertEqual(error.payload, packet[:548])
        self.assertEqual(len(error.packet), 576)

    def test_quotationV6(self) -> None:
        """For IPv6 it is cut to 1280 bytes."""
        message = (
            b"\0\x07\0\x09" + (8 + 1220).to_bytes(2, "big") + b"\0\0" + bytes(1220)
        )
        value = naiveTransport(B6, A6, 17, message)
        message = message[:6] + value.to_bytes(2, "big") + message[8:]
        parts = buildPackets(B6, A6, 17, message, 1280, 1)
        self.stack.receive(parts, 0.0)
        (error,) = answers(self.stack)
        self.assertEqual((error.type, error.code), (1, 4))
        self.assertEqual(len(error.packet), 1280)

    def test_bounded(self) -> None:
        """A scan of ports gets a bounded number of errors."""
        self.stack.receive(self.datagrams(1, 200), 0.0)
        self.assertEqual(len(self.stack.drain(0.0)), 50)
        self.assertEqual(self.stack.counters.droppedRateError, 150)

    def test_fragmentIsNotReported(self) -> None:
        """A fragment alone causes no error."""
        self.stack.receive(self.datagrams(3000)[:1], 0.0)
        self.assertEqual(self.stack.drain(0.0), [])


class NoRouteTests(SynchronousTestCase):
    """What a router says to packets that it cannot forward."""

    def test_connecting(self) -> None:
        """Given back to the stack, it ends an attempt to connect at once."""
        stack = makeStack(A4, A6)
        for remote in (B4, B6):
            flow = stack.connectTCP(remote, 80, 0.0)
            (syn,) = stack.drain(0.0)
            answer = buildNoRoute(syn)
            assert answer is not None
            stack.receive([answer], 0.0)
            self.assertIs(flow.closeReason, CloseReason.UNREACHABLE)

    def test_datagramsAndPings(self) -> None:
        """Datagrams and pings learn of it, large ones too, and once."""
        stack = makeStack(A4, A6)
        for remote in (B4, B6):
            binding = stack.bindUDP(0)
            binding.send(bytes(5000), remote, 9, 0.0)
            ping = stack.ping(remote, b"x", 0.0)
            made = [buildNoRoute(packet) for packet in stack.drain(0.0)]
            self.assertEqual(made.count(None), len(made) - 2)
            stack.receive([packet for packet in made if packet is not None], 0.0)
            self.assertEqual(len(binding.errors), 1)
            self.assertIs(ping.failure, PingFailure.UNREACHABLE)

    def test_noErrorAboutErrors(self) -> None:
        """Errors, replies, multicast and rubbish cause none."""
        for wrong in (
            *packets(A4, B4, 3, 3, 0, bytes(28)),
            *packets(A6, B6, 1, 4, 0, bytes(48)),
            *packets(A6, B6, 129, 0, 0, bytes(48)),
            *buildPackets(A4, bytes((224, 0, 0, 1)), 17, bytes(8), 1280, 0),
            *buildPackets(A4, B4, 1, b"x", 1280, 0),
            b"rubbish",
        ):
            self.assertIsNone(buildNoRoute(wrong))


class FlowErrorTests(SynchronousTestCase):
    """Errors about segments of ours."""

    def setUp(self) -> None:
        self.network = Network(mtu=1500)
        self.stack = self.network.a

    def error(
        self, packet: bytes, kind: int, code: int, rest: int = 0, size: int = 548
    ) -> None:
        """A router reports an error about C{packet}."""
        local = parseIP(packet).source
        router = C4 if len(local) == 4 else C6
        self.stack.receive(
            packets(router, local, kind, code, rest, packet[:size]), self.network.now
        )

    def test_unreachableWhileConnecting(self) -> None:
        """A destination that cannot be reached ends a flow that is being opened."""
        for remote, kind, code in ((B4, 3, 1), (B4, 3, 3), (B4, 3, 13), (B6, 1, 0)):
            flow = self.stack.connectTCP(remote, 80, self.network.now)
            (syn,) = self.stack.drain(self.network.now)
            self.error(syn, kind, code)
            self.assertIs(flow.closeReason, CloseReason.UNREACHABLE)
            self.assertEqual(self.stack.takeReady(), [flow])
        self.assertEqual(self.stack.flows(), [])

    def test_unreachableLater(self) -> None:
        """It does not end a flow that is established."""
        client, _ = self.network.connected()
        client.write(b"x")
        (packet,) = self.stack.drain(self.network.now)
        self.error(packet, 3, 1)
        self.assertIsNone(client.closeReason)

    def test_expired(self) -> None:
        """Time exceeded does not end a flow that is being opened."""
        flow = self.stack.connectTCP(B4, 80, self.network.now)
        (syn,) = self.stack.drain(self.network.now)
        self.error(syn, 11, 0)
        self.assertIsNone(flow.closeReason)

    def test_forged(self) -> None:
        """Errors about what was never sent, or came from others, are ignored."""
        flow = self.stack.connectTCP(B4, 80, self.network.now)
        (syn,) = self.stack.drain(self.network.now)
        wrongNumber = bytearray(syn)
        wrongNumber[27] ^= 1
        wrongPort = bytearray(syn)
        wrongPort[21] ^= 1
        wrongSource = syn[:12] + B4 + syn[16:]
        for forged in (bytes(wrongNumber), bytes(wrongPort), wrongSource):
            local = self.stack.addresses[0]
            self.stack.receive(packets(C4, local, 3, 1, 0, forged), self.network.now)
            self.assertIsNone(flow.closeReason)
        self.assertEqual(self.stack.counters.droppedICMPUnmatched, 3)
        # Cut off before the sequence number.
        self.error(syn, 3, 1, size=24)
        self.assertEqual(self.stack.counters.droppedMalformed, 1)
        self.assertIsNone(flow.closeReason)

    def test_otherTransport(self) -> None:
        """Errors about transports that we do not have are dropped."""
        (packet,) = buildPackets(A4, B4, 47, bytes(20), 1280, 0)
        self.error(packet, 3, 1)
        self.assertEqual(self.stack.counters.droppedICMPUnmatched, 1)

    def test_fragmentationNeeded(self) -> None:
        """A smaller path cuts what is in flight and what follows."""
        for ends, kind, code in ((FAMILIES[0], 3, 4), (FAMILIES[1], 2, 0)):
            client, server = self.network.connected(ends)
            client.write(bytes(6000))
            big = self.stack.drain(self.network.now)
            self.assertEqual(len(big[0]), 1500)
            self.network.seen.clear()
            self.error(big[0], kind, code, 1300)
            self.network.run(5.0)
            self.assertEqual(len(server.read()), 6000)
            self.assertEqual(max(map(len, self.network.seen)), 1300)

    def test_pathIsRemembered(self) -> None:
        """The next flow to the same remote begins with the smaller path."""
        client, _ = self.network.connected()
        client.write(bytes(6000))
        self.error(self.stack.drain(self.network.now)[0], 3, 4, 1000)
        now = self.network.now
        for remote, later, mss in (
            (B4, 0.0, 960),
            (C4, 0.0, 1460),
            (B4, 601.0, 1460),
        ):
            self.stack.drain(now + later)
            self.stack.connectTCP(remote, 81, now + later)
            offered = [
                segment.options.mss
                for segment in map(readSegment, self.stack.drain(now + later))
                if segment.flags == SYN
            ]
            self.assertEqual(offered, [mss])

    def test_routerWithoutMTU(self) -> None:
        """A router that does not say what fits is taken to mean 576."""
        client, server = self.network.connected()
        client.write(bytes(3000))
        self.error(self.stack.drain(self.network.now)[0], 3, 4, 0)
        self.network.seen.clear()
        self.network.run(5.0)
        self.assertEqual(len(server.read()), 3000)
        self.assertEqual(max(map(len, self.network.seen)), 576)

    def test_tooSmallOverIPv6(self) -> None:
        """IPv6 never goes below 1280."""
        client, server = self.network.connected(FAMILIES[1])
        client.write(bytes(6000))
        self.error(self.stack.drain(self.network.now)[0], 2, 0, 600)
        self.network.seen.clear()
        self.network.run(5.0)
        self.assertEqual(len(server.read()), 6000)
        self.assertEqual(max(map(len, self.network.seen)), 1280)

    def test_memoryOfPathsIsBounded(self) -> None:
        """Path MTUs of many remotes do not pile up."""
        stack = makeStack(A4, mtu=1500, limits=StackLimits(pathMTUs=3))
        binding = stack.bindUDP(0)
        for n in range(10):
            binding.send(b"x", bytes((100, 64, 1, n)), 9, 0.0)
            (packet,) = stack.drain(0.0)
            stack.receive(packets(C4, A4, 3, 4, 1000, packet), 0.0)
            stack.receive(packets(C4, A4, 3, 4, 1200, packet), 0.0)
        self.assertEqual(len(stack._egress._pathMTUs), 3)
        self.assertEqual(stack._egress.pathMTU(bytes((100, 64, 1, 9)), 0.0), 1000)
        self.assertEqual(stack._egress.pathMTU(bytes((100, 64, 1, 0)), 0.0), 1500)
