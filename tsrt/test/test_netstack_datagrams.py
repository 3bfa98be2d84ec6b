"""Tests of UDP bindings: all kinds of them, their queues and their errors."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import NoFreePort, PortInUse, WireError
from tsrt.netstack.datagrams import (
    DatagramError,
    DatagramFailure,
    DatagramTooLong,
    Received,
    UDPBinding,
)
from tsrt.netstack.limits import StackLimits
from tsrt.netstack.ports import BindingClosed
from tsrt.netstack.stack import Stack
from tsrt.test.test_netstack_stack import (
    A4,
    A6,
    B4,
    B6,
    C4,
    FAMILIES,
    Network,
    makeStack,
)
from tsrt.wire.icmp import buildICMP
from tsrt.wire.ip import buildPackets, parseIP
from tsrt.wire.udp import buildUDP, parseUDP, verifyUDP


def datagram(
    data: bytes,
    port: int = 53,
    local: bytes = A4,
    remote: bytes = B4,
    remotePort: int = 7000,
) -> list[bytes]:
    """The packets of a datagram to the stack under test."""
    message = buildUDP(remote, remotePort, local, port, data)
    return buildPackets(remote, local, 17, message, 1280, len(data))


def sent(stack: Stack, now: float = 0.0) -> list[Received]:
    """The unfragmented datagrams that a stack sends, as their receiver sees them."""
    got = []
    for packet in stack.drain(now):
        header = parseIP(packet)
        parsed = parseUDP(packet, header.start, header.end)
        assert verifyUDP(header, parsed)
        got.append(
            Received(
                parsed.payload, header.source, parsed.sourcePort, header.destination
            )
        )
    return got


class ReceiveTests(SynchronousTestCase):
    """Datagrams on their way in."""

    def setUp(self) -> None:
        self.stack = makeStack(A4, A6)

    def test_received(self) -> None:
        """A datagram is ready with its sender and the address it was sent to."""
        binding = self.stack.bindUDP(53)
        self.stack.receive(datagram(b"question"), 0.0)
        self.assertEqual(self.stack.takeReady(), [binding])
        received = binding.receive()
        self.assertEqual(received, (b"question", B4, 7000, A4))
        self.assertIsNone(binding.receive())
        self.assertEqual(self.stack.counters.datagramsDelivered, 1)

    def test_scopes(self) -> None:
        """Each kind of binding gets what its scope covers, the narrowest first."""
        self.stack.setAddresses([A4, A6, C4])
        one = self.stack.bindUDP(53, address=A4)
        four = self.stack.bindUDP(53, address=4)
        six = self.stack.bindUDP(53, address=6)
        self.assertRaises(PortInUse, self.stack.bindUDP, 53)
        self.stack.receive(datagram(b"1"), 0.0)
        self.stack.receive(datagram(b"4", local=C4), 0.0)
        self.stack.receive(datagram(b"6", local=A6, remote=B6), 0.0)
        got = [(b.receive() or (None,))[0] for b in (one, four, six)]
        self.assertEqual(got, [b"1", b"4", b"6"])

    def test_dualStack(self) -> None:
        """A wildcard binding gets both families."""
        binding = self.stack.bindUDP(53)
        self.stack.receive(datagram(b"4"), 0.0)
        self.stack.receive(datagram(b"6", local=A6, remote=B6), 0.0)
        self.assertEqual(binding.waiting, 2)

    def test_oneFamily(self) -> None:
        """A binding of one family does not get the other."""
        binding = self.stack.bindUDP(53, address=6)
        self.stack.receive(datagram(b"4"), 0.0)
        self.assertEqual(binding.waiting, 0)
        self.assertEqual(self.stack.counters.droppedNoBinding, 1)

    def test_empty(self) -> None:
        """A datagram without data is one."""
        binding = self.stack.bindUDP(53)
        self.stack.receive(datagram(b""), 0.0)
        self.assertEqual(binding.receive(), (b"", B4, 7000, A4))

    def test_checksums(self) -> None:
        """IPv4 datagrams need no checksum, IPv6 ones do; wrong ones are dropped."""
        binding = self.stack.bindUDP(53)
        for ends in FAMILIES:
            local, remote = ends
            good = buildUDP(remote, 7000, local, 53, b"data")
            for message in (good[:6] + b"\0\0" + good[8:], good[:-1] + b"x"):
                self.stack.receive(
                    buildPackets(remote, local, 17, message, 1280, 0), 0.0
                )
        self.assertEqual(
            (binding.waiting, binding.receive()), (1, (b"data", B4, 7000, A4))
        )
        self.assertEqual(self.stack.counters.droppedChecksum, 3)

    def test_malformed(self) -> None:
        """Short datagrams and port 0 are dropped without an answer."""
        for message in (bytes(7), buildUDP(B4, 7000, A4, 0, b"x")):
            self.stack.receive(buildPackets(B4, A4, 17, message, 1280, 0), 0.0)
        self.assertEqual(self.stack.counters.droppedMalformed, 2)
        self.assertEqual(self.stack.drain(0.0), [])

    def test_queueLimit(self) -> None:
        """A full queue drops and counts, and goes on when there is room."""
        binding = self.stack.bindUDP(53, queueLimit=3)
        for n in range(5):
            self.stack.receive(datagram(bytes((n,))), 0.0)
        self.assertEqual((binding.waiting, binding.dropped), (3, 2))
        self.assertEqual(self.stack.counters.droppedDatagramQueue, 2)
        self.assertEqual(self.stack.takeReady(), [binding])
        self.stack.receive(datagram(b"one more"), 0.0)
        self.assertEqual(self.stack.takeReady(), [])
        self.assertEqual((binding.receive() or [b""])[0], b"\0")
        self.stack.receive(datagram(b"new"), 0.0)
        self.assertEqual(binding.waiting, 3)

    def test_queueBytes(self) -> None:
        """The queue is bounded in bytes, empty datagrams included."""
        self.stack = makeStack(A4, limits=StackLimits(datagramQueueBytes=1000))
        binding = self.stack.bindUDP(53, queueLimit=1000)
        self.stack.receive(datagram(bytes(900)), 0.0)
        self.stack.receive(datagram(bytes(900)), 0.0)
        self.assertEqual((binding.waiting, binding.dropped), (1, 1))
        binding.receive()
        for _ in range(50):
            self.stack.receive(datagram(b""), 0.0)
        self.assertEqual(binding.waiting, 15)

    def test_connected(self) -> None:
        """A connected binding receives from its peer only."""
        binding = self.stack.bindUDP(53)
        binding.connect(B4, 7000)
        self.stack.receive(datagram(b"peer"), 0.0)
        self.stack.receive(datagram(b"port", remotePort=7001), 0.0)
        self.stack.receive(datagram(b"host", remote=C4), 0.0)
        self.assertEqual((binding.waiting, self.stack.drain(0.0)), (1, []))
        self.assertEqual(self.stack.counters.droppedNoBinding, 2)
        binding.disconnect()
        self.stack.receive(datagram(b"host", remote=C4), 0.0)
        self.assertEqual(binding.waiting, 2)

    def test_fallback(self) -> None:
        """Datagrams for closed ports go where the fallback says."""
        binding = self.stack.bindUDP(9999)
        asked = []

        def fallback(*ends: bytes | int) -> UDPBinding | None:
            asked.append(ends)
            return binding if ends[3] == 54 else None

        self.stack.datagramFallback = fallback
        self.assertIs(self.stack.datagramFallback, fallback)
        self.stack.receive(datagram(b"x", port=54), 0.0)
        self.assertEqual(binding.waiting, 1)
        self.assertEqual(self.stack.drain(0.0), [])
        self.stack.receive(datagram(b"x", port=55), 0.0)
        self.assertEqual(len(self.stack.drain(0.0)), 1)
        self.assertEqual(asked, [(B4, 7000, A4, 54), (B4, 7000, A4, 55)])


class SendTests(SynchronousTestCase):
    """Datagrams on their way out."""

    def setUp(self) -> None:
        self.stack = makeStack(A4, A6)

    def test_sent(self) -> None:
        """A datagram comes from the bound port and our address of the family."""
        binding = self.stack.bindUDP(53)
        self.assertTrue(binding.send(b"four", B4, 9, 0.0))
        self.assertTrue(binding.send(bytearray(b""), B6, 9, 0.0))
        self.assertEqual(sent(self.stack), [(b"four", A4, 53, B4), (b"", A6, 53, B6)])
        self.assertEqual(self.stack.counters.datagramsSent, 2)

    def test_localAddress(self) -> None:
        """An answer can come from the address that was asked."""
        self.stack.setAddresses([A4, A6, C4])
        binding = self.stack.bindUDP(53)
        binding.send(b"x", B4, 9, 0.0, localAddress=C4)
        bound = self.stack.bindUDP(53, address=C4)
        bound.send(b"y", B4, 9, 0.0)
        self.assertEqual(sent(self.stack), [(b"x", C4, 53, B4), (b"y", C4, 53, B4)])

    def test_noSource(self) -> None:
        """Without a fitting address nothing is sent, and counted."""
        bare = makeStack(A4)
        six = bare.bindUDP(53, address=6)
        four = bare.bindUDP(53, address=4)
        foreign = bare.bindUDP(53, address=C4)
        self.assertFalse(six.send(b"x", B6, 9, 0.0))
        self.assertFalse(six.send(b"x", B4, 9, 0.0))
        self.assertFalse(four.send(b"x", B6, 9, 0.0))
        self.assertFalse(four.send(b"x", B4, 9, 0.0, localAddress=C4))
        self.assertFalse(foreign.send(b"x", B4, 9, 0.0))
        self.assertFalse(foreign.send(b"x", B4, 9, 0.0, localAddress=A4))
        self.assertEqual(bare.counters.droppedNoSource, 6)
        self.assertEqual(bare.drain(0.0), [])

    def test_anyAddress(self) -> None:
        """A router's stack answers from the address that was meant."""
        stack = makeStack(A4, anyAddress=True)
        outside = bytes((192, 0, 2, 7))
        binding = stack.bindUDP(53)
        stack.receive(datagram(b"x", local=outside), 0.0)
        received = binding.receive()
        assert received is not None
        binding.send(b"y", received.address, 7000, 0.0, received.localAddress)
        self.assertEqual(sent(stack), [(b"y", outside, 53, B4)])

    def test_largest(self) -> None:
        """65,507 bytes go, one more does not."""
        network = Network()
        for _, remote in FAMILIES:
            sink = network.b.bindUDP(9, address=4 if len(remote) == 4 else 6)
            source = network.a.bindUDP(0)
            data = bytes(range(251)) * 260 + bytes(247)
            self.assertEqual(len(data), 65507)
            self.assertTrue(source.send(data, remote, 9, network.now))
            self.assertRaises(
                DatagramTooLong, source.send, data + b"x", remote, 9, network.now
            )
            network.run(1.0)
            self.assertEqual((sink.receive() or [b""])[0], data)
        self.assertTrue(issubclass(DatagramTooLong, WireError))

    def test_fragmentsAreBounded(self) -> None:
        """What waits to be sent is bounded; a datagram goes whole or not at all."""
        stack = makeStack(A4, limits=StackLimits(outbox=10))
        binding = stack.bindUDP(0)
        results = [binding.send(bytes(4000), B4, 9, 0.0) for _ in range(4)]
        self.assertEqual(results, [True, True, False, False])
        self.assertEqual(stack.counters.droppedOutbox, 8)
        self.assertEqual(len(stack.drain(0.0)), 8)
        self.assertTrue(binding.send(b"x", B4, 9, 0.0))

    def test_identChanges(self) -> None:
        """Fragmented datagrams in succession have different identifications."""
        binding = self.stack.bindUDP(0)
        idents = set()
        for remote in (B4, B6):
            for _ in range(3):
                binding.send(bytes(3000), remote, 9, 0.0)
                idents |= {parseIP(packet).ident for packet in self.stack.drain(0.0)}
        self.assertEqual(len(idents), 6)

    def test_ports(self) -> None:
        """Port 0 and beyond cannot be sent to."""
        binding = self.stack.bindUDP(0)
        for port in (0, 65536):
            self.assertRaises(ValueError, binding.send, b"x", B4, port, 0.0)
            self.assertRaises(ValueError, binding.connect, B4, port)

    @given(st.binary(max_size=5000), st.sampled_from(FAMILIES))
    @settings(max_examples=40, deadline=None)
    def test_roundTrip(self, data: bytes, ends: tuple[bytes, bytes]) -> None:
        """Any datagram gets from one stack to another."""
        network = Network()
        sink = network.b.bindUDP(9)
        network.a.bindUDP(1234).send(data, ends[1], 9, network.now)
        network.run(1.0)
        self.assertEqual(sink.receive(), (data, ends[0], 1234, ends[1]))


class BindTests(SynchronousTestCase):
    """Taking and giving back ports."""

    def test_T_udp0(self) -> None:
        """Port 0 means an ephemeral port that nobody has."""
        stack = Stack(randbytes=bytes)
        stack.bindUDP(49152, address=4)
        ports = {stack.bindUDP(0).port for _ in range(5)}
        self.assertEqual(ports, set(range(49153, 49158)))

    def test_tcpAndUDPAreApart(self) -> None:
        """The same port can be bound for both."""
        stack = makeStack(A4)
        stack.listenTCP(53)
        stack.bindUDP(53)

    def test_arguments(self) -> None:
        """Ports and addresses that are none are refused."""
        stack = makeStack(A4)
        self.assertRaises(ValueError, stack.bindUDP, -1)
        self.assertRaises(ValueError, stack.bindUDP, 53, address=7)
        self.assertIn("0 waiting", repr(stack.bindUDP(53)))

    def test_tooMany(self) -> None:
        """The number of bindings is bounded."""
        stack = makeStack(limits=StackLimits(bindings=2))
        stack.bindUDP(0)
        stack.bindUDP(0)
        self.assertRaises(NoFreePort, stack.bindUDP, 0)

    def test_T_handles_closed(self) -> None:
        """A closed binding sends nothing, and is not its successor."""
        stack = makeStack(A4)
        old = stack.bindUDP(53)
        stack.receive(datagram(b"x"), 0.0)
        old.close()
        self.assertIsNone(old.receive())
        new = stack.bindUDP(53)
        old.close()
        self.assertRaises(BindingClosed, old.send, b"x", B4, 9, 0.0)
        stack.receive(datagram(b"y"), 0.0)
        self.assertEqual((old.waiting, new.waiting), (0, 1))
        self.assertIn("closed", repr(old))

    def test_addressRemoved(self) -> None:
        """A binding of an address that is removed learns it, and works again later."""
        stack = makeStack(A4)
        bound = stack.bindUDP(53, address=A4)
        wild = stack.bindUDP(53)
        stack.setAddresses([A6])
        self.assertEqual(stack.takeReady(), [bound])
        self.assertEqual(
            list(bound.errors), [DatagramError(DatagramFailure.ADDRESS_REMOVED, A4, 0)]
        )
        self.assertFalse(bound.send(b"x", B4, 9, 0.0))
        self.assertFalse(wild.errors)
        stack.setAddresses([A4])
        self.assertTrue(bound.send(b"x", B4, 9, 0.0))

    def test_addressRemovedOften(self) -> None:
        """A binding that takes no errors is not told without end."""
        stack = makeStack(A4, limits=StackLimits(errorQueue=2))
        bound = stack.bindUDP(53, address=A4)
        for _ in range(5):
            stack.setAddresses([A6])
            stack.setAddresses([A4])
        self.assertEqual(len(bound.errors), 2)
        self.assertEqual(stack.counters.droppedErrorQueue, 3)


class ErrorTests(SynchronousTestCase):
    """What the network says about datagrams of ours."""

    def test_portUnreachable(self) -> None:
        """A datagram to a closed port comes back as an error, for both families."""
        network = Network()
        for _, remote in FAMILIES:
            binding = network.a.bindUDP(0)
            binding.send(b"anybody?", remote, 9, network.now)
            ready: list[object] = []
            network.apps[network.a] = ready.append
            network.run(1.0)
            self.assertEqual(ready, [binding])
            self.assertEqual(
                list(binding.errors),
                [DatagramError(DatagramFailure.PORT_UNREACHABLE, remote, 9)],
            )
        self.assertEqual(network.b.counters.errorsSent, 2)
        self.assertEqual(network.a.counters.errorsReceived, 2)

    def test_fragmentedDatagram(self) -> None:
        """So does one that went in fragments."""
        network = Network()
        for _, remote in FAMILIES:
            binding = network.a.bindUDP(0)
            binding.send(bytes(5000), remote, 9, network.now)
            network.run(1.0)
            self.assertEqual(
                [error.failure for error in binding.errors],
                [DatagramFailure.PORT_UNREACHABLE],
            )

    def error(self, stack: Stack, kind: int, code: int, mtu: int = 0) -> None:
        """An ICMP error about what C{stack} sends next to IPv4."""
        for packet in stack.drain(0.0):
            message = buildICMP(C4, A4, kind, code, mtu, packet[:28])
            stack.receive(buildPackets(C4, A4, 1, message, 1280, 0), 0.0)

    def test_kinds(self) -> None:
        """Each ICMP error has its meaning."""
        stack = makeStack(A4)
        binding = stack.bindUDP(0)
        for kind, code, failure in (
            (3, 0, DatagramFailure.UNREACHABLE),
            (3, 1, DatagramFailure.UNREACHABLE),
            (3, 2, DatagramFailure.PORT_UNREACHABLE),
            (3, 4, DatagramFailure.TOO_BIG),
            (3, 13, DatagramFailure.PROHIBITED),
            (11, 0, DatagramFailure.EXPIRED),
            (12, 0, DatagramFailure.UNREACHABLE),
        ):
            binding.send(b"x", B4, 9, 0.0)
            self.error(stack, kind, code)
            self.assertEqual(binding.errors.popleft(), (failure, B4, 9))
        self.assertEqual(stack.counters.errorsReceived, 7)
        self.assertEqual(stack.counters.droppedICMPUnmatched, 0)

    def test_kindsV6(self) -> None:
        """So has each ICMPv6 error; unknown ones have none."""
        stack = makeStack(A6)
        binding = stack.bindUDP(0)
        for kind, code, failure in (
            (1, 0, DatagramFailure.UNREACHABLE),
            (1, 1, DatagramFailure.PROHIBITED),
            (1, 3, DatagramFailure.UNREACHABLE),
            (1, 4, DatagramFailure.PORT_UNREACHABLE),
            (1, 5, DatagramFailure.PROHIBITED),
            (2, 0, DatagramFailure.TOO_BIG),
            (3, 0, DatagramFailure.EXPIRED),
            (4, 1, DatagramFailure.UNREACHABLE),
            (100, 0, None),
        ):
            binding.send(b"x", B6, 9, 0.0)
            (packet,) = stack.drain(0.0)
            message = buildICMP(B6, A6, kind, code, 0, packet)
            stack.receive(buildPackets(B6, A6, 58, message, 1280, 0), 0.0)
            got = [error.failure for error in binding.errors]
            self.assertEqual(got, [] if failure is None else [failure])
            binding.errors.clear()

    def test_queueIsBounded(self) -> None:
        """Errors that nobody takes are bounded and counted."""
        stack = makeStack(A4)
        binding = stack.bindUDP(0)
        for _ in range(20):
            binding.send(b"x", B4, 9, 0.0)
            self.error(stack, 3, 3)
        self.assertEqual(len(binding.errors), 16)
        self.assertEqual(stack.takeReady(), [binding])
        binding.send(b"x", B4, 9, 0.0)
        self.error(stack, 3, 3)
        self.assertEqual(stack.takeReady(), [])
        self.assertEqual(stack.counters.droppedErrorQueue, 5)

    def test_connected(self) -> None:
        """A connected binding hears only of its peer."""
        stack = makeStack(A4)
        binding = stack.bindUDP(0)
        binding.connect(B4, 9)
        binding.send(b"x", B4, 10, 0.0)
        self.error(stack, 3, 3)
        self.assertFalse(binding.errors)
        self.assertEqual(stack.counters.droppedICMPUnmatched, 1)
        binding.send(b"x", B4, 9, 0.0)
        self.error(stack, 3, 3)
        self.assertEqual(len(binding.errors), 1)

    def test_unbound(self) -> None:
        """An error about a port that nobody has any more is dropped."""
        stack = makeStack(A4)
        binding = stack.bindUDP(0)
        binding.send(b"x", B4, 9, 0.0)
        binding.close()
        self.error(stack, 3, 3)
        self.assertEqual(stack.counters.droppedICMPUnmatched, 1)
        self.assertEqual(stack.takeReady(), [])

    def test_smallerPath(self) -> None:
        """Over IPv6 a smaller path MTU cuts the next datagrams smaller."""
        stack = makeStack(A6, mtu=1500)
        binding = stack.bindUDP(0)
        binding.send(bytes(1400), B6, 9, 0.0)
        (packet,) = stack.drain(0.0)
        message = buildICMP(B6, A6, 2, 0, 1300, packet[:1200])
        stack.receive(buildPackets(B6, A6, 58, message, 1280, 0), 0.0)
        self.assertEqual(binding.errors.popleft().failure, DatagramFailure.TOO_BIG)
        binding.send(bytes(1400), B6, 9, 0.0)
        sizes = [len(packet) for packet in stack.drain(0.0)]
        self.assertEqual((len(sizes), max(sizes) <= 1300), (2, True))
        binding.send(bytes(1400), B6, 9, 601.0)
        self.assertEqual(len(stack.drain(601.0)), 1)
